// SPDX-License-Identifier: EPL-2.0

// Tests of signals that come at the worst moments of enable and disable.

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"scache/internal/postfix"
	"scache/internal/testenv"
)

// A gate is a place where something stops until a test lets it go on: two files.
type gate struct{ reached, open string }

func newGate(t *testing.T) gate {
	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	os.Chmod(filepath.Dir(dir), 0o755)
	return gate{filepath.Join(dir, "reached"), filepath.Join(dir, "open")}
}

// script are commands of the shell that stop at the gate.
func (g gate) script() string {
	return ": > " + g.reached + "; while ! test -e " + g.open + "; do sleep 0.05; done"
}

func (g gate) wait(t *testing.T) {
	t.Helper()
	testenv.Eventually(t, "the gate is reached", func() bool {
		_, err := os.Stat(g.reached)
		return err == nil
	})
}

func (g gate) pass(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(g.open, nil, 0o644); err != nil {
		t.Error(err)
	}
}

// A call is the tool in a process of its own.
type call struct {
	*exec.Cmd
	out, errOut strings.Builder
}

func (s *fixture) call(args ...string) *call {
	s.t.Helper()
	c := &call{Cmd: exec.Command(tool, append([]string{"-c", s.etc}, args...)...)}
	c.Stdout, c.Stderr = &c.out, &c.errOut
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Process.Kill() })
	return c
}

// replaceProgram puts a script in the place of a program of Postfix. "$real" in it is the
// program.
func (s *fixture) replaceProgram(name, script string) {
	s.t.Helper()
	path := filepath.Join(s.Dir, "libexec", name)
	real, err := os.Readlink(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = testenv.WriteProgram(path, "#!/bin/sh\nreal="+real+"\n"+script+"\n")
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestEnable_trialInterrupted has a signal come while the server is being tried: nothing is
// changed, and Postfix is not reloaded.
func TestEnable_trialInterrupted(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before, g := s.masterCF(), newGate(t)
	s.installScript(`case "$*" in
*trial*) ` + g.script() + ` ;;
esac
exec ` + server + ` "$@"`)
	c := s.call("enable")
	g.wait(t)
	c.Process.Signal(syscall.SIGTERM)
	g.pass(t)
	if err := c.Wait(); err == nil {
		t.Errorf("got success, want an error: %s", c.out.String())
	}
	want(t, c.errOut.String(), "interrupted", "nothing was changed")
	if lines := s.Grep("reload"); len(lines) > 0 {
		t.Errorf("got %q, want no reload", lines)
	}
	s.wantUntouched(before)
}

// TestEnable_rollbackInterrupted has signals come until the old entry is back: the rollback is
// completed all the same, and waits for the server of the old entry.
func TestEnable_rollbackInterrupted(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.masterCF()
	s.installForTrials("exec sleep 100")
	c := s.call("enable")
	testenv.Eventually(t, "the entry is the new one", func() bool {
		return strings.Contains(s.masterCF(), postfix.OurName)
	})
	testenv.Eventually(t, "the entry is the old one", func() bool {
		c.Process.Signal(os.Interrupt)
		return s.masterCF() == before
	})
	c.Process.Signal(os.Interrupt)
	err := c.Wait()
	if err == nil || c.ProcessState.ExitCode() < 0 {
		t.Errorf("got %v, want an error of the command's own", err)
	}
	want(t, c.errOut.String(), "interrupted", "the old entry is back")
	if strings.Contains(c.errOut.String(), "does not use it") {
		t.Errorf("got %q, want Postfix to use the old entry", c.errOut.String())
	}
	s.wantUntouched(before)
}

// throttleGate makes "postfix reload" stop while master.cf has no entry: that is when the
// throttle is cleared.
func (s *fixture) throttleGate() gate {
	g := newGate(s.t)
	s.replaceProgram("postfix-script",
		"if test \"$1\" = reload && ! grep -q ^scache "+s.etc+"/master.cf\n"+
			"then "+g.script()+"\nfi\nexec $real \"$@\"")
	return g
}

// TestEnable_clearThrottleInterrupted has a signal come while master.cf has no entry of the
// server.
func TestEnable_clearThrottleInterrupted(t *testing.T) {
	t.Parallel()
	for _, by := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			s := newRunningFixture(t)
			before := s.masterCF()
			s.installForTrials("exit 1")
			s.throttled = true
			g := s.throttleGate()
			c := s.call("enable")
			g.wait(t)
			if s.postconf() != "" {
				t.Error("got an entry in master.cf, want it out of the file for a moment")
			}
			c.Process.Signal(by)
			if by == syscall.SIGKILL {
				c.Wait()
				g.pass(t)
				s.doctor(false, "problem +entry ")
				want(t, must(t, "-c", s.etc, "disable"), "disabled")
			} else {
				g.pass(t)
				c.Wait()
				want(t, c.errOut.String(), "the old entry is back")
			}
			s.wantUntouched(before)
		})
	}
}

// TestDisable_interrupted has a signal come while the previous server does not answer: the
// switch is completed, and a warning says so.
func TestDisable_interrupted(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.masterCF()
	must(t, "-c", s.etc, "enable")
	g := newGate(t)
	s.replaceProgram("scache", g.script()+"\nexec $real \"$@\"")
	c := s.call("disable")
	g.wait(t)
	c.Process.Signal(syscall.SIGTERM)
	if err := c.Wait(); err != nil {
		t.Errorf("got %v, %s, want success", err, c.errOut.String())
	}
	want(t, c.out.String(), "warning: interrupted", "disabled in ")
	g.pass(t)
	s.wantUntouched(before)
}
