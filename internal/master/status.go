// SPDX-License-Identifier: EPL-2.0

package master

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// status is the channel by which a process and master know of each other.
type status struct {
	fd         int
	file       *os.File
	generation uint32
}

// The states of a process, as master counts them.
const (
	busy = iota
	available
)

// worked tells master that this process has served a client: such a one is
// started again at once if it dies, and others after a pause. A process that
// serves any number of clients is never busy for longer. Where the channel is
// full or closed, the message is lost; master does not depend on it.
func (s *status) worked() {
	for _, state := range []uint32{busy, available} {
		msg := binary.NativeEndian.AppendUint32(nil, uint32(os.Getpid()))
		msg = binary.NativeEndian.AppendUint32(msg, s.generation)
		msg = binary.NativeEndian.AppendUint32(msg, state)
		unix.Sendto(s.fd, msg, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	}
}

// wait returns when master has closed its end.
func (s *status) wait() {
	buf := make([]byte, 64)
	for {
		if _, err := s.file.Read(buf); err != nil {
			return
		}
	}
}
