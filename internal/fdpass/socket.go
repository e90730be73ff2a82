// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrAgain is the error of a call that would have to wait: the socket is not ready, or the
// kernel is short of memory at the moment.
var ErrAgain = errors.New("the socket is not ready")

// Transient reports whether a system call may succeed if it is tried again: the kernel, this
// process or its user was short of something.
func Transient(err error) bool {
	if err == ErrAgain || err == ErrNoRoom {
		return true
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENOMEM, unix.ENOSPC, unix.ETOOMANYREFS:
		return true
	}
	return Shortage(err)
}

// Shortage reports whether an error says that no descriptor is left for this process or for
// the machine.
func Shortage(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }

// A Socket is a UNIX-domain stream for an event loop: a bare descriptor, whose
// calls never wait, and allocate nothing unless they fail. Its methods may be
// called by one goroutine at a time.
type Socket struct {
	inbox
	fd int
}

// NewSocket returns a Socket that owns the descriptor of a stream, which need
// not be in non-blocking mode.
func NewSocket(fd int) *Socket { return &Socket{inbox{fd: None}, fd} }

// FD returns the descriptor of the stream itself. It stays the property of the
// Socket.
func (s *Socket) FD() int { return s.fd }

// Receive reads once, and keeps a descriptor that comes with the bytes. The
// error is io.EOF at the end of the stream, or ErrAgain.
func (s *Socket) Receive(p []byte) (int, error) { return s.receive(p, controlSize) }

// ReceiveBytes is Receive, except that descriptors are left to the kernel: they never belong to
// this process, so it need not close them. Take then returns ErrLost.
func (s *Socket) ReceiveBytes(p []byte) (int, error) { return s.receive(p, 0) }

func (s *Socket) receive(p []byte, size int) (int, error) {
	var control control
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	msg := unix.Msghdr{Iov: &iov, Control: &control.bytes()[0]}
	msg.SetIovlen(1)
	msg.SetControllen(size)
	n, err := s.call(unix.SYS_RECVMSG, &msg, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case err != 0:
		return 0, failed("recvmsg", err)
	case n == 0:
		return 0, io.EOF
	case size == 0 && msg.Flags&unix.MSG_CTRUNC != 0:
		s.refusal = ErrLost
	case msg.Controllen > 0 || msg.Flags&unix.MSG_CTRUNC != 0:
		s.store(control.bytes()[:msg.Controllen], int(msg.Flags))
	}
	return n, nil
}

// Send writes as much of p as there is room for. If there is no room, the error is
// ErrAgain.
func (s *Socket) Send(p []byte) (int, error) {
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	msg := unix.Msghdr{Iov: &iov}
	msg.SetIovlen(1)
	n, err := s.call(unix.SYS_SENDMSG, &msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return n, failed("sendmsg", err)
}

// SendDescriptor sends a copy of the descriptor, with a NUL byte. The caller
// still owns fd, and may close it at once.
func (s *Socket) SendDescriptor(fd int) error { return s.SendWith(nul, fd) }

// SendWith sends a copy of the descriptor with these bytes, as SendDescriptor
// does. It does not return how many bytes were sent: they must be few enough to fit.
func (s *Socket) SendWith(p []byte, fd int) error {
	var control control
	rights := (*unix.Cmsghdr)(unsafe.Pointer(&control))
	rights.Level, rights.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	rights.SetLen(unix.CmsgLen(4))
	binary.NativeEndian.PutUint32(control.bytes()[unix.CmsgLen(0):], uint32(fd))
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	msg := unix.Msghdr{Iov: &iov, Control: &control.bytes()[0]}
	msg.SetIovlen(1)
	msg.SetControllen(unix.CmsgSpace(4))
	_, err := s.call(unix.SYS_SENDMSG, &msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return failed("sendmsg", err)
}

// control has room for controlSize bytes on any machine, aligned as the kernel
// wants them.
type control [4]uint64

func (c *control) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), unsafe.Sizeof(*c))
}

// call makes a system call that does not wait. It does not tell the scheduler, which
// would take longer than most such calls.
func (s *Socket) call(trap uintptr, msg *unix.Msghdr, flags uintptr) (int, unix.Errno) {
	for {
		n, _, err := unix.RawSyscall(trap, uintptr(s.fd), uintptr(unsafe.Pointer(msg)), flags)
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

// failed returns the error of a system call.
func failed(call string, err unix.Errno) error {
	switch err {
	case 0:
		return nil
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.ETOOMANYREFS:
		return ErrAgain
	}
	return os.NewSyscallError(call, err)
}

// Close closes the stream and a descriptor that was not taken. A second Close only
// returns an error.
func (s *Socket) Close() error {
	s.discard()
	fd := s.fd
	s.fd = None
	return os.NewSyscallError("close", unix.Close(fd))
}
