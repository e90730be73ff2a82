// SPDX-License-Identifier: EPL-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"scache/internal/mailsystem"
	"scache/internal/postfixtest"
)

// A site is a private Postfix with the stock cache, and ours beside it.
type site struct {
	*postfixtest.Instance
	t    *testing.T
	etc  string
	sent int

	throttled bool // is as it should be
}

const oldEntry = "scache unix - - y - 1 scache -o connection_cache_ttl_limit=1h -o { syslog_facility = mail }\n"

func newSite(t *testing.T) *site {
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
	s := &site{Instance: i, t: t, etc: filepath.Join(i.Dir, "etc")}
	s.install(server)
	return s
}

// install puts a binary where make install would.
func (s *site) install(binary string) {
	s.t.Helper()
	data, err := os.ReadFile(binary)
	if err == nil {
		path := filepath.Join(s.Dir, "libexec", mailsystem.OurName)
		os.Remove(path)
		err = os.WriteFile(path, data, 0o755)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// installForTrials installs a server that passes the trial, and does something else under
// master(8).
func (s *site) installForTrials(then string) {
	s.t.Helper()
	script := "#!/bin/sh\ncase $1 in --check | -S) exec " + server + " \"$@\" ;; *) " + then + " ;; esac\n"
	if err := os.WriteFile(filepath.Join(s.Dir, "libexec", mailsystem.OurName), []byte(script), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// send has mail delivered.
func (s *site) send() {
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

func (s *site) masterCF() string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.etc, "master.cf"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// postconf returns the entry and its options as Postfix reads them.
func (s *site) postconf() string {
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

func TestEnableAndDisable(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	before := s.postconf()

	s.send()
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
	out := must(t, "-c", s.etc, "enable", "--dry-run")
	want(t, out, "nothing was done", s.etc+"/master.cf: let the command of scache unix be "+mailsystem.OurName, "postfix -c "+s.etc+" reload")
	if s.postconf() != before {
		t.Fatal("a dry run has changed master.cf")
	}

	for range 2 { // twice is as good as once
		must(t, "-c", s.etc, "enable")
		if got, want := s.postconf(), strings.Replace(before, " 1 scache ", " 1 "+mailsystem.OurName+" ", 1); got != want {
			t.Errorf("master.cf: %s\nwant %s", got, want)
		}
	}
	want(t, must(t, "-c", s.etc, "enable"), "already enabled")
	s.send()
	want(t, must(t, "-c", s.etc, "status"), "ttl limit 1h")
	want(t, must(t, "-c", s.etc, "list"), `smtp\n[127.0.0.1]:`, `smtp\n127.0.0.1\n`, " sessions\n")
	want(t, must(t, "-c", s.etc, "config"), "master.cf -o")
	want(t, must(t, "-c", s.etc, "metrics"), "scache_sessions_saved_total")
	want(t, must(t, "-c", s.etc, "flush", "127.0.0.1"), "flushed ")
	want(t, must(t, "-c", s.etc, "save", "endpoint", "by hand", "--property", "a property"), "saved")
	want(t, must(t, "-c", s.etc, "save", "destination", "some domain", "by hand"), "saved")
	want(t, must(t, "-c", s.etc, "find", "destination", "some domain"), "endpoint property: a property\n", "character device")
	screen := newScreen(t, tool, "-c", s.etc, "top")
	screen.wait("scache test  pid ", "sessions ", "ENDPOINT")
	screen.tmux("send-keys", "q")
	screen.wait("ended with 0")
	if got := s.logged("flush: sessions="); got != 1 {
		t.Errorf("ours has logged %d flushes", got)
	}

	want(t, must(t, "-c", s.etc, "disable", "--dry-run"), "let the command of scache unix be scache\n", "nothing was done")
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
	reuses, foreign := len(s.Grep("status=sent", "conn_use=")), s.logged(`warning: unrecognized request: "status"`)
	if reuses < s.sent/2 || foreign < 2 {
		t.Errorf("%d of %d deliveries reuse a connection; stock was asked %d times", reuses, s.sent, foreign)
	}
	if got := s.logged("warning: ") - s.logged("warning: unrecognized request: ") + len(s.Grep("postfix/smtp[", "warning: ")); got > 0 {
		t.Errorf("%d warnings: %q", got, s.Grep("warning: "))
	}
}

// logged counts the lines of the cache server with this text.
func (s *site) logged(text string) int { return len(s.Grep("postfix/scache[", text)) }

// wantUntouched wants a system as it was, and mail delivered.
func (s *site) wantUntouched(before string) {
	s.t.Helper()
	if got := s.masterCF(); got != before {
		s.t.Errorf("master.cf: %s\nwant %s", got, before)
	}
	for _, left := range []string{"master.cf.scache-saved", "master.cf.scache-whole"} {
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

// TestEnableRollsBack has a server that passes the trial, and fails under master(8).
func TestEnableRollsBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	before := s.masterCF()
	s.installForTrials("exit 1")
	s.throttled = true
	wantError(t, []string{"-c", s.etc, "enable"}, "after the reload", "does not answer", "the old entry is back")
	s.wantUntouched(before)
}

// TestEnableIsInterrupted while the new server says nothing: by somebody, and by the end of
// whatever listens to it.
func TestEnableIsInterrupted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	before := s.masterCF()
	s.installForTrials("exec sleep 100")
	for _, by := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE} {
		cmd := exec.Command(tool, "-c", s.etc, "enable")
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var errOut strings.Builder
		cmd.Stderr = &errOut
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if by == syscall.SIGPIPE {
			stdout.Close()
		} else {
			eventually(t, "the entry is the new one", func() bool { return strings.Contains(s.masterCF(), mailsystem.OurName) })
			cmd.Process.Signal(by)
		}
		err = cmd.Wait()
		if err == nil || !strings.Contains(errOut.String(), "interrupted") || !strings.Contains(errOut.String(), "the old entry is back") {
			t.Errorf("%v: %v, %s", by, err, errOut.String())
		}
		s.wantUntouched(before)
	}
}

// TestEnableIsRefused has nothing touched where this server would not serve.
func TestEnableIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	edit := func(from, to string) (undo func()) {
		t.Helper()
		text := s.masterCF()
		s.edit("master.cf", from, to)
		return func() { s.write("master.cf", text) }
	}
	for to, texts := range map[string][]string{
		"- 10 scache":                  {"process limit of 1"},
		"- 1 scache -o max_idle=1x":    {`max_idle: "1x"`, "command line"},
		"- 1 scache -o nonsense":       {"option -o", "nonsense"},
		"- 1 scache --nonsense":        {"--nonsense"},
		"- - scache -o max_idle=${x}y": {"process limit of 1", "max_idle", `"y"`},
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
	for binary, text := range map[string]string{"/bin/true": "does not answer", "/bin/false": "does not run", "/etc/passwd": "exec format error"} {
		s.install(binary)
		wantError(t, []string{"-c", s.etc, "enable"}, text, "nothing was changed")
	}
	os.Chmod(filepath.Join(s.Dir, "libexec", mailsystem.OurName), 0o644)
	wantError(t, []string{"-c", s.etc, "enable"}, "permission denied", "nothing was changed")
	os.Remove(filepath.Join(s.Dir, "libexec", mailsystem.OurName))
	wantError(t, []string{"-c", s.etc, "enable"}, "no such file", "make install")
	s.wantUntouched(before)
}

func TestEnableWhilePostfixIsStopped(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	want(t, must(t, "-c", s.etc, "enable"), "not running")
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	s.send()
	want(t, must(t, "-c", s.etc, "status"), "scache test")
}

// TestEnableGoesOnAfterAnInterruption has master.cf changed, and Postfix not told.
func TestEnableGoesOnAfterAnInterruption(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
	s.edit("master.cf", " 1 scache ", " 1 "+mailsystem.OurName+" ")
	want(t, must(t, "-c", s.etc, "enable"), "reload", "already enabled")
	want(t, must(t, "-c", s.etc, "status"), "scache test")
	s.edit("master.cf", " 1 "+mailsystem.OurName+" ", " 1 scache ")
	want(t, must(t, "-c", s.etc, "disable"), "reload", "not enabled")
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
}

func TestDisableAll(t *testing.T) {
	t.Parallel()
	first, second := newSite(t), newSite(t)
	if err := first.Configure(map[string]string{"multi_instance_directories": second.etc}); err != nil {
		t.Fatal(err)
	}
	want(t, must(t, "-c", first.etc, "enable", "--all"), "enabled in "+first.etc, "enabled in "+second.etc)
	want(t, must(t, "-c", first.etc, "disable", "--all"), "disabled in "+first.etc, "disabled in "+second.etc)
	for _, s := range []*site{first, second} {
		if strings.Contains(s.masterCF(), mailsystem.OurName) {
			t.Errorf("%s is not disabled", s.etc)
		}
	}
	want(t, must(t, "-c", t.TempDir(), "disable", "--all"), "no mail system")
	wantError(t, []string{"-c", t.TempDir(), "enable", "--all"}, "main.cf", "option -c")
	wantError(t, []string{"--socket", "/x", "disable"}, "--socket")
}

// TestEnableOfAnotherCopy has the entry name one that is not the one installed.
func TestEnableOfAnotherCopy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.postconf()
	must(t, "-c", s.etc, "enable")
	s.edit("master.cf", " "+mailsystem.OurName+" ", " ../old/"+mailsystem.OurName+" ")
	want(t, must(t, "-c", s.etc, "enable"), "enabled")
	if got := s.postconf(); !strings.Contains(got, " 1 "+mailsystem.OurName+" ") {
		t.Error(got)
	}
	must(t, "-c", s.etc, "disable")
	if got := s.postconf(); got != before {
		t.Errorf("after disable: %s", got)
	}
}

// TestDisableWhilePostfixCannotReload has a main.cf that only Postfix minds.
func TestDisableWhilePostfixCannotReload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	before := s.postconf()
	must(t, "-c", s.etc, "enable")
	if err := s.Configure(map[string]string{"inet_protocols": "none at all"}); err != nil {
		t.Fatal(err)
	}
	wantError(t, []string{"-c", s.etc, "disable"}, "reload: exit status", "Postfix does not use it")
	must(t, "-c", s.etc, "status")
	if err := s.Configure(map[string]string{"inet_protocols": "ipv4"}); err != nil {
		t.Fatal(err)
	}
	want(t, must(t, "-c", s.etc, "disable"), "reload", "not enabled")
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
	if got := s.postconf(); got != before {
		t.Errorf("master.cf: %s", got)
	}
}

func TestEnableWithoutAnEntry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("master.cf", strings.ReplaceAll(s.masterCF(), oldEntry, ""))
	wantError(t, []string{"-c", s.etc, "enable"}, "no entry", "scache unix")
	want(t, must(t, "-c", s.etc, "disable"), "not enabled")
}

// throttle has master(8) start a server that fails, and wait for a minute then.
func (s *site) throttle() {
	s.t.Helper()
	eventually(s.t, "master waits", func() bool {
		conn, err := net.Dial("unix", filepath.Join(s.Dir, "queue/private/scache"))
		if err == nil {
			conn.Close()
		}
		return len(s.Grep("bad command startup -- throttling")) > 0
	})
}

// TestDisableWhileOurServerFails has master(8) wait for a minute after a server that
// does not even start.
func TestDisableWhileOurServerFails(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
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
	want(t, out, "made to forget", "disabled")
	if strings.Contains(out, "warning") {
		t.Errorf("after %v: %s", time.Since(start), out)
	}
	wantError(t, []string{"-c", s.etc, "status"}, "stock scache")
	if got := s.postconf(); got != before {
		t.Errorf("master.cf: %s\nwant %s", got, before)
	}
	if got, want := len(strings.Split(s.masterCF(), "\n")), len(strings.Split(text, "\n")); got != want {
		t.Errorf("master.cf has %d lines instead of %d", got, want)
	}
	if _, err := os.Stat(filepath.Join(s.etc, "master.cf.scache-whole")); !os.IsNotExist(err) {
		t.Errorf("a copy of master.cf is left: %v", err)
	}
	s.send()
}

// TestAnInterruptedCallIsPutRight finds master.cf without the entry.
func TestAnInterruptedCallIsPutRight(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	before := s.masterCF()
	for name, text := range map[string]string{"master.cf.scache-whole": before, "master.cf": strings.Replace(before, oldEntry, "", 1)} {
		s.write(name, text)
	}
	if s.postconf() != "" {
		t.Fatal("there is still an entry")
	}
	want(t, must(t, "-c", s.etc, "disable"), "not enabled")
	if got := s.masterCF(); got != before {
		t.Errorf("master.cf: %q\nwant %q", got, before)
	}
}

func TestDisableAllGoesOnWithoutAnInstance(t *testing.T) {
	t.Parallel()
	first := newSite(t)
	gone := filepath.Join(t.TempDir(), "gone")
	must(t, "-c", first.etc, "enable")
	if err := first.Configure(map[string]string{"multi_instance_directories": gone}); err != nil {
		t.Fatal(err)
	}
	must(t, "-c", first.etc, "enable")
	want(t, must(t, "-c", first.etc, "disable", "--all"), "disabled in "+first.etc, "warning: "+gone)
}

func TestEnableTakesRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, command := range []string{"enable", "disable"} {
		cmd := exec.Command(tool, "-c", s.etc, command)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, errOut, ok := run(cmd); ok || !strings.Contains(errOut, "takes root") {
			t.Errorf("%s: %s%s", command, out, errOut)
		}
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	wantError(t, []string{"-c", s.etc, "restart"}, "stock scache")
	must(t, "-c", s.etc, "enable")
	s.send()
	want(t, must(t, "-c", s.etc, "restart"), "restarted: scache test, pid ", "instead of test, pid ")
	s.send()
	if lines := s.Grep("postfix/scache[", "takeover: "); len(lines) != 1 || !strings.HasSuffix(lines[0], " lost=0") {
		t.Errorf("%q", lines)
	}
	if lines := s.Grep("problem talking to service private/scache"); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
}

func TestRestartAll(t *testing.T) {
	t.Parallel()
	first, second, third := newSite(t), newSite(t), newSite(t)
	if err := first.Configure(map[string]string{"multi_instance_directories": second.etc + ", " + third.etc}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*site{first, second} { // the third one does not run
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "-c", second.etc, "enable")
	if out := must(t, "-c", first.etc, "restart", "--all"); strings.Count(out, "restarted: ") != 1 {
		t.Error(out)
	}
	want(t, must(t, "-c", t.TempDir(), "restart", "--all"), "no mail system")
	wantError(t, []string{"--socket", "/x", "restart", "--all"}, "--socket")

	second.install("/bin/false")
	for _, command := range [][]string{{"-c", second.etc, "restart"}, {"-c", first.etc, "restart", "--all"}} {
		wantError(t, command, "does not run", "nothing was done")
	}
	want(t, must(t, "-c", second.etc, "status"), "scache test")
}

// TestThePathOfCron has none of the directories of Postfix's commands.
func TestThePathOfCron(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	cmd := exec.Command(tool, "-c", s.etc, "config")
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	if _, errOut, ok := run(cmd); !ok {
		t.Error(errOut)
	}
}

// TestPostfixWithoutNoise has a parameter that postconf does not know, and then an entry
// that refers to it, as the manual page says.
func TestPostfixWithoutNoise(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.Configure(map[string]string{"connection_cache_goodbye": "QUIT", "connection_cache_endpoint_limits": "192.0.2.0/24=2/5s"}); err != nil {
		t.Fatal(err)
	}
	must(t, "-c", s.etc, "enable")
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	noise := func() int {
		t.Helper()
		all := 0
		for _, command := range []string{"check", "reload"} {
			out, err := exec.Command("postfix", "-c", s.etc, command).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			all += strings.Count(string(out), "unused parameter")
		}
		return all
	}
	if n := noise(); n < 2 {
		t.Errorf("postconf has nothing to say of unknown parameters: %d", n)
	}
	s.edit("master.cf", "-o connection_cache_ttl_limit=1h", "-o connection_cache_ttl_limit=1h -o { lmtp_lhlo_name = $connection_cache_goodbye $connection_cache_endpoint_limits }")
	if n := noise(); n > 0 {
		t.Errorf("%d times: unused parameter", n)
	}
	s.send()
	want(t, must(t, "-c", s.etc, "status"), "goodbye on")
}
