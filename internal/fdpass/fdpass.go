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
	"os"

	"golang.org/x/sys/unix"
)

// Errors of Take.
var (
	ErrNone    = errors.New("no file descriptor was sent")
	ErrCompany = errors.New("more than one file descriptor was sent")
)

// A Conn is a UNIX-domain stream that descriptors can be passed over. Its
// methods may be called by one goroutine at a time; Close and the deadlines of
// the UnixConn by any.
type Conn struct {
	*net.UnixConn
	fd      int // the descriptor that arrived, or none
	company bool
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
	if flags&unix.MSG_CTRUNC != 0 {
		c.company = true
	}
	if oobn > 0 {
		c.keep(c.oob[:oobn])
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF // as of any other Reader
	}
	return n, err
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
				c.company = true
			}
		}
	}
}

// Take gives away the descriptor that arrived. If there was none, or more than
// one since the last Take, the error is ErrNone or ErrCompany, and none is
// left.
func (c *Conn) Take() (int, error) {
	fd, company := c.fd, c.company
	c.fd, c.company = none, false
	switch {
	case company:
		closeIfAny(fd)
		return none, ErrCompany
	case fd == none:
		return none, ErrNone
	}
	return fd, nil
}

// Send sends a copy of the descriptor, with a NUL byte. The caller still owns
// fd, and may close it at once.
func (c *Conn) Send(fd int) error {
	_, _, err := c.WriteMsgUnix([]byte{0}, unix.UnixRights(fd), nil)
	return err
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

// Pair returns the two ends of a new connection.
func Pair() (a, b *Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	var conns [2]*Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, connErr := net.FileConn(f)
		f.Close()
		if err = errors.Join(err, connErr); connErr == nil {
			conns[i] = New(c.(*net.UnixConn))
		}
	}
	return conns[0], conns[1], err
}
