// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/testenv"
)

func TestLog(t *testing.T) {
	t.Parallel()
	const ours = "Nov 05 10:00:00 host postfix/scache[12]: fatal: ours"
	long := strings.Repeat("x", 70_000)
	for name, test := range map[string]struct {
		text string
		want []string // what was said
	}{
		"ours": {ours + "\n", []string{"fatal: ours"}},
		"other instance": {"Nov 05 10:00:00 host postfix-out/scache[12]: fatal: x\n" +
			"Nov 05 host mypostfix/scache[12]: fatal: x\n", nil},
		"other daemon": {"Nov 05 10:00:00 host postfix/scache2[12]: fatal: x\n" +
			"Nov 05 host postfix/smtp[12]: fatal: x\n", nil},
		"quoted": {"Nov 05 10:00:00 host postfix/smtpd[1]: " +
			"warning: postfix/scache[12]: fatal: x\n", nil},
		"long line": {"Nov 05 host postfix/smtp[1]: " + long + "\n" + ours + "\n",
			[]string{"fatal: ours"}},
		"long line of ours": {ours + long + "\n" + ours + "\n",
			[]string{"fatal: ours" + long, "fatal: ours"}},
		"NUL": {"\x00\x00\x00\n\x00a\x00" + "\n" + ours + "\x00\x01\n" + ours,
			[]string{"fatal: ours\x00\x01", "fatal: ours"}},
		"not UTF-8": {"\xff\xfe\n" + ours + "\xff\r\n", []string{"fatal: ours\xff"}},
		"ISO time": {"2026-11-05T10:00:00.123456+01:00 host postfix/scache[12]: panic: x\n",
			[]string{"panic: x"}},
		"no host": {"postfix/scache[12]: fatal: x\n", []string{"fatal: x"}},
		"brackets": {"Nov 05 10:00:00 [2001:db8::1] postfix/scache[12]: fatal: x\n",
			[]string{"fatal: x"}},
		"more brackets": {"[x] a[[b]:  c[] postfix/scache[12]: fatal: x\n", []string{"fatal: x"}},
		"no number":     {"postfix/scache[]: fatal: x\npostfix/scache[x]: fatal: x\n", nil},
		"no tag":        {"[12]: fatal: x\n[12\n[\n", nil},
		"empty":         {"", nil},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "maillog")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := systemWith(t, "maillog_file = "+path+"\n", odd)
		from, lines, err := s.Log(false, s.Tags("scache")...)
		var got []string
		for _, l := range lines {
			got = append(got, l.Text)
		}
		if from != path || err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %.200q, %v, %v, want %.200q", name, got, from, err, test.want)
		}
	}
}

func TestLog_tail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "maillog")
	text := strings.Repeat("Nov 05 10:00:00 host postfix/scache[1]: fatal: old\n", logTail/40) +
		"Nov 05 10:00:00 host postfix/scache[1]: fatal: new\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := systemWith(t, "maillog_file = "+path+"\n", odd)
	_, lines, err := s.Log(false, s.Tags("scache")...)
	if n := len(lines); err != nil || n < 1000 || n > logTail/45 || lines[n-1].Text != "fatal: new" {
		t.Errorf("%d lines, %v", n, err)
	}
}

// TestLog_notAFile has a log that cannot be read back, and must not be waited for.
func TestLog_notAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := unix.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{
		"out": "/dev/stdout", "fd": "/proc/self/fd/1", "far": "near", "near": "/dev/fd/1", "pipe": "fifo",
		"loop": "loop",
	} {
		if err := os.Symlink(target, path(link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{
		"/dev/stdout", "/dev/null", path("fifo"), path("out"), path("fd"), path("far"), path("pipe"),
		path("loop"), dir, path("none"),
	} {
		s := systemWith(t, "maillog_file = "+file+"\n", odd)
		start := time.Now()
		from, lines, err := s.Log(true, s.Tags("scache")...)
		if from != file || err == nil || lines != nil || time.Since(start) > logTimeout {
			t.Errorf("%s: got %s, %q, %v after %v", file, from, lines, err, time.Since(start))
		}
	}
}

func TestLog_rotated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "maillog")
	for name, text := range map[string]string{
		"": "", "-20261101": "old", "-20261102": "newer", "-20261103.gz": "no text", ".2": "no",
	} {
		line := "Nov 05 10:00:00 host postfix/scache[1]: fatal: " + text + "\n"
		if text == "" {
			line = ""
		}
		if err := os.WriteFile(path+name, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-time.Hour)
	os.Chtimes(path+"-20261101", past, past)
	s := systemWith(t, "maillog_file = "+path+"\n", odd)
	if _, lines, err := s.Log(false, s.Tags("scache")...); err != nil || lines != nil {
		t.Errorf("%q, %v", lines, err)
	}
	_, lines, err := s.Log(true, s.Tags("scache")...)
	if err != nil || len(lines) != 1 || lines[0].Text != "fatal: newer" {
		t.Errorf("%q, %v", lines, err)
	}
}

// TestLog_journal has no log file, and a journalctl that answers, fails or hangs.
func TestLog_journal(t *testing.T) {
	former := syslogFiles
	syslogFiles = [][]string{{filepath.Join(t.TempDir(), "none")}}
	t.Cleanup(func() { syslogFiles = former })
	bin := t.TempDir()
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	s := systemWith(t, "", odd)
	const answers = `case "$*" in
*--identifier=postfix/scache*) echo "Nov 05 10:00:00 host postfix/scache[1]: fatal: x";;
esac`
	for script, want := range map[string]string{
		answers: "",
		`echo "No journal files were found." >&2; exit 1`: "No journal files",
		`sleep 100`: "no answer within 2s",
	} {
		if testing.Short() && strings.HasPrefix(script, "sleep") {
			continue
		}
		err := testenv.WriteProgram(filepath.Join(bin, "journalctl"), "#!/bin/sh\n"+script+"\n")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		from, lines, err := s.Log(false, s.Tags("scache")...)
		if from != "the journal" || (err != nil) != (want != "") ||
			err != nil && !strings.Contains(err.Error(), want) || len(lines) == 1 != (want == "") {
			t.Errorf("%s: got %s, %q, %v", script, from, lines, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: %v", script, took)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, _, err := s.Log(false, "x"); err == nil || !strings.Contains(err.Error(), "no log file") {
		t.Errorf("without journalctl: %v", err)
	}
}

// TestLog_syslog has a log of syslogd, in the second place where one may be.
func TestLog_syslog(t *testing.T) {
	former := syslogFiles
	t.Cleanup(func() { syslogFiles = former })
	path := filepath.Join(t.TempDir(), "syslog")
	syslogFiles = [][]string{{path + ".none"}, {path}}
	text := "Nov 05 10:00:00 host postfix/scache[1]: fatal: x\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := systemWith(t, "", odd)
	from, lines, err := s.Log(false, s.Tags("scache")...)
	if from != path || err != nil || len(lines) != 1 {
		t.Errorf("got %s, %q, %v, want a line of %s", from, lines, err, path)
	}
}

// TestLog_cannotBeOpened has no descriptor for the log.
func TestLog_cannotBeOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maillog")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := systemWith(t, "maillog_file = "+path+"\n", odd)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Log(false, s.Tags("scache")...)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("got %v, want %v", err, unix.EMFILE)
	}
}

// TestLogPosition_linesSince has lines before a position and after it, in the same log or in one
// that has taken its place.
func TestLogPosition_linesSince(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "maillog")
	line := func(text string) string {
		return "Nov 05 10:00:00 host postfix/scache[1]: " + text + "\n"
	}
	old := line("fatal: old") + line("fatal: as old")
	many := ""
	var last []string
	for i := range maxReasons + 2 {
		many += line(fmt.Sprint("error: ", i))
		if i >= 2 {
			last = append(last, fmt.Sprint("error: ", i))
		}
	}
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"nothing":   {old, nil},
		"no reason": {old + line("warning: x"), nil},
		"two": {old + line("fatal: x") + line("info") + line("panic: y"),
			[]string{"fatal: x", "panic: y"}},
		"other":      {old + strings.ReplaceAll(line("fatal: x"), "scache", "smtp"), nil},
		"many":       {old + many, last},
		"rotated":    {line("fatal: x"), []string{"fatal: x"}},
		"incomplete": {old + line("fatal: x") + "Nov 05 host postfix/sca", []string{"fatal: x"}},
	} {
		if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		position := systemWith(t, "maillog_file = "+path+"\n", odd).logPosition()
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if got := position.linesOf("scache"); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
		if took := time.Since(start); test.want == nil && took < logDelay {
			t.Errorf("%s: got nothing after %v, want a wait of %v", name, took, logDelay)
		}
	}
}

func TestServerTags(t *testing.T) {
	t.Parallel()
	s := systemWith(t, "multi_instance_name = postfix-out\n",
		"scache unix - - n - 1 scache -o syslog_name=special\n")
	got, want := s.ServerTags(), []string{"postfix-out/scache", "special/scache"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
