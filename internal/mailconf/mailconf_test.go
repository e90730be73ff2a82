// SPDX-License-Identifier: EPL-2.0

// Survivors of "make mutants PKG=internal/mailconf" that are equal in behaviour: one more level
// of nesting, and a unit of time without a number, which is refused in any case.

package mailconf

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// parsed returns the configuration of a main.cf with this text.
func parsed(t *testing.T, text string) *Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := New("host.example")
	if err := c.ReadFile(dir); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := New("host.example")
	for _, p := range Parameters {
		var err error
		switch p.Type {
		case String, ReadOnly:
			_, err = c.String(p.Name)
		case Time:
			_, err = c.Time(p.Name)
		case Int:
			_, err = c.Int(p.Name)
		case Bool:
			_, err = c.Bool(p.Name)
		case Choice:
			_, err = c.Choice(p.Name)
		}
		if err != nil || c.Source(p.Name) != "default" {
			t.Errorf("%s: %v, from %s", p.Name, err, c.Source(p.Name))
		}
	}
	if name, _ := c.String("syslog_name"); name != "postfix" {
		t.Errorf("syslog_name is %q", name)
	}
}

func TestPrecedenceAndSource(t *testing.T) {
	t.Parallel()
	c := parsed(t,
		"max_idle = 1\nmax_idle = 2\nipc_timeout = 3\nconfig_directory = /elsewhere\nprocess_name = x\n")
	if err := c.Override(" max_idle = 4 "); err != nil {
		t.Fatal(err)
	}
	if err := c.Override("service_name = x"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		value  time.Duration
		source string
	}{
		"max_idle":       {4 * time.Second, "command line"},
		"ipc_timeout":    {3 * time.Second, "main.cf, line 3"},
		"daemon_timeout": {5 * time.Hour, "default"},
	} {
		got, err := c.Time(name)
		if got != want.value || err != nil || !strings.HasSuffix(c.Source(name), want.source) {
			t.Errorf("%s is %v, %v, from %s", name, got, err, c.Source(name))
		}
	}
	for name, want := range map[string]string{"process_name": "scache", "service_name": ""} {
		if got, _ := c.String(name); got != want {
			t.Errorf("read-only %s is %q", name, got)
		}
	}
	if got, _ := c.String("config_directory"); got == "/elsewhere" {
		t.Error("main.cf has set config_directory")
	}
}

func TestTypes(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{
		"5": 5 * time.Second, "5s": 5 * time.Second, "5m": 5 * time.Minute, "5h": 5 * time.Hour,
		"1d": 24 * time.Hour, "1w": 7 * 24 * time.Hour, "$five": 5 * time.Second,
		"2147483647": 2147483647 * time.Second,
		"":           0, "s": 0, "0": 0, "-1": 0, "+1": 0, "5x": 0, "5ss": 0, "1.5": 0, "5 s": 0,
		"2147483648": 0, "3551w": 0, "99999999999999999999": 0, "${": 0,
	} {
		c := parsed(t, "five=5\nmax_idle = "+value+"\n")
		got, err := c.Time("max_idle")
		if got != want && err == nil || (err == nil) != (want > 0) {
			t.Errorf("max_idle = %s: got %v, %v", value, got, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "max_idle") ||
			!strings.Contains(err.Error(), "line 2")) {
			t.Errorf("max_idle = %s: the error does not say where: %v", value, err)
		}
	}
	for value, want := range map[string]string{"yes": "yes", "NO": "no", "auto": "auto", "": "",
		"maybe": ""} {
		got, err := parsed(t,
			"connection_cache_announce_protocol="+value).Choice("connection_cache_announce_protocol")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", value, got, err)
		}
	}
}

func TestBool(t *testing.T) {
	t.Parallel()
	const name = "connection_cache_liveness_check"
	for value, want := range map[string]bool{"yes": true, "YES": true, "no": false, "No": false} {
		if got, err := parsed(t, name+" = "+value).Bool(name); got != want || err != nil {
			t.Errorf("%s: got %t, %v, want %t", value, got, err, want)
		}
	}
	for _, value := range []string{"", "auto", "true", "1"} {
		if got, err := parsed(t, name+" = "+value).Bool(name); err == nil {
			t.Errorf("%q: got %t, want an error", value, got)
		}
	}
}

func TestErrors_nameTheLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a=1\nb\n c\n":   `line 2: missing '=' after attribute name: "b c"`,
		"\n#\na b = c\n": "line 3: missing '=' after attribute name",
		"= x":            "line 1: missing attribute name",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := New("").ReadFile(dir)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	if err := New("").Override("x"); err == nil {
		t.Error("Override accepts a setting without =")
	}
	if err := New("").ReadFile(t.TempDir()); err == nil || !strings.Contains(err.Error(), "main.cf") {
		t.Errorf("no main.cf: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for e := range expressions {
		f.Add("mydestination = " + e + "\n")
	}
	f.Add("a = b\n  c\n# d\n\n e\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := New("host.example")
		if c.parse(strings.NewReader(text), "main.cf") != nil {
			return
		}
		for name := range c.settings {
			if value, err := c.String(name); err == nil && strings.Trim(value, space) != value {
				t.Errorf("%s is %q", name, value)
			}
		}
	})
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		" a = b\n":                                  "must not start with whitespace",
		"max_idle = 5\x00 0\n# c\n 0\n":             "line 1: text after a null byte is ignored",
		"max_idle = 4\nmax_idle = 5\n":              "line 2: overriding earlier entry: max_idle=4",
		"max_idle = 5\nmax_idle=5\n":                "",
		"max_idle = 4\nmax_idle = \nmax_idle = 5\n": "line 3: overriding earlier entry: max_idle=",
	} {
		c := parsed(t, text)
		warnings := strings.Join(c.Warnings(), "; ")
		if !strings.Contains(warnings, want) || want == "" && warnings != "" {
			t.Errorf("%q: got %q, want %q", text, warnings, want)
		}
		if value, err := c.Time("max_idle"); strings.Contains(text, "max_idle") &&
			value != 5*time.Second {
			t.Errorf("%q: max_idle is %v, %v", text, value, err)
		}
	}
}
