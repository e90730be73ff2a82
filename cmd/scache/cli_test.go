// SPDX-License-Identifier: EPL-2.0

// Tests of the command as a person uses it, without Postfix. Most of them are
// the scripts in testdata; see testscript for their language.

package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// TestCommandLine is not parallel to other tests: its scripts would begin late, and the time
// that they have begins now.
func TestCommandLine(t *testing.T) {
	testenv.SkipShort(t)
	testscript.Run(t, testscript.Params{
		Dir:      "testdata",
		Deadline: time.Now().Add(2 * longWait), // for a server that should have refused to start
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(binary)+":"+env.Getenv("PATH"))
			env.Setenv("GOCOVERDIR", os.Getenv("GOCOVERDIR"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serving":   serving,
			"terminate": terminateBackground,
			"stale":     stale,
		},
	})
}

// serving SOCKET... waits until each of these is served.
func serving(ts *testscript.TestScript, neg bool, sockets []string) {
	for _, path := range sockets {
		ts.Check(waitForServer(ts.MkAbs(path)))
	}
}

// waitForServer waits until a server answers at a socket.
func waitForServer(path string) error {
	for end := time.Now().Add(longWait); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			defer conn.Close()
			conn.SetDeadline(end)
			c, err := postfixtest.NewClient(fdpass.New(conn), true)
			if err == nil {
				_, err = c.FindEndpoint("never saved")
			}
			return err
		}
		if time.Now().After(end) {
			return err
		}
	}
}

// terminateBackground sends SIGTERM to the commands in the background.
func terminateBackground(ts *testscript.TestScript, neg bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(unix.SIGTERM))
	}
}

// stale SOCKET makes a socket as a process leaves it that was killed. Until it is closed, this
// process starts no children: one of them would listen until it executes its own program.
func stale(ts *testscript.TestScript, neg bool, args []string) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.MkAbs(args[0]), Net: "unix"})
	ts.Check(err)
	l.SetUnlinkOnClose(false)
	ts.Check(l.Close())
}

// TestLog_outlivesItsReader has standard error in a pipe to a reader that
// has left.
func TestLog_outlivesItsReader(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	path := filepath.Join(t.TempDir(), "socket")
	cmd := postfixtest.Command(binary, "--listen", path)
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() { cmd.Process.Kill() })
	if err := waitForServer(path); err != nil {
		t.Fatal(err)
	}
	c := talk(t, connect(t, path), true)
	complainAbout(t, c, 100)
	wantAnswer(t, c)
	cmd.Process.Signal(unix.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// TestListen_withoutRoot is a user who tries the program.
func TestListen_withoutRoot(t *testing.T) {
	t.Parallel()
	postfixtest.NeedPostfix(t) // for root, who can become another user
	const other = 65534
	dir, err := os.MkdirTemp("", "scache-user-") // t.TempDir is for its owner only
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, other, other); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	path := filepath.Join(dir, "socket")
	cmd := postfixtest.Command(binary, "--listen", path)
	cmd.Env, cmd.Stderr = []string{}, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	if err := waitForServer(path); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Uid != other || st.Mode != unix.S_IFSOCK|0o600 {
		t.Errorf("the socket belongs to user %d and has mode %o, %v", st.Uid, st.Mode, err)
	}
	cmd.Process.Signal(unix.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	if !strings.Contains(stderr.String(), "statistics: address lookup hits=0 miss=1 success=0%\n") {
		t.Errorf("logged %q", stderr.String())
	}
}
