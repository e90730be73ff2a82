// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"scache/internal/mailconf"
)

// ErrNoEntry is the error for a service that master.cf does not have.
var ErrNoEntry = errors.New("there is no entry of this service")

// An Entry is the entry of a service in master.cf. Its columns are unchanged: "-" stands for
// the default.
type Entry struct {
	Name, Type                   string
	Private, Unprivileged        string
	Chroot, Wakeup, ProcessLimit string

	Command   string
	Arguments []string
	Line      int // of the file
}

// Entry returns the entry of the connection cache.
func (s *System) Entry() (Entry, error) {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return Entry{}, err
	}
	found, err := s.findEntry(text)
	if err == nil && found.err != nil {
		err = s.atLine(found.line, found.err)
	}
	if err != nil {
		return Entry{}, err
	}
	return newEntry(found), nil
}

// Entries returns all valid entries of master.cf, and the errors in the others.
func (s *System) Entries() (all []Entry, err error) {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return nil, err
	}
	for _, e := range entries(text) {
		switch {
		case len(e.words) < columns:
			err = errors.Join(err, s.atLine(e.line, errFewColumns))
		case e.err != nil:
			err = errors.Join(err, s.atLine(e.line, e.err))
		default:
			all = append(all, newEntry(e))
		}
	}
	return all, err
}

// Duplicates returns the lines of the entries of the connection cache, if there are several.
// The last one counts.
func (s *System) Duplicates() (lines []int) {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return nil
	}
	for _, e := range s.served(entries(text)) {
		lines = append(lines, e.line)
	}
	if len(lines) < 2 {
		return nil
	}
	return lines
}

var errFewColumns = errors.New("the entry lacks columns")

func (s *System) atLine(line int, err error) error {
	return fmt.Errorf("%s, line %d: %w", s.masterCF(), line, err)
}

func newEntry(e masterEntry) Entry {
	w := e.words
	entry := Entry{Name: w[0].text, Type: w[1].text, Private: w[2].text, Unprivileged: w[3].text,
		Chroot: w[4].text, Wakeup: w[5].text, ProcessLimit: w[6].text, Command: w[7].text, Line: e.line}
	for _, argument := range w[columns:] {
		entry.Arguments = append(entry.Arguments, argument.text)
	}
	return entry
}

func (s *System) masterCF() string { return filepath.Join(s.Directory, "master.cf") }

// served returns the entries of the connection cache: the entries with a private socket or, if
// there are none, the entries with a public one.
func (s *System) served(all []masterEntry) []masterEntry {
	var private, public []masterEntry
	for _, e := range all {
		switch {
		case !e.is(s.Service):
		case len(e.words) > 2 && e.words[2].text == "n":
			public = append(public, e)
		default:
			private = append(private, e)
		}
	}
	if private == nil {
		return public
	}
	return private
}

// findEntry returns the entry of the connection cache.
func (s *System) findEntry(text []byte) (masterEntry, error) {
	all := entries(text)
	found := s.served(all)
	if len(found) == 0 {
		return masterEntry{}, s.noEntry(all)
	}
	last := found[len(found)-1]
	if len(last.words) < columns {
		return last, s.atLine(last.line, fmt.Errorf("%w: %s unix", errFewColumns, s.Service))
	}
	return last, nil
}

func (s *System) noEntry(all []masterEntry) error {
	for _, e := range all {
		if len(e.words) > 1 && e.words[0].text == s.Service {
			return s.atLine(e.line, fmt.Errorf("%w: %s unix; the type column of this line is %s",
				ErrNoEntry, s.Service, e.words[1].text))
		}
	}
	return fmt.Errorf("%s: %w: %s unix", s.masterCF(), ErrNoEntry, s.Service)
}

// SetCommand replaces the command of the entry, and changes nothing else in the
// file.
func (s *System) SetCommand(command string) error {
	text, err := s.WithCommand(command)
	if err != nil {
		return err
	}
	return s.write(text)
}

// WithCommand returns master.cf with this command in the entry.
func (s *System) WithCommand(command string) ([]byte, error) {
	text, err := os.ReadFile(s.masterCF())
	if err != nil {
		return nil, err
	}
	e, err := s.findEntry(text)
	if err != nil {
		return nil, err
	}
	return withCommand(text, e, command), nil
}

func withCommand(text []byte, e masterEntry, command string) []byte {
	w := e.words[columns-1]
	return bytes.Join([][]byte{text[:w.start], []byte(command), text[w.end:]}, nil)
}

// valueOptions are the options of Postfix daemons that have a value.
const valueOptions = "imnorst"

// Options returns the settings "name=value" that the entry makes with -o. As in postconf(1),
// the options end before the first argument that is not an option.
func (e Entry) Options() (settings []string) {
	for i := 0; i < len(e.Arguments); i++ {
		flags := e.Arguments[i]
		if len(flags) < 2 || flags[0] != '-' || flags == "--" {
			break
		}
		at := strings.IndexAny(flags[1:], valueOptions) + 1
		if at == 0 {
			continue
		}
		value := flags[at+1:]
		if value == "" && i+1 < len(e.Arguments) {
			i++
			value = e.Arguments[i]
		}
		if flags[at] == 'o' {
			settings = append(settings, strings.TrimSpace(value))
		}
	}
	return settings
}

// Columns are the columns of an entry with their defaults.
type Columns struct {
	Private, Unprivileged, Chroot bool
	Wakeup                        int // seconds
	ProcessLimit                  int
}

// Columns returns the columns of an entry as master(8) reads them. An error names the column.
func (s *System) Columns(e Entry) (c Columns, err error) {
	level, _ := s.Config.String("compatibility_level")
	old := strings.HasPrefix(cmp.Or(level, "0"), "0")
	yesNo := func(name, value string, unset bool) bool {
		if value != "y" && value != "n" && value != "-" {
			err = errors.Join(err, s.badColumn(e, name, value, "y, n or -"))
		}
		return value == "y" || value == "-" && unset
	}
	c.Private = yesNo("private", e.Private, true)
	c.Unprivileged = yesNo("unpriv", e.Unprivileged, true)
	c.Chroot = yesNo("chroot", e.Chroot, old)
	if e.Wakeup != "-" {
		if c.Wakeup = digits(e.Wakeup); c.Wakeup < 0 {
			err = errors.Join(err, s.badColumn(e, "wakeup", e.Wakeup, "seconds or -"))
		}
	}
	if e.ProcessLimit != "-" {
		if c.ProcessLimit = digits(e.ProcessLimit); c.ProcessLimit < 0 {
			err = errors.Join(err, s.badColumn(e, "maxproc", e.ProcessLimit, "a number or -"))
		}
		return c, err
	}
	limit, wrong := s.Config.Int("default_process_limit")
	c.ProcessLimit = limit
	return c, errors.Join(err, wrong)
}

// digits returns the number that a text begins with, as master(8) reads it, or -1.
func digits(text string) int {
	n, err := strconv.ParseUint(text[:len(text)-len(strings.TrimLeft(text, "0123456789"))], 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

func (s *System) badColumn(e Entry, column, value, want string) error {
	return s.atLine(e.Line, fmt.Errorf("the %s column of %s %s is %q: want %s",
		column, e.Name, e.Type, value, want))
}

// CheckEntry returns an error if this server cannot serve with the columns of its entry, or if
// master(8) cannot read the file.
func (s *System) CheckEntry(e Entry) error {
	all, err := s.Entries()
	for _, other := range all {
		_, wrong := s.Columns(other)
		err = errors.Join(err, wrong)
	}
	if err != nil {
		return err
	}
	c, err := s.Columns(e)
	if err != nil {
		return err
	}
	if err := s.checkDisabled(e); err != nil {
		return err
	}
	if !c.Private {
		err = errors.Join(err, s.badColumn(e, "private", e.Private,
			"y or -, as clients connect to private/"+s.Service))
	}
	switch {
	case c.ProcessLimit == 1:
	case e.ProcessLimit == "-":
		err = errors.Join(err, s.badColumn(e, "maxproc", e.ProcessLimit, fmt.Sprintf(
			"1, as this service requires a process limit of 1, and default_process_limit is %d",
			c.ProcessLimit)))
	default:
		err = errors.Join(err, s.badColumn(e, "maxproc", e.ProcessLimit,
			"1, as this service requires a process limit of 1"))
	}
	return err
}

// checkDisabled returns an error if master_service_disable in main.cf has master(8) ignore an
// entry. Up to Postfix 2.10, a service is named "name.type" there, and "name/type" since then.
func (s *System) checkDisabled(e Entry) error {
	value, err := s.Config.String("master_service_disable")
	if err != nil {
		return err
	}
	for _, pattern := range mailconf.Fields(value) {
		name, excluded := strings.CutPrefix(pattern, "!")
		switch strings.ToLower(name) {
		case e.Type, strings.ToLower(e.Name) + "/" + e.Type, strings.ToLower(e.Name) + "." + e.Type:
			if excluded {
				return nil
			}
			return s.atLine(e.Line, fmt.Errorf("master(8) ignores %s %s, as master_service_disable is %q",
				e.Name, e.Type, value))
		}
	}
	return nil
}

// DaemonArguments returns the arguments that master(8) gives to the server of this entry,
// except the number of sockets. A column that master(8) would refuse is taken as its default.
func (s *System) DaemonArguments(e Entry) []string {
	c, _ := s.Columns(e)
	args := []string{"-n", e.Name, "-t", e.Type}
	if c.ProcessLimit == 1 {
		args = append(args, "-l")
	}
	if c.Unprivileged {
		args = append(args, "-u")
	}
	if c.Chroot {
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
	server, err := Open(s.Directory) // s keeps its configuration without the options
	if err != nil {
		return nil, err
	}
	server.Config.SetReadOnly("service_name", s.Service)
	for _, option := range e.Options() {
		if err := server.Config.Override(option); err != nil {
			return nil, s.atLine(e.Line, err)
		}
	}
	return server.Config, nil
}
