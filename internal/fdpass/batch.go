// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// BatchSize is how many descriptors the kernel takes in one message.
const BatchSize = 253

// SendBatch sends copies of up to BatchSize descriptors in one message, with one
// byte, over a socket that nothing else is sent over.
func SendBatch(c *net.UnixConn, fds []int) error {
	_, _, err := c.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil)
	return err
}

// ReceiveBatch receives the descriptors of one message, which belong to the
// caller. Where this process cannot have as many open files, those at the end
// are missing.
func ReceiveBatch(c *net.UnixConn) ([]int, error) {
	oob := make([]byte, unix.CmsgSpace(4*BatchSize))
	n, oobn, _, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) == 0 {
		return nil, err
	}
	return unix.ParseUnixRights(&msgs[0])
}

// Pair returns the two ends of a new connection.
func Pair() (a, b *Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	first, err := FromFD(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	second, err := FromFD(fds[1])
	if err != nil {
		first.Close()
		return nil, nil, err
	}
	return New(first), New(second), nil
}

// FromFD returns the connection of a bare descriptor, which it closes in any
// case.
func FromFD(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, os.NewSyscallError("FileConn", unix.ENOTSUP)
	}
	return uc, nil
}
