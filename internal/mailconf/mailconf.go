// SPDX-License-Identifier: EPL-2.0

// Package mailconf reads main.cf, the configuration file of Postfix, as
// postconf(5) describes it.
//
// Values are kept as they are written, and expanded when they are read: a
// parameter may refer to one that is set in a later line. The table [Parameters]
// has the type, the default and the bound of each parameter that can be read.
package mailconf

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The Source of a setting that is in no file.
const (
	Default     = "default"
	CommandLine = "command line"

	program = "program"
)

// A Config is a set of settings.
type Config struct {
	settings map[string]setting
	warnings []string
	log      func(format string, args ...any) // see AskPostconf; nil if it was not called
}

type setting struct{ value, source string }

// New returns the built-in defaults. hostname is the default of myhostname.
func New(hostname string) *Config {
	c := &Config{settings: map[string]setting{}}
	for name, value := range others {
		c.set(name, value, Default)
	}
	for _, p := range Parameters {
		c.set(p.Name, p.Default, Default)
	}
	c.set("myhostname", hostname, Default)
	return c
}

// ReadFile adds the settings of main.cf in a directory, which becomes the
// parameter config_directory.
func (c *Config) ReadFile(dir string) error {
	path := filepath.Join(dir, "main.cf")
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.parse(f, path); err != nil {
		return err
	}
	c.SetReadOnly("config_directory", dir)
	return nil
}

// Override adds a setting "name = value" from the command line.
func (c *Config) Override(text string) error {
	name, value, err := splitSetting(strings.Trim(text, space))
	if err != nil {
		return err
	}
	c.set(name, value, CommandLine)
	return nil
}

// SetDefault sets the default of a parameter. It has no effect if a file or the command line
// sets the parameter.
func (c *Config) SetDefault(name, value string) {
	if source := c.Source(name); source == "" || source == Default {
		c.settings[name] = setting{value, Default}
	}
}

// SetReadOnly sets a parameter that a file or the command line must not set.
func (c *Config) SetReadOnly(name, value string) {
	c.settings[name] = setting{value, program}
}

func (c *Config) set(name, value, source string) {
	if source != Default && lookup(name).Type == ReadOnly {
		return
	}
	c.settings[name] = setting{value, source}
}

// Warnings returns warnings about lines of main.cf that are ignored or overridden.
func (c *Config) Warnings() []string { return c.warnings }

// Source returns where the value of a parameter is set: "default", "program",
// "command line", or a file and a line.
func (c *Config) Source(name string) string { return c.settings[name].source }

// Names returns the names of the parameters that a file or the command line sets, sorted.
func (c *Config) Names() (names []string) {
	for name, s := range c.settings {
		if s.source != Default && s.source != program {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// lookup returns the entry of the table. A parameter that is not in it is a String.
func lookup(name string) Parameter {
	for _, p := range Parameters {
		if p.Name == name {
			return p
		}
	}
	return Parameter{Name: name}
}

// String returns the value of a parameter, expanded. It is empty for one that
// is not set.
func (c *Config) String(name string) (string, error) {
	value, err := c.value(name, 0)
	if err != nil {
		value, err = c.ask(name, fmt.Errorf("parameter %s: %w (%s)", name, err, c.Source(name)))
	}
	return strings.Trim(value, space), err
}

func (c *Config) value(name string, depth int) (string, error) {
	return c.expand(c.settings[name].value, depth+1)
}

// Time returns the value of a Time parameter.
func (c *Config) Time(name string) (time.Duration, error) {
	seconds, err := c.number(name, parseSeconds, "digits and one of s, m, h, d, w")
	return time.Duration(seconds) * time.Second, err
}

// Int returns the value of an Int parameter.
func (c *Config) Int(name string) (int, error) {
	n, err := c.number(name, parseInt, "digits")
	return int(n), err
}

func (c *Config) number(name string, parse func(string) (int32, bool), want string) (int32, error) {
	value, err := c.String(name)
	if err != nil {
		return 0, err
	}
	n, ok := parse(value)
	if !ok {
		return 0, c.bad(name, value, want)
	}
	if least := lookup(name).Min; int(n) < least {
		return 0, c.bad(name, value, fmt.Sprintf("at least %d", least))
	}
	return n, nil
}

func parseInt(s string) (int32, bool) {
	n, err := strconv.ParseInt(s, 10, 32)
	return int32(n), err == nil && isDigits(s)
}

// ParseTime reads a time as Postfix does: in seconds, unless there is a unit.
func ParseTime(s string) (time.Duration, bool) {
	seconds, ok := parseSeconds(s)
	return time.Duration(seconds) * time.Second, ok
}

func parseSeconds(s string) (int32, bool) {
	unit := int64(1)
	if i := len(s) - 1; i > 0 {
		switch s[i] {
		case 's':
			s = s[:i]
		case 'm':
			s, unit = s[:i], 60
		case 'h':
			s, unit = s[:i], 60*60
		case 'd':
			s, unit = s[:i], 24*60*60
		case 'w':
			s, unit = s[:i], 7*24*60*60
		}
	}
	n, ok := parseInt(s)
	seconds := int64(n) * unit
	return int32(seconds), ok && seconds <= math.MaxInt32
}

// Bool returns the value of a Bool parameter.
func (c *Config) Bool(name string) (bool, error) {
	value, err := c.choice(name, "yes", "no")
	return value == "yes", err
}

// Choice returns the value of a Choice parameter: yes, no or auto.
func (c *Config) Choice(name string) (string, error) {
	return c.choice(name, "yes", "no", "auto")
}

func (c *Config) choice(name string, words ...string) (string, error) {
	value, err := c.String(name)
	if err != nil {
		return "", err
	}
	for _, word := range words {
		if strings.EqualFold(value, word) {
			return word, nil
		}
	}
	return "", c.bad(name, value, strings.Join(words, " or "))
}

// Check returns an error if the value of a parameter is not of its type, or not
// within its bounds.
func (c *Config) Check(name string) (err error) {
	switch lookup(name).Type {
	case Time:
		_, err = c.Time(name)
	case Int:
		_, err = c.Int(name)
	case Bool:
		_, err = c.Bool(name)
	case Choice:
		_, err = c.Choice(name)
	default:
		_, err = c.String(name)
	}
	return err
}

func (c *Config) bad(name, value, want string) error {
	return fmt.Errorf("bad value of parameter %s: %.100q (want %s; set by %s)",
		name, value, want, c.Source(name))
}

// A Reader reads any number of parameters and keeps the first error.
type Reader struct {
	Config *Config
	Err    error
}

// Reader returns a reader of this configuration.
func (c *Config) Reader() *Reader { return &Reader{Config: c} }

// String is Config.String.
func (r *Reader) String(name string) string { return read(r, r.Config.String, name) }

// Time is Config.Time.
func (r *Reader) Time(name string) time.Duration { return read(r, r.Config.Time, name) }

// Int is Config.Int.
func (r *Reader) Int(name string) int { return read(r, r.Config.Int, name) }

// Bool is Config.Bool.
func (r *Reader) Bool(name string) bool { return read(r, r.Config.Bool, name) }

// Choice is Config.Choice.
func (r *Reader) Choice(name string) string { return read(r, r.Config.Choice, name) }

func read[T any](r *Reader, get func(string) (T, error), name string) T {
	value, err := get(name)
	if r.Err == nil {
		r.Err = err
	}
	return value
}

// Fields splits a list of names as Postfix does: at commas and white space.
func Fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
}
