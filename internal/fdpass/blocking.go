// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Blocking is like a Conn, but its calls wait in the kernel, as those of a
// program without a runtime of its own: it is for a thread that does nothing
// else. It makes the system calls that the clients of Postfix make, one for one.
type Blocking struct {
	Socket
	limit time.Duration // of one wait
}

// DialBlocking connects to the socket at this path. No call waits longer than
// the time limit.
func DialBlocking(path string, limit time.Duration) (*Blocking, error) {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(sock, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(sock)
		return nil, os.NewSyscallError("connect", err)
	}
	return &Blocking{Socket: *NewSocket(sock), limit: limit}, nil
}

// Read reads as Conn.Read does.
func (c *Blocking) Read(p []byte) (int, error) {
	if err := c.wait(unix.POLLIN); err != nil {
		return 0, err
	}
	oob := make([]byte, controlSize)
	n, oobn, flags, _, err := unix.Recvmsg(c.fd, p, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("recvmsg", err)
	}
	c.keep(oob[:oobn], flags)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write writes all of p.
func (c *Blocking) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		if err := c.wait(unix.POLLOUT); err != nil {
			return sent, err
		}
		n, err := unix.Write(c.fd, p[sent:])
		if err != nil {
			return sent, os.NewSyscallError("write", err)
		}
		sent += n
	}
	return len(p), nil
}

// Send sends as Conn.Send does.
func (c *Blocking) Send(fd int) error {
	return os.NewSyscallError("sendmsg", unix.Sendmsg(c.fd, []byte{0}, unix.UnixRights(fd), nil, 0))
}

func (c *Blocking) wait(events int16) error {
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: events}}
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
