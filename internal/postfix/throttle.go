// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"bytes"
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
)

// ClearThrottle ends the pause of a minute that master(8) makes after a failed start. master
// ends it early only if the entry disappears and comes back. So Postfix is reloaded twice:
// without the entry, and with it. Afterwards the file has not changed, byte for byte. If this
// is interrupted, Restore finds the backup.
func (s *System) ClearThrottle(ctx context.Context) error {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return err
	}
	if err := s.replace(s.backupPath(), text); err != nil {
		return err
	}
	if err := s.replaceOrOverwrite(s.withoutEntry(text)); err != nil {
		return errors.Join(err, remove(s.backupPath()))
	}
	if err = s.Reload(ctx); err == nil {
		s.waitUntilClosed()
	}
	if _, restored := s.Restore(); restored != nil {
		return errors.Join(err, restored)
	}
	return errors.Join(err, s.Reload(ctx))
}

// closeTimeout is how long master(8) may take to read its file.
const closeTimeout = 10 * time.Second

// waitUntilClosed waits until no process listens at the socket of the connection cache:
// "postfix reload" does not wait until master(8) has read its file, and it must have read the
// file without the entry.
func (s *System) waitUntilClosed() {
	socket, err := s.Socket()
	if err != nil {
		return
	}
	end := time.Now().Add(closeTimeout)
	for ; time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		conn, err := fdpass.Dial(socket, closeTimeout)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
			return
		}
		if err == nil {
			conn.Close()
		}
	}
}

// withoutEntry returns master.cf without the entry: without its lines, but with the comments
// between them.
func (s *System) withoutEntry(text []byte) []byte {
	drop := map[int]bool{} // by the number of the first line
	for _, e := range entries(text) {
		if e.is(s.Service) {
			drop[e.line] = true
		}
	}
	var out []byte
	number, inside := 0, false
	for line := range bytes.Lines(text) {
		number++
		kind := kindOf(line)
		if kind == firstLine {
			inside = drop[number]
		}
		if kind == noLine || !inside {
			out = append(out, line...)
		}
	}
	return out
}
