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

// A screen is a terminal of 80 columns and 24 rows, played by tmux.
type screen struct {
	t      *testing.T
	socket string
}

func newScreen(t *testing.T, command ...string) *screen {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: this test needs tmux: %v", err)
	}
	s := &screen{t, filepath.Join(t.TempDir(), "tmux")}
	shell := strings.Join(command, " ") + "; echo ended with $?; sleep 60"
	s.tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", shell)
	t.Cleanup(func() { s.tmux("kill-server") })
	return s
}

func (s *screen) tmux(args ...string) string {
	s.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-S", s.socket}, args...)...)
	cmd.Env = append(os.Environ(), "TERM=xterm")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Errorf("tmux %s: %v: %s", args, err, out)
	}
	return string(out)
}

func (s *screen) text() string { return s.tmux("capture-pane", "-p") }

// wait waits until all texts are on the screen.
func (s *screen) wait(texts ...string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%q on the screen: %s", texts, s.text()), func() bool {
		now := s.text()
		for _, text := range texts {
			if !strings.Contains(now, text) {
				return false
			}
		}
		return true
	})
}

func TestTop(t *testing.T) {
	t.Parallel()
	m := startServer(t, server)
	remote := saveConnection(t, m.Socket)
	for i := range 30 { // more than fit
		must(t, "--socket", m.Socket, "save", "endpoint", fmt.Sprintf(`smtp\nhost%02d with a name that is much too long for a screen of eighty columns\n25\n`, i), "--ttl", "1000")
	}
	s := newScreen(t, tool, "--socket", m.Socket, "top")
	s.wait("scache test  pid ", "sessions     31", "endpoints    31", "destinations     1", `smtp\nhost10 with`, "SESSIONS")
	lines := strings.Split(strings.TrimRight(s.text(), "\n"), "\n")
	if len(lines) != 24 || !strings.HasPrefix(lines[0], "scache test") {
		t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	must(t, "--socket", m.Socket, "flush", "--all")
	saveConnection(t, m.Socket)
	s.wait("sessions      1", "peak     31", `smtp\n192.0.2.1\n25\n0\n  127.0.0.1:`)
	if strings.Contains(s.text(), remote) {
		t.Error("a session that was flushed is still shown")
	}
	m.Cmd.Process.Kill()
	m.Wait()
	s.wait("waiting for the server")
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	s.wait("scache test  pid ", "sessions      0")
	s.tmux("send-keys", "q")
	s.wait("ended with 0")
}

func TestTopWantsATerminal(t *testing.T) {
	t.Parallel()
	wantError(t, []string{"top"}, "wants a terminal")
}

func TestTopOfStock(t *testing.T) {
	t.Parallel()
	m := startServer(t, postfixtest.NeedPostfix(t))
	s := newScreen(t, tool, "--socket", m.Socket, "top")
	s.wait("stock scache", "ended with 1")
}
