// SPDX-License-Identifier: EPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scache/internal/postfix"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// A fixture is a private Postfix with the stock cache, and ours beside it.
type fixture struct {
	*postfixtest.Instance
	t    *testing.T
	etc  string
	sent int

	throttled bool // is as it should be
}

const oldEntry = "scache unix - - y - 1 scache " +
	"-o connection_cache_ttl_limit=1h -o { syslog_facility = mail }\n"

func newFixture(t *testing.T) *fixture {
	t.Helper()
	postfixtest.NeedPostfix(t)
	sink, err := postfixtest.StartSink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	i, err := postfixtest.NewInstance(postfixtest.Config{
		Master: oldEntry,
		Main: map[string]string{
			"relayhost":                           fmt.Sprintf("[127.0.0.1]:%d", sink.Port),
			"smtp_connection_cache_destinations":  "127.0.0.1",
			"smtp_connection_cache_time_limit":    "1h",
			"connection_cache_status_update_time": "1h",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	s := &fixture{Instance: i, t: t, etc: filepath.Join(i.Dir, "etc")}
	s.install(server)
	return s
}

// newRunningFixture starts it, too.
func newRunningFixture(t *testing.T) *fixture {
	t.Helper()
	s := newFixture(t)
	s.start()
	return s
}

// configure sets parameters in main.cf.
func (s *fixture) configure(settings map[string]string) {
	s.t.Helper()
	if err := s.Configure(settings); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fixture) start() {
	s.t.Helper()
	if err := s.Start(); err != nil {
		s.t.Fatal(err)
	}
}

// install puts a binary where make install would.
func (s *fixture) install(binary string) {
	s.t.Helper()
	data, err := os.ReadFile(binary)
	if err != nil {
		s.t.Fatal(err)
	}
	s.installText(string(data))
}

// installScript puts a script of the shell there.
func (s *fixture) installScript(script string) {
	s.t.Helper()
	s.installText("#!/bin/sh\n" + script + "\n")
}

func (s *fixture) installText(text string) {
	s.t.Helper()
	os.Remove(s.installed())
	if err := testenv.WriteProgram(s.installed(), text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fixture) installed() string { return filepath.Join(s.Dir, "libexec", postfix.OurName) }

// installForTrials installs a server that passes the trial, and does something else under
// master(8).
func (s *fixture) installForTrials(then string) {
	s.t.Helper()
	s.installScript(`case "$*" in
--check* | *trial*) exec ` + server + ` "$@" ;;
*) ` + then + ` ;;
esac`)
}

// send has mail delivered.
func (s *fixture) send() {
	s.t.Helper()
	const messages = 20
	s.sent += messages
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Send(ctx, messages, 2, "recipient@example.test"); err != nil {
		s.t.Fatal(err)
	}
	if err := s.WaitSent(ctx, s.sent); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fixture) masterCF() string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.etc, "master.cf"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// postconf returns the entry and its options as Postfix reads them.
func (s *fixture) postconf() string {
	s.t.Helper()
	var all string
	for _, option := range []string{"-M", "-P"} {
		out, err := exec.Command("postconf", "-c", s.etc, option).Output()
		if err != nil {
			s.t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, "scache") {
				all += strings.Join(strings.Fields(line), " ") + "\n"
			}
		}
	}
	return all
}

// logged counts the lines of the cache server with this text.
func (s *fixture) logged(text string) int { return len(s.Grep("postfix/scache[", text)) }

// wantUntouched wants a system as it was, and mail delivered.
func (s *fixture) wantUntouched(before string) {
	s.t.Helper()
	if got := s.masterCF(); got != before {
		s.t.Errorf("master.cf: %s\nwant %s", got, before)
	}
	for _, left := range []string{"master.cf.scache-saved", "master.cf.scache-backup"} {
		if _, err := os.Stat(filepath.Join(s.etc, left)); !os.IsNotExist(err) {
			s.t.Errorf("%s is left: %v", left, err)
		}
	}
	s.send()
	wantError(s.t, []string{"-c", s.etc, "status"}, "stock scache")
	if lines := s.Grep("throttling"); len(lines) > 0 && !s.throttled {
		s.t.Errorf("%q", lines)
	}
}

// throttle has master(8) start a server that fails, and wait for a minute then.
func (s *fixture) throttle() {
	s.t.Helper()
	testenv.Eventually(s.t, "master waits", func() bool {
		conn, err := net.Dial("unix", filepath.Join(s.Dir, "queue/private/scache"))
		if err == nil {
			conn.Close()
		}
		return len(s.Grep("bad command startup -- throttling")) > 0
	})
}

// edit replaces a text in a file of the configuration.
func (s *fixture) edit(name, from, to string) {
	s.t.Helper()
	path := filepath.Join(s.etc, name)
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), from) {
		s.t.Fatalf("%v, or no %q in %s", err, from, name)
	}
	s.write(name, strings.Replace(string(text), from, to, 1))
}

// write replaces a file of the configuration in one step: master(8) may be reading it, as
// postfix reload does not wait for it.
func (s *fixture) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.etc, name)
	err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path))
	if err != nil {
		s.t.Fatal(err)
	}
}

// read returns the text of a file of the configuration.
func (s *fixture) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.etc, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// appendTo adds a text to a file.
func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// startSleep starts a process that does nothing.
func startSleep(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := postfixtest.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}
