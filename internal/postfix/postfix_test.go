// SPDX-License-Identifier: EPL-2.0

package postfix_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"scache/internal/postfix"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

func newInstance(t *testing.T, master string) (*postfixtest.Instance, *postfix.System) {
	t.Helper()
	postfixtest.NeedPostfix(t)
	i, err := postfixtest.NewInstance(postfixtest.Config{Master: master})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	s, err := postfix.Open(filepath.Join(i.Dir, "etc"))
	if err != nil {
		t.Fatal(err)
	}
	return i, s
}

// TestEntryAsPostconfHasIt compares what both make of options.
func TestEntryAsPostconfHasIt(t *testing.T) {
	t.Parallel()
	for _, entry := range []string{
		"scache unix - - y - 1 scache",
		"scache unix - - y - 1 scache -o a=b -o c=d -v",
		"scache unix - - y - 1\n  scache\n# x\n  -o a=b\n\t-o { c = d e }\n  -oe=f",
		"scache unix - - y - 1 scache { -v }",
		"scache unix - - y - 1 scache -o { a = { b } c }",
	} {
		_, s := newInstance(t, entry+"\n")
		e, err := s.Entry()
		if err != nil {
			t.Error(err)
		}
		out, err := exec.Command("postconf", "-c", s.Directory, "-P", "scache/unix").Output()
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for line := range strings.Lines(string(out)) {
			want = append(want, strings.Join(strings.Fields(strings.TrimPrefix(line, "scache/unix/")), ""))
		}
		var got []string
		for _, option := range e.Options() {
			got = append(got, strings.Join(strings.Fields(option), ""))
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, and postconf says %q", entry, got, want)
		}
	}
}

// TestRunning_stoppedPostfix although its pid file is there, with the pid of a
// process that is.
func TestRunning_stoppedPostfix(t *testing.T) {
	t.Parallel()
	i, s := newInstance(t, "")
	wantRunning := func(want bool) {
		t.Helper()
		if got, err := s.Running(); got != want || err != nil {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	wantRunning(false)
	pidFile := filepath.Join(i.Dir, "queue/pid/master.pid")
	if err := os.MkdirAll(filepath.Dir(pidFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pidFile, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantRunning(false)
	os.Remove(pidFile)
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	wantRunning(true)
	if err := s.Postfix(t.Context(), "stop"); err != nil {
		t.Fatal(err)
	}
	wantRunning(false)
}

func TestSystem_factsOfAnInstallation(t *testing.T) {
	t.Parallel()
	i, s := newInstance(t, "")
	if dir, err := s.DaemonDirectory(); dir != filepath.Join(i.Dir, "libexec") || err != nil {
		t.Errorf("%s, %v", dir, err)
	}
	if version, err := s.Version(); !version.Known() || err != nil {
		t.Errorf("%s, %v", version, err)
	}
	socket, err := s.Socket()
	if socket != filepath.Join(i.Dir, "queue/private/scache") || err != nil {
		t.Errorf("%s, %v", socket, err)
	}
	if owner, err := s.Owner(); owner != "postfix" || err != nil {
		t.Errorf("%s, %v", owner, err)
	}
	if err := s.Postfix(t.Context(), "check"); err != nil {
		t.Error(err)
	}
	err = s.Postfix(t.Context(), "nonsense")
	if err == nil || !strings.Contains(err.Error(), "postfix -c "+s.Directory+" nonsense: ") {
		t.Errorf("%v", err)
	}
	gone := filepath.Join(t.TempDir(), "gone")
	err = i.Configure(map[string]string{"multi_instance_directories": s.Directory + ", " + gone})
	if err != nil {
		t.Fatal(err)
	}
	s, err = postfix.Open(s.Directory)
	if err != nil {
		t.Fatal(err)
	}
	present, missing, err := s.Instances()
	if !slices.Equal(present, []string{s.Directory}) || !slices.Equal(missing, []string{gone}) ||
		err != nil {
		t.Errorf("%q, %q, %v", present, missing, err)
	}
}

// TestPostfix_canceled ends a command that hangs, and what that has started.
func TestPostfix_canceled(t *testing.T) {
	t.Parallel()
	i, s := newInstance(t, "")
	bin := filepath.Join(i.Dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nsleep 1000 &\necho $! >" + bin + "/pid\nwait\n"
	if err := testenv.WriteProgram(filepath.Join(bin, "postfix"), script); err != nil {
		t.Fatal(err)
	}
	if err := i.Configure(map[string]string{"command_directory": bin}); err != nil {
		t.Fatal(err)
	}
	s, err := postfix.Open(s.Directory)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { // it is cut when it has started the other process
		for ctx.Err() == nil {
			if pid, _ := os.ReadFile(filepath.Join(bin, "pid")); len(pid) > 0 {
				cancel()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	err = s.Postfix(ctx, "reload")
	if err == nil || !strings.Contains(err.Error(), "it did not end, and was killed") {
		t.Errorf("got %v", err)
	}
	pid, err := os.ReadFile(filepath.Join(bin, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a process of the command is left")
		}
	}
}

// TestPostfix_reasons has a command that fails with its reason on a terminal or in the log.
func TestPostfix_reasons(t *testing.T) {
	t.Parallel()
	i, s := newInstance(t, "")
	bin := filepath.Join(i.Dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := i.Configure(map[string]string{"command_directory": bin}); err != nil {
		t.Fatal(err)
	}
	s, err := postfix.Open(s.Directory)
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(i.Dir, "maillog")
	for script, want := range map[string]string{
		`test -t 2 && echo "fatal: on a terminal" >&2; exit 1`: "exit status 1\nfatal: on a terminal",
		`echo "postfix: info" >&2
echo "Nov 05 10:00:00 h postfix/postsuper[1]: fatal: in the log" >>` + log + `
exit 1`: "exit status 1\nfatal: in the log",
		`(sleep 20; echo late >&2) & exit 3`: "exit status 3",
	} {
		err := testenv.WriteProgram(filepath.Join(bin, "postfix"), "#!/bin/sh\n"+script+"\n")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(t.Context()); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: got %v", script, err)
		}
	}
}
