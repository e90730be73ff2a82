// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// StockCommand is the command of the server that comes with Postfix.
const StockCommand = "scache"

// SavedPath is the file beside master.cf that keeps the entry of before.
func (s *System) SavedPath() string { return filepath.Join(s.Directory, "master.cf.scache-saved") }

// Save keeps a copy of the entry beside master.cf.
func (s *System) Save() error {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return err
	}
	words, err := s.findEntry(text)
	if err != nil {
		return err
	}
	entry := text[words[0].start:words[len(words)-1].end]
	return s.replace(s.SavedPath(), fmt.Appendf(nil, "%s\n", entry))
}

// SavedCommand returns the command of the entry that Save has kept, and that of the
// stock server if there is none.
func (s *System) SavedCommand() (string, error) {
	text, err := os.ReadFile(s.SavedPath())
	if errors.Is(err, fs.ErrNotExist) {
		return StockCommand, nil
	}
	if err != nil {
		return "", err
	}
	if all := entries(text); len(all) == 1 && len(all[0]) >= columns {
		return all[0][columns-1].text, nil
	}
	return StockCommand, nil
}

// DropSaved removes what Save has kept.
func (s *System) DropSaved() error {
	if err := os.Remove(s.SavedPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
