// SPDX-License-Identifier: EPL-2.0

package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
)

// A blocking is a connection to a server whose calls wait in the kernel, as those of a
// program without a runtime of its own do. It is for a thread that does nothing else, and
// makes the system calls that the clients of Postfix make, one for one.
type blocking struct {
	*fdpass.Socket
	limit time.Duration // of one wait
}

// dialBlocking connects to the socket at this path. No call waits longer than the limit.
func dialBlocking(path string, limit time.Duration) (*blocking, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return &blocking{fdpass.NewSocket(fd), limit}, nil
}

// Read reads bytes, and keeps a descriptor that comes with them.
func (c *blocking) Read(p []byte) (int, error) {
	if err := c.wait(unix.POLLIN); err != nil {
		return 0, err
	}
	return c.Receive(p)
}

// Write writes all of p.
func (c *blocking) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		if err := c.wait(unix.POLLOUT); err != nil {
			return sent, err
		}
		n, err := unix.Write(c.FD(), p[sent:])
		if err != nil {
			return sent, os.NewSyscallError("write", err)
		}
		sent += n
	}
	return len(p), nil
}

// Send sends a copy of the descriptor, with a NUL byte.
func (c *blocking) Send(fd int) error {
	return os.NewSyscallError("sendmsg", unix.Sendmsg(c.FD(), []byte{0}, unix.UnixRights(fd), nil, 0))
}

func (c *blocking) wait(events int16) error {
	fds := []unix.PollFd{{Fd: int32(c.FD()), Events: events}}
	for {
		n, err := unix.Poll(fds, int(c.limit.Milliseconds()))
		switch {
		case err == unix.EINTR: // a signal of the runtime
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n == 0:
			return os.ErrDeadlineExceeded
		default:
			return nil
		}
	}
}
