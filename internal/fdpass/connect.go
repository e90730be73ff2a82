// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"os"

	"golang.org/x/sys/unix"
)

// Connect connects to the socket at this path. Where the accept queue of that is
// full, the error is ErrAgain.
func Connect(path string) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
	case nil:
		return NewSocket(fd), nil
	case unix.EAGAIN:
		unix.Close(fd)
		return nil, ErrAgain
	default:
		unix.Close(fd)
		return nil, &os.PathError{Op: "connect", Path: path, Err: err}
	}
}

// Accept takes a client out of the accept queue of a listening socket, which is
// in non-blocking mode. Where there is none, the error is ErrAgain.
func Accept(listener int) (fd int, err error) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EAGAIN:
			return none, ErrAgain
		}
		return none, os.NewSyscallError("accept", err)
	}
}

// A Peer is a process at the other end of a socket.
type Peer struct{ PID, UID int }

// PeerOf tells who is at the other end of a connection: the process that has
// called connect(2) or, seen from there, listen(2). Asked of a listening socket,
// it tells who has called listen.
func PeerOf(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	return Peer{PID: int(cred.Pid), UID: int(cred.Uid)}, nil
}
