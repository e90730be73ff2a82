// SPDX-License-Identifier: EPL-2.0

package main

import (
	"os"
	"strings"
	"testing"
)

func TestRestart(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	wantError(t, []string{"-c", s.etc, "restart"}, "stock scache")
	must(t, "-c", s.etc, "enable")
	s.send()
	want(t, must(t, "-c", s.etc, "restart"), "restarted: scache test, pid ", "instead of test, pid ")
	s.send()
	lines := s.Grep("postfix/scache[", "takeover: ")
	if len(lines) != 1 || !strings.HasSuffix(lines[0], " lost=0") {
		t.Errorf("%q", lines)
	}
	if lines := s.Grep("problem talking to service private/scache"); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
}

func TestRestartAll(t *testing.T) {
	t.Parallel()
	first, second, third := newFixture(t), newFixture(t), newFixture(t)
	others := second.etc + ", " + third.etc
	first.configure(map[string]string{"multi_instance_directories": others})
	for _, s := range []*fixture{first, second} { // the third one does not run
		s.start()
	}
	must(t, "-c", second.etc, "enable")
	if out := must(t, "-c", first.etc, "restart", "--all"); strings.Count(out, "restarted: ") != 1 {
		t.Error(out)
	}
	want(t, must(t, "-c", t.TempDir(), "restart", "--all"), "no mail system")
	wantError(t, []string{"--socket", "/x", "restart", "--all"}, "--socket")

	second.install("/bin/false")
	for _, command := range [][]string{
		{"-c", second.etc, "restart"}, {"-c", first.etc, "restart", "--all"},
	} {
		wantError(t, command, "does not run", "nothing was done")
	}
	want(t, must(t, "-c", second.etc, "status"), "scache test")

	os.Remove(second.installed())
	wantError(t, []string{"-c", second.etc, "restart"}, "no such file", "scachectl enable finds")

	second.installForTrials("exec sleep 100")
	if err := second.Command("reload"); err != nil {
		t.Fatal(err)
	}
	wantError(t, []string{"-c", first.etc, "restart", "--all"}, second.etc, "no answer within")
}
