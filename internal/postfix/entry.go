// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"scache/internal/mailconf"
)

// ErrNoEntry is the error for a service that master.cf does not have.
var ErrNoEntry = errors.New("there is no entry of this service")

// An Entry is that of a service of type unix in master.cf, with the columns as they
// are written there: "-" is for the default.
type Entry struct {
	Name, Type                   string
	Private, Unprivileged        string
	Chroot, Wakeup, ProcessLimit string

	Command   string
	Arguments []string
}

// A word is a part of an entry, and where it is in the file.
type word struct {
	text       string
	start, end int
}

// columns are those before the arguments.
const columns = 8

// Entry returns the entry of the connection cache.
func (s *System) Entry() (Entry, error) {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return Entry{}, err
	}
	words, err := s.findEntry(text)
	if err != nil {
		return Entry{}, err
	}
	return newEntry(words), nil
}

// Entries returns all entries of master.cf, of whatever service.
func (s *System) Entries() (all []Entry, err error) {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return nil, err
	}
	for _, words := range entries(text) {
		if len(words) >= columns {
			all = append(all, newEntry(words))
		}
	}
	return all, nil
}

func newEntry(words []word) Entry {
	e := Entry{Name: words[0].text, Type: words[1].text, Private: words[2].text, Unprivileged: words[3].text,
		Chroot: words[4].text, Wakeup: words[5].text, ProcessLimit: words[6].text, Command: words[7].text}
	for _, w := range words[columns:] {
		e.Arguments = append(e.Arguments, w.text)
	}
	return e
}

func (s *System) masterCF() string { return filepath.Join(s.Directory, "master.cf") }

// findEntry returns the words of the entry of the connection cache.
func (s *System) findEntry(text []byte) ([]word, error) {
	var found []word
	for _, words := range entries(text) {
		if len(words) < 2 || words[0].text != s.Service || words[1].text != "unix" {
			continue
		}
		if len(words) < columns {
			return nil, fmt.Errorf("%s: the entry %s unix lacks columns", s.masterCF(), s.Service)
		}
		found = words // the last one counts
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w: %s unix", s.masterCF(), ErrNoEntry, s.Service)
	}
	return found, nil
}

// SetCommand replaces the command of the entry in its place, and nothing else of
// the file.
func (s *System) SetCommand(command string) error {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return err
	}
	words, err := s.findEntry(text)
	if err != nil {
		return err
	}
	w := words[columns-1]
	return s.write(bytes.Join([][]byte{text[:w.start], []byte(command), text[w.end:]}, nil))
}

// write replaces master.cf.
func (s *System) write(text []byte) error { return s.replace(s.masterCF(), text) }

// entries returns the words of each entry of master.cf. A line that begins with white
// space continues the one before; empty lines and comments may stand between them.
func entries(text []byte) (all [][]word) {
	offset := 0
	for line := range bytes.Lines(text) {
		words := cutWords(line, offset)
		switch {
		case len(words) == 0 || words[0].text[0] == '#':
		case line[0] != ' ' && line[0] != '\t':
			all = append(all, words)
		case len(all) > 0:
			all[len(all)-1] = append(all[len(all)-1], words...)
		}
		offset += len(line)
	}
	for i, words := range all {
		all[i] = joinBraces(words)
	}
	return all
}

func cutWords(line []byte, offset int) (words []word) {
	for i := 0; i < len(line); {
		rest := bytes.TrimLeft(line[i:], " \t\r\n")
		i = len(line) - len(rest)
		n := bytes.IndexAny(rest, " \t\r\n")
		if n < 0 {
			n = len(rest)
		}
		if n > 0 {
			words = append(words, word{string(rest[:n]), offset + i, offset + i + n})
		}
		i += n
	}
	return words
}

// joinBraces makes one word of an argument in braces, without those.
func joinBraces(words []word) (joined []word) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		if i >= columns && w.text[0] == '{' {
			for depth(w.text) > 0 && i+1 < len(words) {
				i++
				w = word{w.text + " " + words[i].text, w.start, words[i].end}
			}
			if strings.HasSuffix(w.text, "}") {
				w.text = strings.TrimSpace(w.text[1 : len(w.text)-1])
			}
		}
		joined = append(joined, w)
	}
	return joined
}

func depth(text string) int { return strings.Count(text, "{") - strings.Count(text, "}") }

// Options returns the settings "name=value" that the entry makes with -o.
func (e Entry) Options() (settings []string) {
	for i := 0; i < len(e.Arguments); i++ {
		setting, found := strings.CutPrefix(e.Arguments[i], "-o")
		if found && setting == "" && i+1 < len(e.Arguments) {
			i++
			setting = e.Arguments[i]
		}
		if found {
			settings = append(settings, strings.TrimSpace(setting))
		}
	}
	return settings
}

// DaemonArguments returns the arguments that master(8) gives to the server of this
// entry, but for those that tell how many sockets there are.
func (s *System) DaemonArguments(e Entry) []string {
	args := []string{"-n", e.Name, "-t", e.Type}
	if e.ProcessLimit == "1" {
		args = append(args, "-l")
	}
	if e.Unprivileged != "n" {
		args = append(args, "-u")
	}
	level, _ := s.Config.String("compatibility_level")
	if e.Chroot == "y" || e.Chroot == "-" && strings.HasPrefix(cmp.Or(level, "0"), "0") {
		args = append(args, "-c")
	}
	return append(args, e.Arguments...)
}

// ServerConfig returns main.cf with the -o options of the entry.
func (s *System) ServerConfig() (*mailconf.Config, error) {
	e, err := s.Entry()
	if err != nil {
		return nil, err
	}
	server, err := Open(s.Directory) // as s goes on without the options
	if err != nil {
		return nil, err
	}
	server.Config.SetReadOnly("service_name", s.Service)
	for _, option := range e.Options() {
		if err := server.Config.Override(option); err != nil {
			return nil, fmt.Errorf("%s: %w", s.masterCF(), err)
		}
	}
	return server.Config, nil
}
