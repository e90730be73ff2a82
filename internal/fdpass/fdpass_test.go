// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"errors"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"scache/internal/testenv"
)

func pair(t testing.TB) (a, b *Conn) {
	t.Helper()
	x, y := testenv.ConnPair(t)
	a, b = New(x), New(y)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
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

func TestSend_andTake(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r, w := testenv.Pipe(t)
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
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil ||
		flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v: not close-on-exec", flags, err)
	}
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		t.Error(err)
	}
	unix.Close(fd)
	got := make([]byte, 10)
	if n, err := unix.Read(r, got); string(got[:max(n, 0)]) != "x" || err != nil {
		t.Errorf("got %q, %v, want \"x\"", got[:max(n, 0)], err)
	}
	testenv.WantClosed(t, r)
	if _, err := b.Take(); err != ErrNone {
		t.Errorf("second Take: %v", err)
	}
}

func TestRead_descriptorComesWithTheBytesBeforeIt(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r, w := testenv.Pipe(t)
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
	testenv.WantClosed(t, r)
	if got := read(t, b); got != "after" {
		t.Errorf("got %q", got)
	}
}

func TestTake_refusesSeveralInOneMessage(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 5; n++ {
		a, b := pair(t)
		var readers []int
		var fds []int
		for range n {
			r, w := testenv.Pipe(t)
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
			testenv.WantClosed(t, r)
		}
		if _, err := b.Take(); err != ErrNone {
			t.Errorf("%d descriptors: second Take: %v", n, err)
		}
	}
}

func TestTake_refusesSeveralMessages(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r1, w1 := testenv.Pipe(t)
	r2, w2 := testenv.Pipe(t)
	a.Send(w1)
	a.Send(w2)
	unix.Close(w1)
	unix.Close(w2)
	read(t, b)
	read(t, b)
	if _, err := b.Take(); err != ErrCompany {
		t.Error(err)
	}
	testenv.WantClosed(t, r1)
	testenv.WantClosed(t, r2)
}

func TestClose_closesTheDescriptorInside(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	r, w := testenv.Pipe(t)
	a.Send(w)
	unix.Close(w)
	read(t, b)
	b.Close()
	testenv.WantClosed(t, r)
}

func TestTake_otherControlData(t *testing.T) {
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
	if fd, err := b.Take(); err != ErrLost { // there is no room for credentials
		t.Errorf("got %d, %v, want %v", fd, err, ErrLost)
	}
	if fd, err := b.Take(); err != ErrNone {
		t.Errorf("got %d, %v at the second time, want %v", fd, err, ErrNone)
	}
}

func TestRead_endOfStream(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.Close()
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestSendBatch_arrives(t *testing.T) {
	t.Parallel()
	a, b := socketPair(t)
	if _, _, err := b.ReceiveBatch(); err != ErrAgain {
		t.Errorf("before the first: %v", err)
	}
	for _, n := range []int{1, 2, BatchSize} {
		r, w := testenv.Pipe(t)
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
		testenv.WantClosed(t, r)
	}
	a.Close()
	if _, _, err := b.ReceiveBatch(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestSendBatch_fillsTheSocket queues until there is no room, and takes all of it.
func TestSendBatch_fillsTheSocket(t *testing.T) {
	t.Parallel()
	a, b := socketPair(t)
	_, w := testenv.Pipe(t)
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
	x, y := pair(b)
	buf := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		x.Write(buf[:40])
		y.Read(buf)
	}
}

func BenchmarkSendTake(b *testing.B) {
	x, y := pair(b)
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
