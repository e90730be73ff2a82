// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// pipe returns a pipe whose write end is a bare descriptor. Once all copies of
// it are closed, the read end says so.
func pipe(t *testing.T) (r *os.File, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	r = os.NewFile(uintptr(p[0]), "pipe")
	t.Cleanup(func() { r.Close() })
	return r, p[1]
}

// wantClosed waits until every copy of the pipe's write end is closed.
func wantClosed(t *testing.T, r *os.File) {
	t.Helper()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read: %d, %v", n, err)
	}
}

func read(t *testing.T, c *Conn) string {
	t.Helper()
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestSendAndTake(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r, w := pipe(t)
	if err := a.Send(w); err != nil {
		t.Fatal(err)
	}
	unix.Close(w)
	if got := read(t, b); got != "\x00" {
		t.Errorf("got %q", got)
	}
	fd, err := b.Take()
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: not close-on-exec", flags, err)
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		t.Error(err)
	}
	unix.Close(fd)
	if got, err := io.ReadAll(r); string(got) != "x" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := b.Take(); err != ErrNone {
		t.Errorf("second Take: %v", err)
	}
}

func TestDescriptorArrivesWithTheBytesBeforeIt(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r, w := pipe(t)
	a.Write([]byte("before"))
	a.Send(w)
	a.Write([]byte("after"))
	unix.Close(w)
	if got := read(t, b); got != "before\x00" {
		t.Errorf("got %q", got)
	}
	fd, err := b.Take()
	if err != nil {
		t.Error(err)
	}
	unix.Close(fd)
	wantClosed(t, r)
	if got := read(t, b); got != "after" {
		t.Errorf("got %q", got)
	}
}

func TestDescriptorsInCompanyAreClosed(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 5; n++ {
		a, b := pair(t)
		var readers []*os.File
		var fds []int
		for range n {
			r, w := pipe(t)
			readers, fds = append(readers, r), append(fds, w)
		}
		if _, _, err := a.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil); err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		read(t, b)
		if _, err := b.Take(); err != ErrCompany {
			t.Errorf("%d descriptors: %v", n, err)
		}
		for _, r := range readers {
			wantClosed(t, r)
		}
		if _, err := b.Take(); err != ErrNone {
			t.Errorf("%d descriptors: second Take: %v", n, err)
		}
	}
}

func TestDescriptorsInSeveralMessagesAreCompany(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r1, w1 := pipe(t)
	r2, w2 := pipe(t)
	a.Send(w1)
	a.Send(w2)
	unix.Close(w1)
	unix.Close(w2)
	read(t, b)
	read(t, b)
	if _, err := b.Take(); err != ErrCompany {
		t.Error(err)
	}
	wantClosed(t, r1)
	wantClosed(t, r2)
}

func TestCloseClosesWhatNobodyTook(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r, w := pipe(t)
	a.Send(w)
	unix.Close(w)
	read(t, b)
	b.Close()
	wantClosed(t, r)
}

func TestOtherControlDataIsNoDescriptor(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	raw, err := b.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	a.Write([]byte("x"))
	read(t, b)
	if fd, err := b.Take(); err != ErrNone && err != ErrCompany && err != ErrLost {
		t.Errorf("got %d, %v", fd, err)
	}
}

func TestEndOfStream(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.Close()
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	a, b := socketPair(t)
	if _, _, err := b.ReceiveBatch(); err != ErrAgain {
		t.Errorf("before the first: %v", err)
	}
	for _, n := range []int{1, 2, BatchSize} {
		r, w := pipe(t)
		fds := make([]int, n)
		for i := range fds {
			fds[i] = w
		}
		if err := a.SendBatch(fds); err != nil {
			t.Fatal(err)
		}
		unix.Close(w)
		got, announced, err := b.ReceiveBatch()
		if err != nil || len(got) != n || announced != n {
			t.Errorf("got %d of %d descriptors, %d announced, %v", len(got), n, announced, err)
		}
		for _, fd := range got {
			unix.Close(fd)
		}
		wantClosed(t, r)
	}
	a.Close()
	if _, _, err := b.ReceiveBatch(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestBatchesFillASocket queues until there is no room, and takes all of it.
func TestBatchesFillASocket(t *testing.T) {
	t.Parallel()
	a, b := socketPair(t)
	_, w := pipe(t)
	defer unix.Close(w)
	sent, batch := 0, []int{w, w, w}
	var err error
	for err == nil && sent < 1000 {
		if err = a.SendBatch(batch); err == nil {
			sent++
		}
	}
	if sent < 100 || err != ErrAgain {
		t.Fatalf("%d batches, %v", sent, err)
	}
	for range sent {
		fds, n, err := b.ReceiveBatch()
		if len(fds) != 3 || n != 3 || err != nil {
			t.Fatal(fds, n, err)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

func BenchmarkReadWrite(b *testing.B) {
	x, y, err := Pair()
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	defer y.Close()
	buf := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		x.Write(buf[:40])
		y.Read(buf)
	}
}

func BenchmarkSendTake(b *testing.B) {
	x, y, err := Pair()
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	defer y.Close()
	buf := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		if err := x.Send(0); err != nil {
			b.Fatal(err)
		}
		y.Read(buf)
		fd, err := y.Take()
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
}
