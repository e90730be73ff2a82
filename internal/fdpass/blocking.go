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
// else.
type Blocking struct {
	inbox
	sock int
}

// DialBlocking connects to the socket at this path. No call waits longer than
// the time limit.
func DialBlocking(path string, limit time.Duration) (*Blocking, error) {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	tv := unix.NsecToTimeval(limit.Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, option, &tv); err != nil {
			unix.Close(sock)
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Connect(sock, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(sock)
		return nil, os.NewSyscallError("connect", err)
	}
	return &Blocking{inbox: newInbox(), sock: sock}, nil
}

// Read reads as Conn.Read does.
func (c *Blocking) Read(p []byte) (int, error) {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(c.sock, p, c.oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("recvmsg", err)
		}
		c.keep(oobn, flags)
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
}

// Write writes all of p.
func (c *Blocking) Write(p []byte) (int, error) { return c.send(p, nil) }

// Send sends as Conn.Send does.
func (c *Blocking) Send(fd int) error {
	_, err := c.send([]byte{0}, unix.UnixRights(fd))
	return err
}

func (c *Blocking) send(p, oob []byte) (int, error) {
	for sent := 0; ; {
		n, err := unix.SendmsgN(c.sock, p[sent:], oob, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return sent, os.NewSyscallError("sendmsg", err)
		}
		if sent, oob = sent+n, nil; sent == len(p) {
			return sent, nil
		}
	}
}

// Close closes the connection and a descriptor that nobody took.
func (c *Blocking) Close() error {
	c.discard()
	return os.NewSyscallError("close", unix.Close(c.sock))
}
