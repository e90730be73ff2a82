// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// NewStream returns a stream that is not connected yet.
func NewStream() (*Socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	trace(fd)
	return NewSocket(fd), nil
}

// Connect connects to the socket at this path. If its accept queue is full, the error is
// ErrAgain.
func (s *Socket) Connect(path string) error {
	switch err := unix.Connect(s.fd, &unix.SockaddrUnix{Name: path}); err {
	case nil:
		return nil
	case unix.EAGAIN:
		return ErrAgain
	default:
		return &os.PathError{Op: "connect", Path: path, Err: err}
	}
}

// Accept takes a client out of the accept queue of a listening socket, which must be in
// non-blocking mode. If the queue is empty, the error is ErrAgain.
func Accept(listener int) (fd int, err error) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			trace(fd)
			return fd, nil
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EAGAIN:
			return None, ErrAgain
		}
		return None, os.NewSyscallError("accept", err)
	}
}

// AdoptStream checks a descriptor that another process has passed as a client's: it must be a
// connected UNIX stream. It switches off options that make the kernel add control data, as the
// other process may have set them.
func AdoptStream(fd int) error {
	for _, option := range []struct{ name, want int }{
		{unix.SO_DOMAIN, unix.AF_UNIX}, {unix.SO_TYPE, unix.SOCK_STREAM}, {unix.SO_ACCEPTCONN, 0},
	} {
		got, err := twice(func() (int, error) {
			return unix.GetsockoptInt(fd, unix.SOL_SOCKET, option.name)
		})
		if err != nil || got != option.want {
			return errNoStream
		}
	}
	for _, option := range []int{unix.SO_PASSCRED, unix.SO_PASSSEC, unix.SO_PASSPIDFD} {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 0) // older kernels do not have all of them
	}
	return nil
}

// twice calls f, and once more if that fails for a reason that passes by itself.
func twice[T any](f func() (T, error)) (T, error) {
	v, err := f()
	if Transient(err) {
		v, err = f()
	}
	return v, err
}

var errNoStream = errors.New("a descriptor that was passed is not a connected UNIX stream")

// A Peer is a process at the other end of a socket.
type Peer struct{ PID, UID int }

// PeerOf returns the process at the other end of a connection: the one that has
// called connect(2) or, seen from there, listen(2). For a listening socket, it
// returns the process that has called listen(2).
func PeerOf(fd int) (Peer, error) {
	cred, err := twice(func() (*unix.Ucred, error) {
		return unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return Peer{}, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	return Peer{PID: int(cred.Pid), UID: int(cred.Uid)}, nil
}
