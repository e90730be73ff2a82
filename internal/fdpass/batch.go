// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// BatchSize is how many descriptors the kernel takes in one message.
const BatchSize = 253

// SendBatch sends copies of up to BatchSize descriptors in one message, over a socket that
// carries only batches. The message has a byte for each descriptor. If the socket has no
// room, the error is ErrAgain.
func (s *Socket) SendBatch(fds []int) error {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	_, err := unix.SendmsgN(s.fd, make([]byte, len(fds)), unix.UnixRights(fds...), nil, flags)
	if err == unix.EAGAIN {
		return ErrAgain
	}
	return os.NewSyscallError("sendmsg", err)
}

// ErrNoRoom is the error of ReceiveBatch if the limit of open files leaves too little room.
var ErrNoRoom = errors.New("too many open files to receive the descriptors")

// ReceiveBatch receives the descriptors of one message, which belong to the caller, and the
// number of its bytes. It receives all of them or, with an error, none: then the message
// stays. The error is io.EOF at the end of the stream, ErrAgain, or ErrNoRoom.
//
// If the process has no room for all descriptors of a message, recvmsg(2) loses the rest. So
// the message is peeked at first, which copies the descriptors, and then discarded.
func (s *Socket) ReceiveBatch() (fds []int, n int, err error) {
	p, oob := make([]byte, BatchSize), make([]byte, unix.CmsgSpace(4*BatchSize)+otherControl)
	n, oobn, flags, err := s.recvmsg(p, oob, unix.MSG_PEEK|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, 0, err
	}
	eachDescriptor(oob[:oobn], func(fd int, passed bool) {
		if passed {
			trace(fd)
			fds = append(fds, fd)
		} else {
			unix.Close(fd)
		}
	})
	if flags&unix.MSG_CTRUNC != 0 {
		closeAll(fds)
		return nil, 0, ErrNoRoom
	}
	if _, err := s.discardMessage(n); err != nil {
		closeAll(fds)
		return nil, 0, err
	}
	return fds, n, nil
}

// otherControl has room for control messages that the other end may have switched on.
const otherControl = 256

// DiscardBatch closes the descriptors of the next message without receiving them, and returns
// the number of its bytes.
func (s *Socket) DiscardBatch() (n int, err error) { return s.discardMessage(BatchSize) }

// discardMessage removes the next message of up to size bytes from the stream, and returns the
// number of its bytes. The kernel closes its descriptors.
func (s *Socket) discardMessage(size int) (n int, err error) {
	n, _, _, err = s.recvmsg(make([]byte, size), nil, 0)
	return n, err
}

func (s *Socket) recvmsg(p, oob []byte, flags int) (n, oobn, flagsOut int, err error) {
	n, oobn, flagsOut, _, err = unix.Recvmsg(s.fd, p, oob, flags|unix.MSG_DONTWAIT)
	switch {
	case err == unix.EINTR:
		return s.recvmsg(p, oob, flags)
	case err == unix.EAGAIN:
		return 0, 0, 0, ErrAgain
	case err != nil:
		return 0, 0, 0, os.NewSyscallError("recvmsg", err)
	case n == 0:
		return 0, 0, 0, io.EOF
	}
	return n, oobn, flagsOut, nil
}

// Pair returns the descriptors of the two ends of a new connection.
func Pair() (fds [2]int, err error) {
	fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return [2]int{None, None}, os.NewSyscallError("socketpair", err)
	}
	trace(fds[0])
	trace(fds[1])
	return fds, nil
}

// SocketPair returns the two ends of a new connection.
func SocketPair() (a, b *Socket, err error) {
	fds, err := Pair()
	if err != nil {
		return nil, nil, err
	}
	return NewSocket(fds[0]), NewSocket(fds[1]), nil
}
