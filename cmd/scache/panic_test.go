// SPDX-License-Identifier: EPL-2.0

// Tests of a daemon with a bug. The daemon is this test binary, which the test master starts
// with a variable in the environment.

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/master"
	"scache/internal/postfixtest"
	"scache/internal/server"
	"scache/internal/testenv"
)

const panicsVariable = "SCACHE_TEST_PANICS"

// runWithBug is main with a cache that panics when it looks at a session that is a regular
// file.
func runWithBug() {
	p, err := master.Start(os.Args, os.Getenv)
	if err == nil {
		defer p.Log.ExitOnPanic()
		err = run(p, func(fd int) bool {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
				panic("a bug")
			}
			return server.Alive(fd)
		})
	}
	if err != nil {
		p.Fatal(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// startWithBug starts a daemon whose clients meet the bug at the endpoint "bug".
func startWithBug(t *testing.T) (m *postfixtest.Master, c *client.Client) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m = newMaster(t, "connection_cache_ttl_limit=1h\nmax_idle=1h")
	m.Binary = self
	m.Env = append(m.Env, panicsVariable+"=1")
	start(t, m)
	c = dial(t, m)
	saveBug(t, c)
	return m, c
}

// saveBug saves a session at the endpoint "bug" that the daemon must not look at.
func saveBug(t *testing.T, c *client.Client) {
	t.Helper()
	bug, err := unix.MemfdCreate("bug", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(bug)
	if status, err := c.SaveEndpoint(3600, "bug", "", bug); err != nil || status != client.OK {
		t.Fatal(status, err)
	}
}

// TestPanic_withoutMaster has a client meet a bug where no process would take over: it is cut
// off, and others are served.
func TestPanic_withoutMaster(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "socket")
	cmd := postfixtest.Command(self, "--listen", path)
	cmd.Env = append(os.Environ(), panicsVariable+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	if err := waitForServer(path); err != nil {
		t.Fatal(err)
	}
	other := talk(t, connect(t, path), true)
	victim := talk(t, connect(t, path), true)
	saveBug(t, victim)
	if f, err := victim.FindEndpoint("bug"); harmOf(err) != "cut off" {
		t.Errorf("the client that met the bug got %+v, %v, want to be cut off", f, err)
	}
	wantAnswer(t, other)
	cmd.Process.Signal(unix.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// TestPanic_endsOneConversation has a client meet a bug: it is cut off. All others, and the
// sessions, are served by the next process.
func TestPanic_endsOneConversation(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const clients, sessions = 20, 50
	m, victim := startWithBug(t)
	var others []*client.Client
	for range clients {
		others = append(others, dial(t, m))
	}
	var all []saved
	for i := range sessions {
		all = append(all, saveSession(t, others[i%clients], 3600, fmt.Sprint("e", i), "p"))
	}
	half := dial(t, m)
	half.Conn.Write([]byte("request\x00find_endp\x00la"))
	waitUntilRead(t, half)
	testenv.Eventually(t, "the process is old enough", func() bool {
		s, err := others[0].Status()
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(s.Uptime) > 10*time.Second
	})
	if f, err := victim.FindEndpoint("bug"); harmOf(err) != "cut off" {
		t.Errorf("the client that met the bug got %+v, %v, want to be cut off", f, err)
	}
	if err := m.Wait(); err != nil {
		t.Errorf("the process has ended with %v", err)
	}
	if err := m.StartWhenNeeded(longWait); err != nil {
		t.Fatalf("%v\n%q", err, m.Log())
	}
	for i, s := range all {
		s.want(t, others[i%clients])
	}
	half.Conn.Write([]byte("bel\x00miss\x00\x00"))
	wantBytes(t, half, list("status", "2", "property", ""))
	want := fmt.Sprintf("takeover: sessions=%d bindings=0 clients=%d lost=0", sessions, clients+1)
	if !m.WaitForText(want) {
		t.Errorf("got %q, want %q", m.Texts(), want)
	}
	texts := strings.Join(m.Texts(), "\n")
	logged := strings.Contains(texts, "panic: at main.runWithBug") ||
		strings.Contains(texts, "panic: at scache/cmd/scache.runWithBug")
	if strings.Count(texts, "panic: a bug") != 1 || !logged {
		t.Errorf("got %q, want one panic with its stack", m.Texts())
	}
}

// TestPanic_soonAfterTheStart ends the process, which hands over nothing: what it was given may
// be the reason.
func TestPanic_soonAfterTheStart(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m, victim := startWithBug(t)
	other := dial(t, m)
	saveSession(t, other, 3600, "e", "p")
	if f, err := victim.FindEndpoint("bug"); harmOf(err) != "cut off" {
		t.Errorf("got %+v, %v, want to be cut off", f, err)
	}
	var exit *exec.ExitError
	if err := m.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("the process has ended with %v, want status 2", err)
	}
	if err := m.StartWhenNeeded(100 * time.Millisecond); err == nil {
		t.Error("it has handed over something")
	}
	if err := miss(other); harmOf(err) != "cut off" {
		t.Errorf("another client got %v, want to be cut off", err)
	}
	if !m.WaitForText("panic: a bug") {
		t.Errorf("got %q", m.Texts())
	}
}
