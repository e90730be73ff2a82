// SPDX-License-Identifier: EPL-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scache/internal/postfix"
)

func TestDisableAll(t *testing.T) {
	t.Parallel()
	first, second := newFixture(t), newFixture(t)
	first.configure(map[string]string{"multi_instance_directories": second.etc})
	want(t, must(t, "-c", first.etc, "enable", "--all"),
		"enabled in "+first.etc, "enabled in "+second.etc)
	want(t, must(t, "-c", first.etc, "disable", "--all"),
		"disabled in "+first.etc, "disabled in "+second.etc)
	for _, s := range []*fixture{first, second} {
		if strings.Contains(s.masterCF(), postfix.OurName) {
			t.Errorf("%s is not disabled", s.etc)
		}
	}
	want(t, must(t, "-c", t.TempDir(), "disable", "--all"), "no mail system")
	wantError(t, []string{"-c", t.TempDir(), "enable", "--all"}, "main.cf", "option -c")
	wantError(t, []string{"--socket", "/x", "disable"}, "--socket")
}

// TestDisableWhilePostfixCannotReload has a main.cf that only Postfix minds.
func TestDisableWhilePostfixCannotReload(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.postconf()
	must(t, "-c", s.etc, "enable")
	s.configure(map[string]string{"inet_protocols": "none at all"})
	wantError(t, []string{"-c", s.etc, "disable"}, "reload: exit status", "Postfix does not use it")
	must(t, "-c", s.etc, "status")
	s.configure(map[string]string{"inet_protocols": "ipv4"})
	want(t, must(t, "-c", s.etc, "disable"), "reload", "not enabled")
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
	if got := s.postconf(); got != before {
		t.Errorf("master.cf: %s", got)
	}
}

// TestDisableWhileOurServerFails has master(8) wait for a minute after a server that
// does not even start.
func TestDisableWhileOurServerFails(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.postconf()
	must(t, "-c", s.etc, "enable")
	s.install("/bin/false")
	if err := s.Command("reload"); err != nil {
		t.Fatal(err)
	}
	s.throttle()
	text := s.masterCF()
	start := time.Now()
	out := must(t, "-c", s.etc, "disable")
	want(t, out, "Clearing the throttle", "disabled")
	if strings.Contains(out, "warning") {
		t.Errorf("after %v: %s", time.Since(start), out)
	}
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
	if got := s.postconf(); got != before {
		t.Errorf("master.cf: %s\nwant %s", got, before)
	}
	got, want := len(strings.Split(s.masterCF(), "\n")), len(strings.Split(text, "\n"))
	if got != want {
		t.Errorf("master.cf has %d lines instead of %d", got, want)
	}
	if _, err := os.Stat(filepath.Join(s.etc, "master.cf.scache-backup")); !os.IsNotExist(err) {
		t.Errorf("a copy of master.cf is left: %v", err)
	}
	s.send()
}

func TestDisableAllGoesOnWithoutAnInstance(t *testing.T) {
	t.Parallel()
	first := newFixture(t)
	gone := filepath.Join(t.TempDir(), "gone")
	must(t, "-c", first.etc, "enable")
	first.configure(map[string]string{"multi_instance_directories": gone})
	must(t, "-c", first.etc, "enable")
	want(t, must(t, "-c", first.etc, "disable", "--all"), "disabled in "+first.etc, "warning: "+gone)
}

// TestPackage_staysWhereItIsUsed has a second instance that cannot be reloaded when the
// package is to be removed.
func TestPackage_staysWhereItIsUsed(t *testing.T) {
	t.Parallel()
	first, second := newRunningFixture(t), newRunningFixture(t)
	first.configure(map[string]string{"multi_instance_directories": second.etc})
	must(t, "-c", first.etc, "enable", "--all")
	// The script finds no units of this machine.
	const withoutUnits = `set -e
for dir in /run/systemd /etc/systemd; do
	[ ! -d $dir ] || mount -t tmpfs tmpfs $dir
done
exec sh ../../internal/packaging/debian/scache-go.prerm remove`
	remove := func() (said string, err error) {
		cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", withoutUnits)
		cmd.Env = append(os.Environ(),
			"MAIL_CONFIG="+first.etc, "PATH="+filepath.Dir(tool)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	wantStay := func(s *fixture) {
		t.Helper()
		out, err := remove()
		if err == nil || !strings.Contains(out, "Postfix in "+s.etc+" still uses this server") {
			t.Errorf("%v, %s", err, out)
		}
	}
	configure := func(protocols string) {
		t.Helper()
		second.configure(map[string]string{"inet_protocols": protocols})
	}
	configure("none at all")
	wantStay(second)
	configure("ipv4")
	if out, err := remove(); err != nil {
		t.Errorf("%v, %s", err, out)
	}
	wantError(t, []string{"-c", second.etc, "status"}, "stock scache")

	must(t, "-c", first.etc, "enable")
	first.edit("main.cf", "relayhost =", "relayhost") // postconf knows no instances then
	wantStay(first)
	first.edit("main.cf", "relayhost", "relayhost =")
}
