// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"scache/internal/testenv"
)

func socketPair(t testing.TB) (a, b *Socket) {
	t.Helper()
	a, b, err := SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestSocket_passesBytesAndDescriptors(t *testing.T) {
	t.Parallel()
	a, b := socketPair(t)
	buf := make([]byte, 10)
	if n, err := b.Receive(buf); n != 0 || err != ErrAgain {
		t.Errorf("nothing to receive: %d, %v", n, err)
	}
	r, w := testenv.Pipe(t)
	a.Send([]byte("before"))
	if err := a.SendDescriptor(w); err != nil {
		t.Fatal(err)
	}
	a.Send([]byte("after"))
	unix.Close(w)
	if n, err := b.Receive(buf); string(buf[:n]) != "before\x00" || err != nil {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	fd, err := b.Take()
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil ||
		flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: not close-on-exec", flags, err)
	}
	unix.Close(fd)
	testenv.WantClosed(t, r)
	if n, err := b.Receive(buf); string(buf[:n]) != "after" || err != nil {
		t.Errorf("got %q, %v", buf[:n], err)
	}
	if _, err := b.Take(); err != ErrNone {
		t.Errorf("second Take: %v", err)
	}
	a.Close()
	if n, err := b.Receive(buf); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := b.Send([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("send without a reader: %v", err)
	}
}

func TestSocket_refusesSeveralDescriptors(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 5; n++ {
		a, b := socketPair(t)
		r, w := testenv.Pipe(t)
		fds := []int{w, w, w, w, w}[:n]
		if err := a.SendBatch(fds); err != nil {
			t.Fatal(err)
		}
		unix.Close(w)
		if got, err := b.Receive(make([]byte, 10)); got != n || err != nil {
			t.Errorf("%d, %v", got, err)
		}
		if _, err := b.Take(); err != ErrCompany {
			t.Errorf("%d descriptors: %v", n, err)
		}
		testenv.WantClosed(t, r)
	}
}

func TestSocket_closedTwice(t *testing.T) {
	t.Parallel()
	a, _ := socketPair(t)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
}

func TestSocket_sendsWhatFits(t *testing.T) {
	t.Parallel()
	a, b := socketPair(t)
	text := []byte(strings.Repeat("x", 1<<20))
	total := 0
	for {
		n, err := a.Send(text)
		if err == ErrAgain {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if total == 0 || a.SendDescriptor(0) != ErrAgain {
		t.Errorf("%d bytes fit, and a descriptor after them", total)
	}
	got, buf := 0, make([]byte, 1<<16)
	for got < total {
		n, err := b.Receive(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
}

func TestConnect_andAccept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	if _, err := connect(path); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), path) {
		t.Errorf("without a listener: %v", err)
	}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	if err := errors.Join(unix.Bind(listener, &unix.SockaddrUnix{Name: path}),
		unix.Listen(listener, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Accept(listener); err != ErrAgain {
		t.Errorf("without a client: %v", err)
	}
	var conns []*Socket
	for err = nil; err == nil && len(conns) < 10; {
		var c *Socket
		if c, err = connect(path); err == nil {
			defer c.Close()
			conns = append(conns, c)
		}
	}
	if err != ErrAgain {
		t.Fatalf("the accept queue is not full: %v", err)
	}
	fd, err := Accept(listener)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	me := Peer{os.Getpid(), os.Geteuid()}
	for what, fd := range map[string]int{"accepted": fd, "connected": conns[0].FD(),
		"listening": listener} {
		if got, err := PeerOf(fd); got != me || err != nil {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func TestSendBatch_needsASocket(t *testing.T) {
	t.Parallel()
	_, w := testenv.Pipe(t)
	s := NewSocket(w)
	defer s.Close()
	if err := s.SendBatch([]int{0}); !errors.Is(err, unix.ENOTSOCK) {
		t.Error(err)
	}
	if _, _, err := s.ReceiveBatch(); !errors.Is(err, unix.ENOTSOCK) {
		t.Error(err)
	}
}

func TestSocket_allocatesNothing(t *testing.T) {
	OnCreate(nil) // to trace allocates
	defer OnCreate(testenv.TraceDescriptor)
	a, b := socketPair(t)
	buf, text := make([]byte, 100), []byte("a request")
	if n := testing.AllocsPerRun(100, func() {
		a.Send(text)
		b.Receive(buf)
		b.Receive(buf) // ErrAgain
		a.SendDescriptor(0)
		b.Receive(buf)
		fd, _ := b.Take()
		unix.Close(fd)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func connect(path string) (*Socket, error) {
	s, err := NewStream()
	if err == nil {
		if err = s.Connect(path); err != nil {
			s.Close()
		}
	}
	return s, err
}

// TestReceiveBytes_leavesDescriptorsToTheKernel receives the byte of a descriptor alone, and then
// another descriptor.
func TestReceiveBytes_leavesDescriptorsToTheKernel(t *testing.T) {
	t.Parallel()
	a, b := socketPair(t)
	r, w := testenv.Pipe(t)
	if err := a.SendDescriptor(w); err != nil {
		t.Fatal(err)
	}
	unix.Close(w)
	buf := make([]byte, 10)
	if n, err := b.ReceiveBytes(buf); n != 1 || err != nil {
		t.Errorf("got %d, %v, want one byte", n, err)
	}
	testenv.WantClosed(t, r)
	if fd, err := b.Take(); err != ErrLost {
		t.Errorf("got %d, %v, want %v", fd, err, ErrLost)
	}
	_, w = testenv.Pipe(t)
	if err := a.SendDescriptor(w); err != nil {
		t.Fatal(err)
	}
	unix.Close(w)
	if n, err := b.Receive(buf); n != 1 || err != nil {
		t.Errorf("got %d, %v, want one byte", n, err)
	}
	fd, err := b.Take()
	if err != nil || unix.Close(fd) != nil {
		t.Errorf("got %d, %v, want the next descriptor", fd, err)
	}
}

// TestCloseWith_closesWhatIsNotTaken has two descriptors come at once, and one that is there
// when the socket is closed.
func TestCloseWith_closesWhatIsNotTaken(t *testing.T) {
	t.Parallel()
	a, b := socketPair(t)
	var closed []int
	b.CloseWith(func(fd int) {
		closed = append(closed, fd)
		unix.Close(fd)
	})
	receive := func(n int) {
		t.Helper()
		var fds []int
		for range n {
			_, w := testenv.Pipe(t)
			fds = append(fds, w)
		}
		if err := a.SendBatch(fds); err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		if _, err := b.Receive(make([]byte, 10)); err != nil {
			t.Error(err)
		}
	}
	receive(2)
	if fd, err := b.Take(); err != ErrCompany || len(closed) != 2 {
		t.Errorf("got %d, %v, %v closed, want both", fd, err, closed)
	}
	receive(1)
	b.Close()
	if len(closed) != 3 {
		t.Errorf("got %v closed, want the last one, too", closed)
	}
}
