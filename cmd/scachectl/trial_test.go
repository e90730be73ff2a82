// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"scache/internal/postfixtest"
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

// denier runs a server that the kernel lets receive no descriptor. It is a command of its own:
//
//	denier LAUNCHER SERVER [ARG…]
func denier() {
	cmd := postfixtest.Command(os.Args[2], os.Args[3:]...)
	cmd.Args[0] = "scache"
	cmd.Stderr = os.Stderr
	for fd := uintptr(3); fd <= 6; fd++ { // those that master(8) passes
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(fd, "from master"))
	}
	in := postfixtest.NewInjector(os.Args[1])
	in.Deny()
	err := in.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "denier:", err)
		os.Exit(1)
	}
}

// TestEnable_trialDenied has descriptors kept from the server, or from the tool, as mandatory
// access control does.
func TestEnable_trialDenied(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	before := s.masterCF()
	launcher := filepath.Join(t.TempDir(), "launcher")
	if err := postfixtest.Build(launcher, "scache/internal/postfixtest/launcher"); err != nil {
		t.Fatal(err)
	}
	wantDenial := func(errOut, who string) {
		t.Helper()
		want(t, errOut, who+" did not receive a descriptor, although it has only",
			"mandatory access control", "ausearch", "nothing was changed")
	}

	in := postfixtest.NewInjector(launcher)
	in.Deny()
	var errOut strings.Builder
	cmd := exec.Command(tool, "-c", s.etc, "enable")
	cmd.Stderr = &errOut
	if err := in.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("enable succeeds without a descriptor for the tool")
	}
	wantDenial(errOut.String(), "scachectl")

	s.installScript("case \"$*\" in --check*) exec " + server + " \"$@\" ;; esac\n" +
		"exec " + filepath.Join(filepath.Dir(tool), "denier") + " " + launcher + " " + server + " \"$@\"")
	_, text, ok := ctl(t, "-c", s.etc, "enable")
	if ok {
		t.Error("enable succeeds without a descriptor for the server")
	}
	wantDenial(text, "the server")
	want(t, text, "unable to receive file descriptor: a file descriptor was sent and did not arrive")
	if got := s.masterCF(); got != before {
		t.Errorf("master.cf: %s", got)
	}
}
