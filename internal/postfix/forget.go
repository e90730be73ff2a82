// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Forget makes master(8) forget that the server has failed. After that it does not
// start the server for a minute, whatever its entry says by then, unless it reads a
// master.cf without the entry, and one with it. The file is without it for a moment,
// and then as it was, byte for byte: also when this is interrupted, as Restore finds
// the whole file beside it.
func (s *System) Forget() error {
	whole, err := os.ReadFile(s.masterCF())
	if err != nil {
		return err
	}
	if err := s.replace(s.wholePath(), whole); err != nil {
		return err
	}
	if err := s.write(s.withoutEntry(whole)); err != nil {
		return err
	}
	if err = s.Reload(); err == nil {
		s.waitUntilGone()
	}
	if _, restored := s.Restore(); restored != nil {
		return errors.Join(err, restored)
	}
	return errors.Join(err, s.Reload())
}

// goneLimit is how long master(8) may take to read its file.
const goneLimit = 10 * time.Second

// waitUntilGone waits until nobody listens for the clients of the connection cache: "postfix
// reload" does not wait until master(8) has read its file, and it must have read the one
// without the entry.
func (s *System) waitUntilGone() {
	socket, err := s.Socket()
	if err != nil {
		return
	}
	for end := time.Now().Add(goneLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
			return
		}
		if err == nil {
			conn.Close()
		}
	}
}

// Restore puts master.cf back, if Forget was interrupted, and tells whether it was.
// What somebody has written since is left alone.
func (s *System) Restore() (interrupted bool, err error) {
	whole, err := os.ReadFile(s.wholePath())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	now, err := os.ReadFile(s.masterCF())
	if err != nil {
		return true, err
	}
	switch _, lacks := s.findEntry(now); {
	case bytes.Equal(now, s.withoutEntry(whole)):
		if err := s.write(whole); err != nil {
			return true, err
		}
	case lacks != nil:
		return true, fmt.Errorf("%w, and the file was changed since it was taken out for a moment: put it back from %s, and remove that", lacks, s.wholePath())
	}
	return true, os.Remove(s.wholePath())
}

// Interrupted tells whether there is something for Restore to do.
func (s *System) Interrupted() bool {
	_, err := os.Stat(s.wholePath())
	return err == nil
}

// wholePath is the file that keeps master.cf while it is without the entry.
func (s *System) wholePath() string { return filepath.Join(s.Directory, "master.cf.scache-whole") }

// withoutEntry returns master.cf without the entry: its lines, but for comments
// between them.
func (s *System) withoutEntry(text []byte) []byte {
	var out []byte
	inside := false
	for line := range bytes.Lines(text) {
		words := cutWords(line, 0)
		comment := len(words) == 0 || words[0].text[0] == '#'
		if !comment && line[0] != ' ' && line[0] != '\t' {
			inside = len(words) > 1 && words[0].text == s.Service && words[1].text == "unix"
		}
		if comment || !inside {
			out = append(out, line...)
		}
	}
	return out
}
