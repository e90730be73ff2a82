// SPDX-License-Identifier: EPL-2.0

// Package fdpass passes open file descriptors over a UNIX-domain stream, one at
// a time, beside the bytes of a protocol.
//
// A descriptor travels as SCM_RIGHTS control data with one byte of the stream.
// Whoever reads that byte without room for control data loses the descriptor,
// so all reading goes through [Conn.Read], which keeps what arrives. At most
// one descriptor is kept at a time; every other one is closed on arrival.
//
// Descriptors are plain ints, close-on-exec, and unknown to the runtime poller.
// Each has one owner: the Conn until Take, its caller afterwards.
package fdpass

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Errors of Take. After each of them the stream is as good as before.
var (
	ErrNone    = errors.New("no file descriptor was sent")
	ErrCompany = errors.New("more than one file descriptor was sent")
	ErrLost    = errors.New("a file descriptor was sent, but this process has too many open files")
)

// IsRefusal tells whether an error is one of Take.
func IsRefusal(err error) bool {
	return err == ErrNone || err == ErrCompany || err == ErrLost
}

// A Conn is a UNIX-domain stream that descriptors can be passed over. Its
// methods may be called by one goroutine at a time; Close and the deadlines of
// the UnixConn by any.
type Conn struct {
	*net.UnixConn
	fd      int   // the descriptor that arrived, or none
	refusal error // why it cannot be taken, if not nil
	oob     []byte
}

const none = -1

// controlSize has room for two descriptors, as alignment has it, which is
// enough to tell one from several: the kernel closes those beyond and says so.
var controlSize = unix.CmsgSpace(4)

// New returns a Conn that reads and writes c, and owns it.
func New(c *net.UnixConn) *Conn {
	return &Conn{UnixConn: c, fd: none, oob: make([]byte, controlSize)}
}

// Read reads bytes, and keeps a descriptor that comes with them. With a
// descriptor, the read ends with its byte.
func (c *Conn) Read(p []byte) (int, error) {
	n, oobn, flags, _, err := c.ReadMsgUnix(p, c.oob)
	if oobn > 0 {
		c.keep(c.oob[:oobn])
	}
	if flags&unix.MSG_CTRUNC != 0 && c.refusal == nil {
		c.refusal = ErrLost
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF // as of any other Reader
	}
	return max(n, 0), err
}

// keep takes the descriptors out of control data.
func (c *Conn) keep(oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, msg := range msgs {
		fds, err := unix.ParseUnixRights(&msg)
		if err != nil {
			continue // another kind of control data carries no descriptors
		}
		for _, fd := range fds {
			if c.fd == none {
				c.fd = fd
			} else {
				unix.Close(fd)
				c.refusal = ErrCompany
			}
		}
	}
}

// Take gives away the descriptor that arrived since the last Take. With one of
// the errors above, none is left.
func (c *Conn) Take() (int, error) {
	fd, refusal := c.fd, c.refusal
	c.fd, c.refusal = none, nil
	switch {
	case refusal != nil:
		closeIfAny(fd)
		return none, refusal
	case fd == none:
		return none, ErrNone
	}
	return fd, nil
}

// Send sends a copy of the descriptor, with a NUL byte. The caller still owns
// fd, and may close it at once.
func (c *Conn) Send(fd int) error { return c.SendWith([]byte{0}, fd) }

// SendWith sends a copy of the descriptor with these bytes, as Send does.
func (c *Conn) SendWith(p []byte, fd int) error {
	_, _, err := c.WriteMsgUnix(p, unix.UnixRights(fd), nil)
	return err
}

// FD returns the descriptor of the connection itself. It stays the property of
// the connection, and is valid until Close.
func (c *Conn) FD() (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return none, err
	}
	err = raw.Control(func(f uintptr) { fd = int(f) })
	return fd, err
}

// Close closes the connection and a descriptor that nobody took.
func (c *Conn) Close() error {
	closeIfAny(c.fd)
	c.fd = none
	return c.UnixConn.Close()
}

func closeIfAny(fd int) {
	if fd != none {
		unix.Close(fd)
	}
}
