// SPDX-License-Identifier: EPL-2.0

package main

import (
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"scache/internal/postfix"
	"scache/internal/testenv"
)

func TestEnableAndDisable(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.postconf()

	s.send()
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
	out := must(t, "-c", s.etc, "enable", "--dry-run")
	want(t, out, "nothing was done",
		s.etc+"/master.cf: set the command of scache unix to "+postfix.OurName,
		"postfix -c "+s.etc+" reload")
	if s.postconf() != before {
		t.Fatal("a dry run has changed master.cf")
	}

	for range 2 { // twice is as good as once
		must(t, "-c", s.etc, "enable")
		got, want := s.postconf(), strings.Replace(before, " 1 scache ", " 1 "+postfix.OurName+" ", 1)
		if got != want {
			t.Errorf("master.cf: %s\nwant %s", got, want)
		}
	}
	want(t, must(t, "-c", s.etc, "enable"), "already enabled")
	s.send()
	want(t, must(t, "-c", s.etc, "status"), "ttl limit 1h")
	want(t, must(t, "-c", s.etc, "list", "--labels"),
		`smtp\n[127.0.0.1]:`, `smtp\n127.0.0.1\n`, " sessions\n")
	want(t, must(t, "-c", s.etc, "config"), "master.cf -o")
	want(t, must(t, "-c", s.etc, "metrics"), "scache_sessions_saved_total")
	want(t, must(t, "-c", s.etc, "flush", "127.0.0.1"), "flushed ")
	want(t, must(t, "-c", s.etc, "save", "endpoint", "by hand", "--property", "a property"), "saved")
	want(t, must(t, "-c", s.etc, "save", "destination", "some domain", "by hand"), "saved")
	want(t, must(t, "-c", s.etc, "find", "destination", "some domain"),
		"endpoint property: a property\n", "character device")
	screen := newScreen(t, tool, "-c", s.etc, "top")
	screen.wait("scache test  pid ", "sessions ", "ENDPOINT")
	screen.tmux("send-keys", "q")
	screen.wait("ended with 0")
	if got := s.logged("flush: sessions="); got != 1 {
		t.Errorf("ours has logged %d flushes", got)
	}

	want(t, must(t, "-c", s.etc, "disable", "--dry-run"),
		"set the command of scache unix to scache\n", "nothing was done")
	must(t, "-c", s.etc, "disable")
	if got := s.postconf(); got != before {
		t.Errorf("after disable: %s\nwant %s", got, before)
	}
	want(t, must(t, "-c", s.etc, "disable"), "not enabled")
	s.send()
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
	if _, err := os.Stat(filepath.Join(s.etc, "master.cf.scache-saved")); !os.IsNotExist(err) {
		t.Errorf("the saved entry is still there: %v", err)
	}
	// Of stock, the log tells by a warning that ours does not have.
	reuses, foreign := len(s.Grep("status=sent", "conn_use=")),
		s.logged(`warning: unrecognized request: "status"`)
	if reuses < s.sent/2 || foreign < 2 {
		t.Errorf("%d of %d deliveries reuse a connection; stock was asked %d times",
			reuses, s.sent, foreign)
	}
	got := s.logged("warning: ") - s.logged("warning: unrecognized request: ") +
		len(s.Grep("postfix/smtp[", "warning: "))
	if got > 0 {
		t.Errorf("%d warnings: %q", got, s.Grep("warning: "))
	}
}

// TestEnableRollsBack has a server that passes the trial, and fails under master(8).
func TestEnableRollsBack(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.masterCF()
	s.installForTrials("exit 1")
	s.throttled = true
	wantError(t, []string{"-c", s.etc, "enable"},
		"after the reload", "does not answer", "the old entry is back")
	s.wantUntouched(before)
}

// TestEnableIsInterrupted while the new server does not answer: by a user, and by the end of
// whatever listens to it.
func TestEnableIsInterrupted(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.masterCF()
	s.installForTrials("exec sleep 100")
	for _, by := range []syscall.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE,
	} {
		s.interruptEnable(by)
		s.wantUntouched(before)
	}
}

// interruptEnable interrupts enable after it has changed master.cf, and wants it to go back.
func (s *fixture) interruptEnable(by syscall.Signal, options ...string) {
	s.t.Helper()
	cmd := exec.Command(tool, append([]string{"-c", s.etc, "enable"}, options...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	var errOut strings.Builder
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	if by == syscall.SIGPIPE {
		stdout.Close()
	} else {
		testenv.Eventually(s.t, "the entry is the new one", func() bool {
			return strings.Contains(s.masterCF(), postfix.OurName)
		})
		cmd.Process.Signal(by)
	}
	err = cmd.Wait()
	if err == nil || !strings.Contains(errOut.String(), "interrupted") ||
		!strings.Contains(errOut.String(), "the old entry is back") {
		s.t.Errorf("%v: %v, %s", by, err, errOut.String())
	}
}

// TestEnableAllIsInterrupted in the first instance, and leaves the other one alone.
func TestEnableAllIsInterrupted(t *testing.T) {
	t.Parallel()
	first, second := newRunningFixture(t), newFixture(t)
	first.configure(map[string]string{"multi_instance_directories": second.etc})
	before := []string{first.masterCF(), second.masterCF()}
	first.installForTrials("exec sleep 100")
	first.interruptEnable(syscall.SIGINT, "--all")
	if first.masterCF() != before[0] || second.masterCF() != before[1] {
		t.Errorf("%s\n%s", first.masterCF(), second.masterCF())
	}
}

// TestEnableIsRefused has nothing touched where this server would not serve.
func TestEnableIsRefused(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	edit := func(from, to string) (undo func()) {
		t.Helper()
		text := s.masterCF()
		s.edit("master.cf", from, to)
		return func() { s.write("master.cf", text) }
	}
	for to, texts := range map[string][]string{
		"- 10 scache":               {"process limit of 1"},
		"- 1 scache -o max_idle=1x": {`max_idle: "1x"`, "command line"},
		"- 1 scache -o nonsense":    {"option -o", "nonsense"},
		"- 1 scache --nonsense":     {"--nonsense"},
		"- - scache": {"maxproc column", "process limit of 1",
			"default_process_limit is 100"},
		"- 1 scache -o max_idle=${x}y":   {"max_idle", `"y"`},
		"x 1 scache":                     {"wakeup column", `"x"`},
		"- 1 scache\nx unix - q - - - y": {"line 19", "unpriv column of x unix"},
	} {
		undo := edit("- 1 scache", to)
		start := time.Now()
		wantError(t, []string{"-c", s.etc, "enable"}, append(texts, "nothing was changed")...)
		t.Logf("%s: %v", to, time.Since(start))
		undo()
	}
	undo := edit("scache unix", "scache inet")
	wantError(t, []string{"-c", s.etc, "enable"}, "no entry of this service: scache unix")
	undo()

	before := s.masterCF()
	for binary, text := range map[string]string{
		"/bin/true": "does not answer", "/bin/false": "does not run", "/etc/passwd": "exec format error",
	} {
		s.install(binary)
		wantError(t, []string{"-c", s.etc, "enable"}, text, "nothing was changed")
	}
	os.Chmod(s.installed(), 0o644)
	wantError(t, []string{"-c", s.etc, "enable"}, "permission denied", "nothing was changed")
	os.Remove(s.installed())
	wantError(t, []string{"-c", s.etc, "enable"}, "no such file", "make install")
	s.wantUntouched(before)
}

func TestEnableWhilePostfixIsStopped(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	want(t, must(t, "-c", s.etc, "enable"), "not running")
	s.start()
	s.send()
	want(t, must(t, "-c", s.etc, "status"), "scache test")
}

// TestEnableGoesOnAfterAnInterruption has master.cf changed, and Postfix not told.
func TestEnableGoesOnAfterAnInterruption(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
	s.edit("master.cf", " 1 scache ", " 1 "+postfix.OurName+" ")
	want(t, must(t, "-c", s.etc, "enable"), "reload", "already enabled")
	want(t, must(t, "-c", s.etc, "status"), "scache test")
	s.edit("master.cf", " 1 "+postfix.OurName+" ", " 1 scache ")
	want(t, must(t, "-c", s.etc, "disable"), "reload", "not enabled")
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
}

// TestEnableOfAnotherCopy has the entry name one that is not the one installed.
func TestEnableOfAnotherCopy(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	before := s.postconf()
	must(t, "-c", s.etc, "enable")
	s.edit("master.cf", " "+postfix.OurName+" ", " ../old/"+postfix.OurName+" ")
	want(t, must(t, "-c", s.etc, "enable"), "enabled")
	if got := s.postconf(); !strings.Contains(got, " 1 "+postfix.OurName+" ") {
		t.Error(got)
	}
	must(t, "-c", s.etc, "disable")
	if got := s.postconf(); got != before {
		t.Errorf("after disable: %s", got)
	}
}

func TestEnableWithoutAnEntry(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.write("master.cf", strings.ReplaceAll(s.masterCF(), oldEntry, ""))
	wantError(t, []string{"-c", s.etc, "enable"}, "no entry", "scache unix")
	want(t, must(t, "-c", s.etc, "disable"), "not enabled")
}

// TestEnable_interruptedCallIsPutRight finds master.cf without the entry.
func TestEnable_interruptedCallIsPutRight(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	before := s.masterCF()
	for name, text := range map[string]string{
		"master.cf.scache-whole": before, "master.cf": strings.Replace(before, oldEntry, "", 1),
	} {
		s.write(name, text)
	}
	if s.postconf() != "" {
		t.Fatal("there is still an entry")
	}
	wantError(t, []string{"-c", s.etc, "disable", "--dry-run"}, "interrupted", "without --dry-run")
	want(t, must(t, "-c", s.etc, "disable"), "not enabled")
	if got := s.masterCF(); got != before {
		t.Errorf("master.cf: %q\nwant %q", got, before)
	}
}

func TestEnableTakesRoot(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for _, command := range []string{"enable", "disable"} {
		cmd := exec.Command(tool, "-c", s.etc, command)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, errOut, ok := run(cmd); ok || !strings.Contains(errOut, "must be run as root") {
			t.Errorf("%s: %s%s", command, out, errOut)
		}
	}
}

// TestSwitcher_brokenPipes has a server close its connection, which may be at the reload, and
// then the reader of the messages. Only the latter stops the change.
func TestSwitcher_brokenPipes(t *testing.T) {
	s := newFixture(t)
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)
	reader, writer := io.Pipe()
	reader.Close()
	w := &switcher{site: &site{}, dryRun: true, out: writer, errOut: writer}
	err := w.in(s.etc, func(s *switcher) error {
		syscall.Kill(os.Getpid(), syscall.SIGPIPE)
		<-pipe
		select {
		case <-s.interrupted:
			t.Error("interrupted by SIGPIPE")
		case <-time.After(50 * time.Millisecond):
		}
		s.say("something")
		select {
		case <-s.interrupted:
		case <-time.After(time.Minute):
			t.Error("not interrupted, though messages cannot be written")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
