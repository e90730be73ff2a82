// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Two files may stand beside master.cf:
//
//	master.cf.scache-saved   the entry as it was before enable, until disable
//	master.cf.scache-backup  all of master.cf, while the file itself is incomplete: while
//	                         ClearThrottle has taken the entry out of it, or while it is
//	                         written in place
//
// Version 1.0.0 called the second one master.cf.scache-whole. It is still read.

// StockCommand is the command of the server that comes with Postfix.
const StockCommand = "scache"

// SavedPath is the file beside master.cf that has the entry as it was before enable.
func (s *System) SavedPath() string { return filepath.Join(s.Directory, "master.cf.scache-saved") }

// Save keeps a copy of the entry beside master.cf.
func (s *System) Save() error {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return err
	}
	e, err := s.findEntry(text)
	if err != nil {
		return err
	}
	entry := text[e.words[0].start:e.words[len(e.words)-1].end]
	return s.replace(s.SavedPath(), fmt.Appendf(nil, "%s\n", entry))
}

// HasSaved reports whether Save has kept an entry.
func (s *System) HasSaved() bool { return exists(s.SavedPath()) }

// SavedCommand returns the command of the entry that Save has kept, and the command of the
// stock server if there is none.
func (s *System) SavedCommand() (string, error) {
	text, err := os.ReadFile(s.SavedPath())
	if errors.Is(err, fs.ErrNotExist) {
		return StockCommand, nil
	}
	if err != nil {
		return "", err
	}
	if all := entries(text); len(all) == 1 && len(all[0].words) >= columns {
		return all[0].words[columns-1].text, nil
	}
	return StockCommand, nil
}

// DropSaved removes what Save has kept.
func (s *System) DropSaved() error { return remove(s.SavedPath()) }

// backupPath is the file that has the whole master.cf while that is incomplete.
func (s *System) backupPath() string {
	return filepath.Join(s.Directory, "master.cf.scache-backup")
}

// backups returns the names of the backup, the present one first.
func (s *System) backups() []string {
	return []string{s.backupPath(), filepath.Join(s.Directory, "master.cf.scache-whole")}
}

// Interrupted reports whether there is something for Restore to do.
func (s *System) Interrupted() bool {
	for _, path := range s.backups() {
		if exists(path) {
			return true
		}
	}
	return false
}

// Restore restores master.cf from the backup, if a change of the file was interrupted, and
// reports whether it was. It does not undo other changes that were made to the file since then.
func (s *System) Restore() (interrupted bool, err error) {
	for _, path := range s.backups() {
		backup, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = s.restoreFrom(path, backup)
		}
		if err != nil {
			return true, err
		}
		return true, remove(path)
	}
	return false, nil
}

func (s *System) restoreFrom(path string, backup []byte) error {
	now, err := os.ReadFile(s.masterCF())
	if err != nil {
		return err
	}
	switch _, missing := s.findEntry(now); {
	case bytes.Equal(now, backup):
		return nil
	case bytes.Equal(now, s.withoutEntry(backup)), s.isTorn(now, backup):
		// The backup stays until the file is complete, also if this is interrupted.
		return s.replaceOrOverwrite(backup)
	case missing != nil:
		return fmt.Errorf("%w, and the file was changed since it was taken out for a moment: "+
			"put it back from %s, and remove that", missing, path)
	}
	return nil
}

// isTorn reports whether overwrite was interrupted: the file has the beginning of the new text
// and the end of the old one.
func (s *System) isTorn(now, old []byte) bool {
	if tornBetween(now, old, s.withoutEntry(old)) {
		return true
	}
	before, err := s.findEntry(old)
	if err != nil {
		return false
	}
	after, err := s.findEntry(now)
	if err != nil {
		return false
	}
	// The new command may itself be torn. Then nothing else has changed.
	w, v := before.words[columns-1], after.words[columns-1]
	if len(now) == len(old) && w.start == v.start && bytes.Equal(now[:w.start], old[:w.start]) &&
		bytes.Equal(now[v.end:], old[v.end:]) {
		return true
	}
	return tornBetween(now, old, withCommand(old, before, v.text))
}

// tornBetween reports whether a file has the beginning of the updated text and the end of the
// old one, and is not the updated text.
func tornBetween(now, old, updated []byte) bool {
	if bytes.Equal(now, updated) {
		return false
	}
	k := 0
	for k < len(now) && k < len(updated) && now[k] == updated[k] {
		k++
	}
	return bytes.Equal(now[k:], old[min(k, len(old)):])
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// remove removes a file, if there is one.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
