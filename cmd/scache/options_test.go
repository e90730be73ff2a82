// SPDX-License-Identifier: EPL-2.0

// Tests of what the daemon does for single options and parameters.

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// wantAnnounced checks whether the daemon speaks first, and what it logs before.
func wantAnnounced(t *testing.T, m *postfixtest.Master, announced bool, warnings ...string) {
	t.Helper()
	conn := connect(t, m.Socket)
	start(t, m)
	wantAnswer(t, talk(t, conn, announced)) // takes an announcement for an answer
	if err := m.HangUp(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	wantLog(t, m, append(warnings, missed...)...)
}

// unknownVersion is what the daemon says if it has to guess.
const unknownVersion = `warning: the version of Postfix is unknown, and taken for 3.6 or later: ` +
	`.*; set connection_cache_announce_protocol to yes, or to no for Postfix before 3.6`

func TestAnnouncement_byParameter(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for value, announced := range map[string]bool{"yes": true, "no": false} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			wantAnnounced(t, newMaster(t, "", "-o", "connection_cache_announce_protocol="+value), announced)
		})
	}
}

func TestAnnouncement_byVersionOfPostfix(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for script, announced := range map[string]bool{
		"echo 3.5.25":       false,
		"echo 2.11.3":       false,
		"echo 3.0.0":        false,
		"echo 3.5-20200202": false,
		"echo 3.6.0":        true,
		"echo 3.6-20200725": true,
		"echo 3.10.1":       true,
		"echo 3.12.0":       true,
		"echo 4.0.0":        true,
		`test "$*" = "-dh mail_version" && echo 3.5.1`: false,
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			wantAnnounced(t, newMaster(t, "command_directory = "+fakePostconf(t, script)), announced)
		})
	}
}

func TestAnnouncement_byUnknownVersionOfPostfix(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for _, script := range []string{
		"echo garbage",
		"echo",
		"exit 1",
		"kill -9 $$",
		"exec sleep 90", // what hangs is given two seconds
		hangInChild,     // and little more if it has started others
	} {
		t.Run(script, func(t *testing.T) {
			t.Parallel()
			wantAnnounced(t, newMaster(t, "command_directory = "+fakePostconf(t, script)), true,
				unknownVersion)
		})
	}
	t.Run("no postconf", func(t *testing.T) {
		t.Parallel()
		wantAnnounced(t, newMaster(t, "command_directory = "+t.TempDir()), true, unknownVersion)
	})
}

// TestAnnouncement_doesNotDelayReload reloads while postconf hangs: the state is received before
// the version of Postfix is known.
func TestAnnouncement_doesNotDelayReload(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	hold := filepath.Join(t.TempDir(), "hold")
	directory := fakePostconf(t, fmt.Sprintf("test -e '%s' && exec sleep 90; echo 3.6.0", hold))
	m := newMaster(t, "command_directory = "+directory)
	c := startWithClient(t, m)
	wantAnswer(t, c)
	if err := os.WriteFile(hold, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.HangUp(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	start(t, m)
	wantAnswer(t, c)
	wantAnswer(t, talk(t, connect(t, m.Socket), true))
	const version = "the version of Postfix is unknown"
	m.WaitForText(version)
	texts := m.Texts()
	unknown := func(text string) bool { return strings.Contains(text, version) }
	received := func(text string) bool { return strings.HasPrefix(text, "takeover: ") }
	if r, u := slices.IndexFunc(texts, received), slices.IndexFunc(texts, unknown); r < 0 || u < r {
		t.Errorf("got\n%s\nwant the state before the version", strings.Join(texts, "\n"))
	}
}

// TestAnnouncement_firstClientComesLate, after a reload and more than two seconds: postconf
// answered in time.
func TestAnnouncement_firstClientComesLate(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for n := range 8 {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, "command_directory = "+fakePostconf(t, "echo 3.5.25"))
			conn := connect(t, m.Socket)
			start(t, m)
			c := talk(t, conn, false)
			wantAnswer(t, c)
			replace(t, m)
			wantAnswer(t, c)
			time.Sleep(answerTimeout + answerTimeout/10)
			wantAnswer(t, talk(t, connect(t, m.Socket), false))
			wantNoWarnings(t, m)
		})
	}
}

// hangInChild hangs, and has a child that holds its standard output.
const hangInChild = `sleep 90 & echo $! > "$0.pid"; wait; echo 2.0`

// fakePostconf returns a command directory with a postconf that is a shell
// script. It is named as in main.cf, where a dollar sign is written twice.
func fakePostconf(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	err := testenv.WriteProgram(filepath.Join(dir, "postconf"), "#!/bin/sh\n"+script+"\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		data, _ := os.ReadFile(filepath.Join(dir, "postconf.pid"))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
			unix.Kill(pid, unix.SIGKILL)
		}
	})
	return strings.ReplaceAll(dir, "$", "$$")
}

// TestPostconf_thatHangsBehindTheJail: the daemon has lost the right to kill it
// when it has waited long enough.
func TestPostconf_thatHangsBehindTheJail(t *testing.T) {
	t.Parallel()
	postfixtest.NeedPostfix(t)
	m := newMaster(t, "command_directory = "+fakePostconf(t, "exec sleep 90"), "-c", "-u")
	wantAnnounced(t, m, true, unknownVersion)
}

// TestPostconf_askedForUnknownSyntax has a Postfix whose main.cf knows more than this
// version of the daemon.
func TestPostconf_askedForUnknownSyntax(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const setting = "max_idle = ${seconds{3 minutes}}\ncommand_directory = "
	m := newMaster(t, setting+fakePostconf(t, `case "$*" in *-dh*) echo 3.99;; *) echo 180s;; esac`))
	startWithClient(t, m)
	if err := m.HangUp(); err != nil {
		t.Error(err)
	}
	wantLog(t, m, `parameter max_idle: unknown function: "seconds" \(.*main.cf, line \d+\); `+
		`the value "180s" is what postconf says`)

	m = newMaster(t,
		setting+fakePostconf(t, `echo "postconf: fatal: macro processing error" >&2; exit 1`))
	start(t, m)
	if err := m.Wait(); err == nil {
		t.Error("the daemon serves with a value that is not valid")
	}
	m.DrainLog()
	const fatal = `fatal: parameter max_idle: unknown function: "seconds" \(.*\); ` +
		`nor does postconf know: .*macro processing error`
	if log := strings.Join(m.Log(), "\n"); !regexp.MustCompile(fatal).MatchString(log) {
		t.Errorf("logged:\n%s", log)
	}
}

// TestCommands_getNoSockets: a command that stays, such as a debugger, would
// hide the end of the daemon from master, and take clients from its successor.
func TestCommands_getNoSockets(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	out := t.TempDir()
	script := "ls -l /proc/self/fd > " + out
	m := newMaster(t, "command_directory = "+fakePostconf(t, script+"/postconf")+
		"\ndebugger_command = "+script+"/debugger", "-D")
	wantAnswer(t, startWithClient(t, m))
	for _, name := range []string{"postconf", "debugger"} {
		fds, err := os.ReadFile(filepath.Join(out, name))
		if err != nil || strings.Contains(string(fds), "socket:") {
			t.Errorf("%s has descriptors: %v\n%s", name, err, fds)
		}
	}
}

func TestDebugger_command(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for name, options := range map[string][]string{"-D": {"-D"}, "no -D": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := filepath.Join(t.TempDir(), "out")
			// The shell's own process ID tells that it is the shell's work.
			m := newMaster(t,
				"debugger_command = PATH=/bin:/usr/bin; echo $process_name $process_id $$PPID > "+out,
				options...)
			wantAnswer(t, startWithClient(t, m))
			pid := m.Cmd.Process.Pid
			want := ""
			if options != nil {
				want = fmt.Sprintf("scache %d %d\n", pid, pid)
			}
			if got, _ := os.ReadFile(out); string(got) != want {
				t.Errorf("debugger_command wrote %q, want %q", got, want)
			}
		})
	}
}

// TestDebugger_andVerboseByEnvironment has what master gives if it was started
// with -v or -D itself.
func TestDebugger_andVerboseByEnvironment(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "debugger_command = exit 7")
	m.Env = append(m.Env, "MAIL_VERBOSE=1", "MAIL_DEBUG=1")
	wantAnswer(t, startWithClient(t, m))
	if err := m.HangUp(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	m.DrainLog()
	for _, text := range []string{"find_endp", "warning: debugger_command"} {
		if !strings.Contains(strings.Join(m.Texts(), "\n"), text) {
			t.Errorf("logged %q, without %q", m.Log(), text)
		}
	}
}

func TestDebugger_failureIsNoReasonToEnd(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "debugger_command = exit 7", "-D")
	wantAnswer(t, startWithClient(t, m))
	if !m.WaitForText("warning: debugger_command") {
		t.Errorf("logged %q", m.Log())
	}
}

func TestVerbose_logsRequests(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for name, options := range map[string][]string{"": nil, "-v": {"-v"}, "-v -v": {"-v", "-v"},
		"-vv": {"-vv"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, "", options...)
			wantAnswer(t, startWithClient(t, m))
			if err := m.HangUp(); err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
			m.DrainLog()
			verbose := slices.ContainsFunc(m.Texts(),
				func(s string) bool { return strings.Contains(s, "find_endp") })
			if verbose != (options != nil) {
				t.Errorf("logged %q", m.Log())
			}
		})
	}
}

// TestVerbose_standardErrorToo compares the two logs.
func TestVerbose_standardErrorToo(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "", "-V")
	c := startWithClient(t, m)
	wantAnswer(t, c)
	raw(list("request", "nonsense"), nil)(t, c)
	if err := m.HangUp(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	m.DrainLog()
	var logged, printed []string
	for _, line := range m.Log() {
		if text, found := strings.CutPrefix(line, "stderr: "); found {
			printed = append(printed, text)
		} else {
			_, text, _ := strings.Cut(line, " test ")
			logged = append(logged, text)
		}
	}
	if !slices.Equal(logged, printed) || len(logged) != 3 {
		t.Errorf("logged %q\nprinted %q", logged, printed)
	}
}

// TestListen_severalSockets gives the daemon two listening sockets, as master does with
// an inet service of a host with two addresses.
func TestListen_severalSockets(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	x, y := testenv.ConnPair(t)
	master, status := fdpass.New(x), fdpass.New(y)
	files := []*os.File{null, null, file(t, status)}
	var sockets []string
	for i := range 2 {
		path := filepath.Join(t.TempDir(), fmt.Sprint(i))
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		sockets, files = append(sockets, path), append(files, file(t, l))
	}
	cmd := postfixtest.Command(binary, append(m.Args, "-s", "2")...)
	cmd.Env, cmd.ExtraFiles = m.Env, files
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	status.Close()
	files[2].Close()
	for range 2 {
		for _, path := range sockets {
			wantAnswer(t, talk(t, connect(t, path), true))
		}
	}
	master.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// file returns a descriptor of a socket that can be given to a process.
func file(t *testing.T, socket interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// standAlone starts the daemon with one client on its standard input.
func standAlone(t *testing.T, m *postfixtest.Master) (*exec.Cmd, *client.Client) {
	t.Helper()
	x, y := testenv.ConnPair(t)
	theirs, ours := fdpass.New(x), fdpass.New(y)
	stdin := file(t, theirs)
	theirs.Close()
	defer stdin.Close()
	cmd := postfixtest.Command(binary, "-S")
	cmd.Env, cmd.Stdin = m.Env, stdin
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, talk(t, ours.UnixConn, true)
}

func TestStandAlone(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "max_idle = 1")
	cmd, c := standAlone(t, m)
	fd := testenv.NewDescriptor(t)
	if status, err := c.SaveEndpoint(100, "e", "p", fd); err != nil || status != client.OK {
		t.Fatal(status, err)
	}
	f, err := c.FindEndpoint("e")
	if err != nil || f.Code != client.OK || f.Property != "p" {
		t.Fatal(f, err)
	}
	if want := inode(t, fd); inode(t, f.FD) != want {
		t.Error("got another descriptor than was saved")
	}
	c.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	m.DrainLog()
	want := fmt.Sprintf("scache[%d]: statistics: address lookup hits=1 miss=0 success=100%%",
		cmd.Process.Pid)
	if lines := strings.Join(m.Log(), "\n"); !strings.Contains(lines, want) {
		t.Errorf("logged %s\nwant %s", lines, want)
	}
}

func TestStandAlone_wantsASocket(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	pipe := os.NewFile(uintptr(p[0]), "pipe")
	defer pipe.Close()
	for name, stdin := range map[string]*os.File{"/dev/null": nil, "a pipe": pipe} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t, "")
			cmd := postfixtest.Command(binary, "-S")
			cmd.Env = m.Env
			if stdin != nil {
				cmd.Stdin = stdin
			}
			wantFatal(t, m, cmd.Run(), "-S", "standard input")
		})
	}
}
