// SPDX-License-Identifier: EPL-2.0

// Tests of what doctor makes of numbers, of modes of directories, and of the log.

package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"scache/internal/control"
	"scache/internal/postfix"
	"scache/internal/stats"
)

// TestDoctor_notesOfCounts has a server answer with counts that are worth a note, each just
// above the bound, and those just below.
func TestDoctor_notesOfCounts(t *testing.T) {
	t.Parallel()
	system, err := postfix.Open(newFixture(t).etc)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		counts stats.Values
		want   []string
	}{
		{stats.Values{SessionLimit: 1000, PeakSessions: 900, Clients: 3},
			[]string{"ok limits 1000 sessions fit, at most 900 were cached; 3 clients",
				"ok rates 0 connections were saved .* too few to judge"}},
		{stats.Values{SessionLimit: 1000, PeakSessions: 901},
			[]string{"note limits at most 901 sessions were cached, and 1000 fit", "ok rates "}},
		{stats.Values{SessionLimit: 1000, Evicted: 1, Clients: 7},
			[]string{"note limits 1 sessions had to make room .* 1000 fit .* 7 clients",
				"ok rates "}},
		{stats.Values{SessionLimit: 1000, Evicted: 3, EvictedForMemory: 5, MemoryLimit: 800},
			[]string{"note limits 5 sessions and bindings .* memory .* 800 .* " +
				"raise connection_cache_memory_limit", "ok rates "}},
		{stats.Values{SessionLimit: 1000, Refused: 1},
			[]string{"ok limits ", "note limits 1 clients of other users were refused",
				"ok rates "}},
		{stats.Values{SessionLimit: 1000, Saved: 99, Dead: 99},
			[]string{"ok limits ", "ok rates 99 connections .* too few to judge"}},
		{stats.Values{SessionLimit: 1000, Saved: 100, Dead: 20, Expired: 50, EndpointHits: 30},
			[]string{"ok limits ", "ok rates 100 connections saved, 30 reused, 20 dead, 50 expired",
				"ok rates lookups that hit"}},
		{stats.Values{SessionLimit: 1000, Saved: 100, Dead: 21},
			[]string{"ok limits ", "note rates 21 % of the saved connections were dead .* " +
				"lower smtp_connection_cache_time_limit", "ok rates lookups that hit"}},
		{stats.Values{SessionLimit: 1000, Saved: 100, Expired: 51},
			[]string{"ok limits ", "note rates 51 % of the saved connections were not used again",
				"ok rates lookups that hit"}},
	} {
		d := &doctor{system: system, status: control.Status{Values: test.counts}}
		d.checkLimits()
		d.checkRates()
		wantFindings(t, d.findings, test.want)
	}
	d := &doctor{system: system, statusErr: errors.New("no answer")}
	d.checkLimits()
	d.checkRates()
	wantFindings(t, d.findings, nil)
}

// wantFindings wants exactly these findings, as patterns of level, subject, text and advice.
func wantFindings(t *testing.T, got []finding, want []string) {
	t.Helper()
	matches := len(got) == len(want)
	for i := 0; matches && i < len(want); i++ {
		f := got[i]
		line := f.Level + " " + f.About + " " + f.Text + " " + f.Do
		matches = regexp.MustCompile("^"+want[i]).MatchString(line) && (f.Level == "ok") == (f.Do == "")
	}
	if !matches {
		t.Errorf("got %+v\nwant %q", got, want)
	}
}

// TestDoctor_privateDirectory has modes that let other users reach the server, or look at it.
func TestDoctor_privateDirectory(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	private := filepath.Join(s.Dir, "queue/private")
	for _, mode := range []os.FileMode{0o710, 0o740, 0o720, 0o701, 0o704} {
		if err := os.Chmod(private, mode); err != nil {
			t.Fatal(err)
		}
		s.doctor(false, "problem +socket .*with mode "+mode.String())
	}
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	s.doctor(true, "ok +socket")
}

// TestDoctor_panicInTheLog has a panic with its stack as the server logs it: the reason is
// shown, not the last line of the stack.
func TestDoctor_panicInTheLog(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	must(t, "-c", s.etc, "enable")
	const line = "Jan  2 03:04:05 host postfix/scache[123]: "
	appendTo(t, filepath.Join(s.Dir, "maillog"), line+"fatal: an older reason\n"+
		line+"panic: index out of range\n"+line+"panic: at main.main (main.go:1)\n"+
		"Jan  2 03:04:06 host postfix/smtp[124]: fatal: of another program\n")
	s.doctor(false, "problem +log +the last fatal error in .*panic: index out of range$")
	s.start()
	s.doctor(true, "note +log +the last fatal error in .*panic: index out of range$")
}
