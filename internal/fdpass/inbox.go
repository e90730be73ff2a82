// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Errors of Take. After each of them the stream can still be used.
var (
	ErrNone    = errors.New("no file descriptor was sent")
	ErrCompany = errors.New("more than one file descriptor was sent")
	ErrLost    = errors.New("a file descriptor was sent, but this process has too many open files")
	ErrDenied  = errors.New("a file descriptor was sent and did not arrive: " +
		"mandatory access control (SELinux, AppArmor) seems to deny it")
)

// An inbox keeps the descriptor that arrives on a stream until it is taken.
type inbox struct {
	fd      int   // the descriptor that arrived, or None
	refusal error // why it cannot be taken, if not nil

	closeFD func(fd int) // closes descriptors that are not taken; nil is close(2)
}

// None stands for no descriptor.
const None = -1

// controlSize has room for two descriptors, to distinguish one from several. The
// kernel closes those that find no room, and sets MSG_CTRUNC.
var controlSize = unix.CmsgSpace(2 * 4)

// store takes the descriptors out of control data, as recvmsg left it.
func (b *inbox) store(oob []byte, flags int) {
	if flags&unix.MSG_CTRUNC != 0 && b.refusal == nil {
		b.refusal = ErrLost
		if len(oob) == 0 && mayOpen() {
			b.refusal = ErrDenied
		}
	}
	eachDescriptor(oob, func(fd int, passed bool) {
		if passed {
			b.storeOne(fd)
		} else {
			unix.Close(fd)
		}
	})
}

// mayOpen reports whether this process may have another open file.
func mayOpen() bool {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return !Shortage(err)
}

// eachDescriptor calls f with each descriptor in control data. passed is true if the sender has
// passed it, and false for a pidfd(2) of the sender. The kernel adds that if the socket has the
// option SO_PASSPIDFD.
func eachDescriptor(oob []byte, f func(fd int, passed bool)) {
	for len(oob) > 0 {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return
		}
		rights, pidfd := header.Type == unix.SCM_RIGHTS, header.Type == unix.SCM_PIDFD
		if header.Level == unix.SOL_SOCKET && (rights || pidfd) {
			for ; len(data) >= 4; data = data[4:] {
				f(int(int32(binary.NativeEndian.Uint32(data))), rights)
			}
		}
		oob = rest
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (b *inbox) storeOne(fd int) {
	trace(fd)
	if b.fd == None {
		b.fd = fd
	} else {
		b.drop(fd)
		b.refusal = ErrCompany
	}
}

// Take returns the descriptor that arrived since the last Take; it belongs to the
// caller. After an error, the stream keeps no descriptor.
func (b *inbox) Take() (int, error) {
	fd, refusal := b.fd, b.refusal
	switch {
	case refusal != nil:
		b.discard()
		b.refusal = nil
		return None, refusal
	case fd == None:
		return None, ErrNone
	}
	b.fd = None
	return fd, nil
}

// discard closes the descriptor, if there is one.
func (b *inbox) discard() {
	if b.fd != None {
		b.drop(b.fd)
		b.fd = None
	}
}

// CloseWith sets the function that closes descriptors that are not taken: close(2) may block.
func (b *inbox) CloseWith(f func(fd int)) { b.closeFD = f }

func (b *inbox) drop(fd int) {
	if b.closeFD != nil {
		b.closeFD(fd)
	} else {
		unix.Close(fd)
	}
}
