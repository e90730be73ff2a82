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

// SendBatch sends copies of up to BatchSize descriptors in one message, over a
// socket that nothing else is sent over. The message has a byte for each of them.
func (s *Socket) SendBatch(fds []int) error {
	_, err := unix.SendmsgN(s.fd, make([]byte, len(fds)), unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err == unix.EAGAIN {
		return ErrAgain
	}
	return os.NewSyscallError("sendmsg", err)
}

// ReceiveBatch receives the descriptors of one message, which belong to the
// caller, and the number of its bytes. Where this process cannot have as many
// open files, descriptors at the end are missing. The error is io.EOF at the end
// of the stream, or ErrAgain.
func (s *Socket) ReceiveBatch() (fds []int, n int, err error) {
	p, oob := make([]byte, BatchSize), make([]byte, unix.CmsgSpace(4*BatchSize))
	n, oobn, _, _, err := unix.Recvmsg(s.fd, p, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return nil, 0, ErrAgain
	case err != nil:
		return nil, 0, os.NewSyscallError("recvmsg", err)
	case n == 0:
		return nil, 0, io.EOF
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) == 0 {
		return nil, n, err
	}
	fds, err = unix.ParseUnixRights(&msgs[0])
	return fds, n, err
}

// NextBatch returns how many descriptors the next message has, or 0 where none is
// there. The message stays.
func (s *Socket) NextBatch() int {
	n, _, err := unix.Recvfrom(s.fd, make([]byte, BatchSize), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil {
		return 0
	}
	return n
}

// SocketPair returns the two ends of a new connection.
func SocketPair() (a, b *Socket, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return NewSocket(fds[0]), NewSocket(fds[1]), nil
}

// Pair is SocketPair for goroutines.
func Pair() (a, b *Conn, err error) {
	x, y, err := SocketPair()
	if err != nil {
		return nil, nil, err
	}
	first, err := FromFD(x.fd)
	if err != nil {
		y.Close()
		return nil, nil, err
	}
	second, err := FromFD(y.fd)
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
