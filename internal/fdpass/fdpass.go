// SPDX-License-Identifier: EPL-2.0

// Package fdpass passes open file descriptors over a UNIX-domain stream, together
// with the bytes of a protocol.
//
// A descriptor is sent as SCM_RIGHTS control data of one byte of the stream. A
// process that reads this byte without room for control data loses the descriptor.
// So everything must be read with [Conn.Read] or [Socket.Receive], which keep the
// descriptor until Take. They keep at most one, and close every other one.
//
// Descriptors are plain ints, close-on-exec, and unknown to the runtime poller.
// Each has one owner: the stream until Take, then the caller of Take.
//
// There are two kinds of streams. A [Socket] is for an event loop: its methods never
// wait. A [Conn] is for a goroutine: its methods wait. [Socket.SendBatch] sends many
// descriptors at once.
package fdpass

import (
	"encoding/binary"
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// A Conn is a UNIX-domain stream that descriptors can be passed over. Its
// methods may be called by one goroutine at a time; Close and the deadlines of
// the UnixConn by any.
type Conn struct {
	*net.UnixConn
	inbox
	oob    []byte
	rights []byte // control data to send a descriptor with
}

// New returns a Conn that reads and writes c, and owns it.
func New(c *net.UnixConn) *Conn {
	return &Conn{UnixConn: c, inbox: inbox{fd: None}, oob: make([]byte, controlSize)}
}

// Read reads bytes, and keeps a descriptor that comes with them. With a
// descriptor, the read ends with its byte.
func (c *Conn) Read(p []byte) (int, error) {
	n, oobn, flags, _, err := c.ReadMsgUnix(p, c.oob)
	c.store(c.oob[:max(oobn, 0)], flags)
	if errors.Is(err, io.EOF) {
		err = io.EOF // as io.Reader requires
	}
	return max(n, 0), err
}

// Send sends a copy of the descriptor, with a NUL byte. The caller still owns
// fd, and may close it at once.
func (c *Conn) Send(fd int) error { return c.SendWith(nul, fd) }

var nul = []byte{0}

// SendWith sends a copy of the descriptor with these bytes, as Send does.
func (c *Conn) SendWith(p []byte, fd int) error {
	if c.rights == nil {
		c.rights = unix.UnixRights(fd)
	}
	binary.NativeEndian.PutUint32(c.rights[unix.CmsgLen(0):], uint32(fd))
	_, _, err := c.WriteMsgUnix(p, c.rights, nil)
	return err
}

// FD returns the descriptor of the connection itself. It stays the property of
// the connection, and is valid until Close.
func (c *Conn) FD() (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return None, err
	}
	err = raw.Control(func(f uintptr) { fd = int(f) })
	return fd, err
}

// Close closes the connection and a descriptor that was not taken.
func (c *Conn) Close() error {
	c.discard()
	return c.UnixConn.Close()
}
