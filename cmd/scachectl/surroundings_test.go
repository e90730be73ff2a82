// SPDX-License-Identifier: EPL-2.0

// Tests of enable and disable with files and systems as sites have them.

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scache/internal/postfix"
	"scache/internal/testenv"
)

// inMounts runs the tool in a mount namespace of its own, after a script. It makes the mounts
// that the script asks for: the directory of main.cf is $1.
func (s *fixture) inMounts(script string, args ...string) (stdout, stderr string, ok bool) {
	s.t.Helper()
	shell := "set -e; " + script + "; shift; exec \"$@\""
	args = append([]string{"-m", "--propagation", "private", "sh", "-c", shell, "sh", s.etc, tool,
		"-c", s.etc}, args...)
	return run(exec.Command("unshare", args...))
}

const (
	mountPoint     = `mount --bind "$1/master.cf" "$1/master.cf"`
	readOnlyFile   = mountPoint + `; mount -o remount,bind,ro "$1/master.cf"`
	readOnlySystem = `mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"`
	readOnlyBut    = readOnlySystem +
		`; mount --bind "$1/master.cf" "$1/master.cf"; mount -o remount,bind,rw "$1/master.cf"`
)

// TestEnable_mountPoint has a master.cf that cannot be renamed over.
func TestEnable_mountPoint(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.masterCF()
	out, errOut, ok := s.inMounts(mountPoint, "enable")
	if !ok || errOut != "" {
		t.Fatalf("%s%s", out, errOut)
	}
	want(t, must(t, "-c", s.etc, "status"), "scache test")
	s.wantNoBackup()
	got := s.masterCF()
	if got != strings.Replace(before, " 1 scache ", " 1 "+postfix.OurName+" ", 1) {
		t.Errorf("master.cf: %s", got)
	}
	if out, errOut, ok := s.inMounts(mountPoint, "disable"); !ok || errOut != "" {
		t.Fatalf("%s%s", out, errOut)
	}
	s.wantUntouched(before)
	// The throttle is cleared in place as well.
	s.installForTrials("exit 1")
	s.throttled = true
	out, errOut, ok = s.inMounts(mountPoint, "enable")
	if ok || !strings.Contains(errOut, "the old entry is back") {
		t.Errorf("%s%s", out, errOut)
	}
	s.wantUntouched(before)
}

func (s *fixture) wantNoBackup() {
	s.t.Helper()
	_, err := os.Lstat(filepath.Join(s.etc, "master.cf.scache-backup"))
	if !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("the backup is left: %v", err)
	}
}

// TestEnable_readOnly has one message, and leaves nothing.
func TestEnable_readOnly(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.masterCF()
	files, _ := os.ReadDir(s.etc)
	for name, script := range map[string]string{
		"file": readOnlyFile, "system": readOnlySystem, "system but the file": readOnlyBut,
	} {
		out, errOut, ok := s.inMounts(script, "enable")
		if ok || !strings.Contains(errOut, "nothing was changed\nhint: scachectl enable --print") ||
			strings.Contains(errOut, "could not be put back") {
			t.Errorf("%s: %s%s", name, out, errOut)
		}
		if now, _ := os.ReadDir(s.etc); len(now) != len(files) {
			t.Errorf("%s: files are left: %v", name, now)
		}
	}
	s.wantUntouched(before)
	must(t, "-c", s.etc, "enable")
	for name, script := range map[string]string{"file": readOnlyFile, "system": readOnlySystem} {
		out, errOut, ok := s.inMounts(script, "disable")
		if ok || !strings.Contains(errOut, "nothing was changed\nhint: scachectl disable --print") {
			t.Errorf("%s: %s%s", name, out, errOut)
		}
	}
	want(t, must(t, "-c", s.etc, "status"), "scache test")
}

// TestEnable_print writes the changed file to standard output, and nothing anywhere else.
func TestEnable_print(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	before := s.masterCF()
	enabled := strings.Replace(before, " 1 scache ", " 1 "+postfix.OurName+" ", 1)
	out, errOut, ok := s.inMounts(readOnlySystem, "enable", "--print")
	if !ok || out != enabled || errOut != "" {
		t.Errorf("got %q, %q", out, errOut)
	}
	if out := must(t, "-c", s.etc, "disable", "--print"); out != before {
		t.Errorf("got %q", out)
	}
	if got := s.masterCF(); got != before {
		t.Errorf("master.cf: %q", got)
	}
	s.write("master.cf", enabled) // as configuration management would
	if out := must(t, "-c", s.etc, "enable", "--print"); out != enabled {
		t.Errorf("got %q", out)
	}
	if out := must(t, "-c", s.etc, "disable", "--print"); out != before {
		t.Errorf("got %q", out)
	}
	wantError(t, []string{"-c", s.etc, "enable", "--print", "--all"}, "print", "all")
	s.edit("master.cf", "- 1 "+postfix.OurName, "- 2 "+postfix.OurName)
	wantError(t, []string{"-c", s.etc, "enable", "--print"}, "maxproc column")
}

// inJournal makes a journal with a line, and no log files.
const inJournal = `mount -t tmpfs log /var/log
test -e /etc/machine-id # the name of the directory
dir=/var/log/journal/$(cat /etc/machine-id)
mkdir -p "$dir"
/lib/systemd/systemd-journal-remote -o "$dir/system.journal" - >/dev/null 2>&1 <<-end
	__REALTIME_TIMESTAMP=$(date +%s)000000
	__MONOTONIC_TIMESTAMP=1
	_BOOT_ID=0123456789abcdef0123456789abcdef
	_HOSTNAME=host
	SYSLOG_IDENTIFIER=postfix/scache
	SYSLOG_PID=4242
	MESSAGE=fatal: only in the journal

end
:`

// TestDoctor_realJournal has a journal that journalctl(1) reads.
func TestDoctor_realJournal(t *testing.T) {
	t.Parallel()
	needFile(t, "/lib/systemd/systemd-journal-remote")
	s := newFixture(t)
	s.configure(map[string]string{"maillog_file": ""})
	out, errOut, _ := s.inMounts(inJournal, "doctor")
	want(t, out+errOut, "the journal", "fatal: only in the journal")
	s.configure(map[string]string{"maillog_file": "", "syslog_name": "other"})
	if out, errOut, _ := s.inMounts(inJournal, "doctor"); strings.Contains(out+errOut, "fatal: only") {
		t.Errorf("got %s%s, want no line of another instance", out, errOut)
	}
}

// withExtraUser adds a user that is not in /etc/passwd.
const withExtraUser = `mount -t tmpfs users /var/lib/extrausers
echo "scache-extra:x:4242:4242::/:/bin/false" >/var/lib/extrausers/passwd
echo "passwd: files extrausers" >/var/lib/extrausers/nsswitch.conf
mount --bind /var/lib/extrausers/nsswitch.conf /etc/nsswitch.conf`

// TestEnable_extraUser has a mail_owner that only the name service switch knows.
func TestEnable_extraUser(t *testing.T) {
	t.Parallel()
	needFile(t, "/var/lib/extrausers")
	s := newFixture(t)
	s.configure(map[string]string{"mail_owner": "scache-extra"})
	if out, errOut, ok := s.inMounts(withExtraUser, "enable", "--dry-run"); !ok || errOut != "" {
		t.Errorf("%s%s", out, errOut)
	}
	out, errOut, ok := s.inMounts(":", "enable", "--dry-run")
	if ok || !strings.Contains(errOut, "scache-extra") {
		t.Errorf("got success where there is no such user: %s%s", out, errOut)
	}
}

// needFile skips a test that needs a package which is not installed. With CI set, it fails.
func needFile(t *testing.T, path string) {
	t.Helper()
	_, err := os.Stat(path)
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skipf("SKIPPED: %v", err)
	}
}

// TestDisable_writtenBack has configuration management write master.cf back.
func TestDisable_writtenBack(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	before := s.masterCF()
	must(t, "-c", s.etc, "enable")
	s.write("master.cf", before)
	s.doctor(true, "note +entry .*master.cf.scache-saved is there, and the entry is another server")
	want(t, must(t, "-c", s.etc, "disable", "--dry-run"),
		"remove "+s.etc+"/master.cf.scache-saved", "nothing was done")
	want(t, must(t, "-c", s.etc, "disable"), "remove "+s.etc+"/master.cf.scache-saved", "not enabled")
	_, err := os.Stat(filepath.Join(s.etc, "master.cf.scache-saved"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the saved entry is left: %v", err)
	}
	if out := must(t, "-c", s.etc, "doctor"); strings.Contains(out, "scache-saved") {
		t.Error(out)
	}
	// While ours still runs, Postfix is told, too.
	s.start()
	must(t, "-c", s.etc, "enable")
	s.write("master.cf", before)
	want(t, must(t, "-c", s.etc, "disable"), "reload", "remove ", "not enabled")
	s.wantUntouched(before)
}

// TestEnable_expression has an argument with white space in braces, as master(8) takes it.
func TestEnable_expression(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	s.edit("master.cf", "-o connection_cache_ttl_limit=1h", "-o connection_cache_ttl_limit="+
		"${{$compatibility_level} >=level {3.0} ? {5s} : {2s}} -o max_idle=50s")
	must(t, "-c", s.etc, "enable")
	s.send()
	want(t, must(t, "-c", s.etc, "status"), "ttl limit 5s")
	want(t, must(t, "-c", s.etc, "config"), "5s ", "50s ")
	s.doctor(true, "ok +configuration")
	must(t, "-c", s.etc, "restart")
}

// TestEnable_effectiveColumns has columns that are left to their defaults.
func TestEnable_effectiveColumns(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.edit("master.cf", "scache unix - - y - 1 scache", "scache unix - - n - - scache")
	wantError(t, []string{"-c", s.etc, "enable", "--dry-run"},
		"maxproc column", "default_process_limit is 100")
	s.doctor(false, "problem +entry .*maxproc column .*default_process_limit is 100")
	s.configure(map[string]string{"default_process_limit": "1"})
	s.edit("master.cf", "scache unix - - y - 1 scache", "scache unix - - n - - scache")
	must(t, "-c", s.etc, "enable")
	s.start()
	s.doctor(true, "ok +configuration .*process limit is 1")
	want(t, must(t, "-c", s.etc, "status"), "scache test")
}

// TestEnable_public is refused at once, and nothing is touched.
func TestEnable_public(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	s.edit("master.cf", "scache unix - - y - 1 scache", "scache unix n - y - 1 scache")
	before := s.masterCF()
	start := time.Now()
	for _, args := range [][]string{{"enable"}, {"enable", "--dry-run"}} {
		wantError(t, append([]string{"-c", s.etc}, args...),
			"private column", `"n"`, "nothing was changed")
	}
	if took := time.Since(start); took > 10*time.Second || s.masterCF() != before {
		t.Errorf("%v, %s", took, s.masterCF())
	}
	s.doctor(false, "problem +entry .*private column")
	if lines := s.Grep("reload"); len(lines) > 0 {
		t.Errorf("Postfix was reloaded: %q", lines)
	}
}

func TestEnable_duplicates(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.write("master.cf", s.masterCF()+"\nscache unix - - n - 1 scache -v\n")
	_, errOut, ok := ctl(t, "-c", s.etc, "enable")
	if !ok || !strings.Contains(errOut,
		"warning: master.cf has 2 entries scache unix, at lines [18 20]") {
		t.Errorf("%s", errOut)
	}
	got := s.masterCF()
	if !strings.Contains(got, " 1 scache -o") || !strings.Contains(got, " 1 "+postfix.OurName+" -v") {
		t.Errorf("%s", got)
	}
	s.doctor(true, "note +entry .*2 entries")
}

// TestEnable_reloadFails has the reason of postfix(1).
func TestEnable_reloadFails(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.masterCF()
	path := filepath.Join(s.Dir, "libexec/postfix-script")
	real, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\ntest $1 = reload || exec " + real + " \"$@\"\n" +
		"/usr/sbin/postlog -p fatal -t postfix/postfix-script no luck today\nexit 1\n"
	if err := errors.Join(os.Remove(path), testenv.WriteProgram(path, script)); err != nil {
		t.Fatal(err)
	}
	wantError(t, []string{"-c", s.etc, "enable"},
		"reload: exit status", "fatal: no luck today", "the old entry is back")
	s.wantUntouched(before)
}

// TestEnable_withoutCheck does not depend on "postfix check", which may fail for reasons of
// its own, and look at all files of a large queue.
func TestEnable_withoutCheck(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	bin := t.TempDir()
	script := "#!/bin/sh\ncase \"$3\" in check) exit 1 ;; esac\nexec /usr/sbin/postfix \"$@\"\n"
	if err := testenv.WriteProgram(filepath.Join(bin, "postfix"), script); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postconf", "postsuper", "postlog"} {
		if err := os.Symlink("/usr/sbin/"+name, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	s.configure(map[string]string{"command_directory": bin})
	must(t, "-c", s.etc, "enable")
	want(t, must(t, "-c", s.etc, "status"), "scache test")
	s.configure(map[string]string{"command_directory": "/usr/sbin"})
}

// TestEnable_relative has a directory that is relative to the present one.
func TestEnable_relative(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.masterCF()
	for _, command := range []string{"enable", "restart", "doctor", "disable"} {
		cmd := exec.Command(tool, "-c", "etc", command)
		cmd.Dir = s.Dir
		if out, errOut, ok := run(cmd); !ok || errOut != "" {
			t.Errorf("%s: %s%s", command, out, errOut)
		}
	}
	s.wantUntouched(before)
}

// TestEnable_links has master.cf behind links, which stay.
func TestEnable_links(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	before := s.masterCF()
	real := filepath.Join(t.TempDir(), "real.cf")
	path := filepath.Join(s.etc, "master.cf")
	err := errors.Join(os.Rename(path, real), os.Symlink(real, path+".link"),
		os.Symlink("master.cf.link", path))
	if err != nil {
		t.Fatal(err)
	}
	must(t, "-c", s.etc, "enable")
	if text, err := os.ReadFile(real); err != nil || !strings.Contains(string(text), postfix.OurName) {
		t.Errorf("%v, %s", err, text)
	}
	must(t, "-c", s.etc, "disable")
	target, err := os.Readlink(path)
	if target != "master.cf.link" || err != nil || s.masterCF() != before {
		t.Errorf("%s, %v, %s", target, err, s.masterCF())
	}
}
