// SPDX-License-Identifier: EPL-2.0

package master

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// status is the status channel between a process and master(8).
type status struct {
	fd         int
	file       *os.File
	generation uint32
}

// The states of a process in messages to master(8).
const (
	busy = iota
	available
)

// worked tells master(8) that this process has served a client. If the process dies
// later, master starts the next one at once; otherwise it would wait for a minute. The
// process is busy only for a moment: it can serve any number of clients. If the
// channel is full or closed, the message is lost; master does not depend on it.
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
