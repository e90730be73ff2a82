// SPDX-License-Identifier: EPL-2.0

// Tests with unusual, but valid files of Postfix and surroundings.

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scache/internal/postfix"
)

// entriesAsWritten are entries that master(8) accepts. PROGRAM is the command.
var entriesAsWritten = map[string]string{
	"comments between": "scache unix - - y\n# comment\n  - 1\n\n  # indented\n PROGRAM\n",
	"braces": "scache unix - - y 0 01 PROGRAM -v\n" +
		"  -o { max_idle\n  = 50s } -o {max_use=${x?{5}:{6}}}\n",
	"other values": "scache unix y n n 100? 1 PROGRAM -i 50 -m 7 -vv -omax_idle=50s\n" +
		"  -o\n\tsyslog_name=a=b\n",
	"as root":         "scache unix - n y 1 1 PROGRAM\n",
	"path":            "scache unix - - y - 1 ./PROGRAM\n",
	"path from above": "scache unix - - y - 1 /..//libexec/PROGRAM\n",
	"CRLF":            "scache\tunix\t-\t-\ty\t-\t1\tPROGRAM\r\n\t-o max_idle=50s\r\n",
	"no newline":      "scache fifo n - y - 1 qmgr\nscache unix - - y - 1 PROGRAM",
}

// TestEnable_entriesAsWritten enables this server in a running Postfix, and switches back.
func TestEnable_entriesAsWritten(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	others := strings.ReplaceAll(s.masterCF(), oldEntry, "")
	for name, entry := range entriesAsWritten {
		t.Run(name, func(t *testing.T) {
			in := *s
			in.t = t
			before := others + strings.Replace(entry, "PROGRAM", "scache", 1)
			in.write("master.cf", before)
			in.switchOverAndBack(before)
		})
	}
}

// switchOverAndBack enables the server in a running Postfix, asks it, restarts it, and
// disables it.
func (s *fixture) switchOverAndBack(before string, options ...string) {
	s.t.Helper()
	c := append([]string{"-c", s.etc}, options...)
	out, errOut, ok := ctl(s.t, append(c, "enable")...)
	if !ok || errOut != "" {
		s.t.Fatalf("enable: %s%s", out, errOut)
	}
	if got := s.masterCF(); !strings.Contains(got, postfix.OurName) {
		s.t.Errorf("master.cf: %q", got)
	}
	want(s.t, must(s.t, append(c, "status")...), "scache test")
	if out, errOut, ok := ctl(s.t, append(c, "doctor")...); !ok {
		s.t.Errorf("doctor: %s%s", out, errOut)
	}
	want(s.t, must(s.t, append(c, "restart")...), "restarted")
	must(s.t, append(c, "disable")...)
	if got := s.masterCF(); got != before {
		s.t.Errorf("got %q, want %q", got, before)
	}
	wantError(s.t, append(c, "status"), "stock scache")
}

// TestEnable_longDirectory has a path of the socket that is too long for an address: master(8)
// and its clients have a relative one.
func TestEnable_longDirectory(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	queue := filepath.Join(s.Dir, strings.Repeat("q", 100))
	if err := os.Rename(filepath.Join(s.Dir, "queue"), queue); err != nil {
		t.Fatal(err)
	}
	// The log has no socket in the queue directory.
	s.configure(map[string]string{"queue_directory": queue, "maillog_file": ""})
	before := s.masterCF()
	s.start()
	s.switchOverAndBack(before)
}

// TestEnable_serviceDisabled is refused where master(8) ignores the entry.
func TestEnable_serviceDisabled(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for value, disabled := range map[string]bool{
		"scache.unix": true, "fifo, SCACHE/unix": true, "unix": true,
		"inet": false, "!scache/unix, unix": false, "": false, "scache": false,
	} {
		s.configure(map[string]string{"master_service_disable": value})
		_, errOut, ok := ctl(t, "-c", s.etc, "enable", "--dry-run")
		if ok == disabled || disabled && !strings.Contains(errOut, "master_service_disable") {
			t.Errorf("%q: got %v, %s", value, ok, errOut)
		}
	}
}

// TestSwitcher_wait has a command of Postfix that does not end by itself.
func TestSwitcher_wait(t *testing.T) {
	t.Parallel()
	signal, send := context.WithCancel(t.Context())
	var errOut bytes.Buffer
	s := &switcher{signal: signal, errOut: &errOut, intervals: intervals{time.Millisecond, time.Hour}}
	long := func(ctx context.Context) error {
		select {
		case <-time.After(20 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.wait(long); err != nil {
		t.Errorf("got %v before a signal, want no limit", err)
	}
	want(t, errOut.String(), "Postfix has taken", "an interrupt ends this")

	// Nor is a command killed at once that begins after a signal, as in a rollback.
	send()
	if err := s.wait(long); err != nil {
		t.Errorf("got %v after a signal, want no error", err)
	}
	s = &switcher{signal: signal, errOut: &errOut, intervals: intervals{time.Hour, time.Millisecond}}
	forever := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := s.wait(forever); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
