// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
)

// installLimited installs a server that passes the check of its configuration, and serves in
// the trial with a limit of the shell.
func (s *fixture) installLimited(limit string) {
	s.t.Helper()
	s.installScript(`case "$*" in
--check*) ;;
*) ` + limit + ` ;;
esac
exec ` + server + ` "$@"`)
}

// TestEnable_trial has servers that pass every check but the trial.
func TestEnable_trial(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	before := s.masterCF()
	// The state of a handover is in a memory file, which is limited like any other file.
	s.installLimited("ulimit -f 0")
	wantError(t, []string{"-c", s.etc, "enable"}, "lost in the handover", "nothing was changed")
	// Each limit up to the one that is high enough keeps the server from something else.
	refused := 0
	for limit := 7; limit < 40; limit++ {
		s.installLimited(fmt.Sprintf("ulimit -n %d", limit))
		_, errOut, ok := ctl(t, "-c", s.etc, "enable", "--dry-run")
		if ok {
			break
		}
		if strings.Contains(errOut, "mandatory access control") {
			t.Errorf("with %d files: %s", limit, errOut)
		}
		if strings.Contains(errOut, "did not receive a descriptor") {
			refused++
			want(t, errOut, fmt.Sprintf("the limit is %d", limit))
		}
		t.Logf("with %d files: %s", limit, errOut)
	}
	t.Logf("%d limits keep a descriptor from the server", refused)
	if got := s.masterCF(); got != before {
		t.Errorf("master.cf: %s", got)
	}
}
