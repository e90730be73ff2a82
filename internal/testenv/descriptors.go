// SPDX-License-Identifier: EPL-2.0

package testenv

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Pipe returns the ends of a pipe, which are not in blocking mode. The write end belongs to
// the caller, who may send it elsewhere. With the read end, WantClosed finds copies of it.
func Pipe(t testing.TB) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(os.NewSyscallError("pipe2", err))
	}
	t.Cleanup(func() { unix.Close(p[0]) })
	return p[0], p[1]
}

// WantClosed wants all copies of the write end of a pipe to be closed, in this process and in
// others. Nothing may be left in the pipe.
func WantClosed(t testing.TB, r int) {
	t.Helper()
	const limit = 10 * time.Second
	n, err := 0, error(unix.EINTR)
	for end := time.Now().Add(limit); err == unix.EINTR; {
		left := max(0, time.Until(end).Milliseconds())
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(r), Events: unix.POLLIN}}, int(left))
	}
	if n == 0 || err != nil {
		t.Errorf("got an open descriptor after %v (%v), want it closed", limit, err)
		return
	}
	if n, err := unix.Read(r, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("got %d bytes, %v from the pipe, want its end", n, err)
	}
}

// NewDescriptor returns a descriptor with an inode of its own. It belongs to the caller.
func NewDescriptor(t testing.TB) int {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(os.NewSyscallError("pipe2", err))
	}
	unix.Close(p[1])
	return p[0]
}

// Read reads once. A signal does not end it, as it does where a socket has SO_RCVTIMEO: the
// runtime of Go sends signals to its own threads.
func Read(fd int, p []byte) (n int, err error) {
	for {
		if n, err = unix.Read(fd, p); err != unix.EINTR {
			return n, err
		}
	}
}

// Inode returns the number of the file of an open descriptor.
func Inode(t testing.TB, fd int) uint64 {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		t.Fatal(os.NewSyscallError("fstat", err))
	}
	return stat.Ino
}

// UnixConn returns the connection of a bare descriptor, which it closes.
func UnixConn(t testing.TB, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		t.Fatalf("got a %T, want a connection of a UNIX socket", c)
	}
	return conn
}

// ConnPair returns the two ends of a new connection, which are closed after the test.
func ConnPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(os.NewSyscallError("socketpair", err))
	}
	a, b = UnixConn(t, fds[0]), UnixConn(t, fds[1])
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TCPConn returns a connection over TCP, and the address of its other end. It is closed after the
// test.
func TCPConn(t testing.TB) (conn *net.TCPConn, remote string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		l.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); l.Close() })
	return c.(*net.TCPConn), l.Addr().String()
}
