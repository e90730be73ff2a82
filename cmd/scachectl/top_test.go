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
	"scache/internal/testenv"
)

// A screen is a terminal, emulated by tmux: by default of 80 columns and 24 rows.
type screen struct {
	t      *testing.T
	socket string
}

func newScreen(t *testing.T, command ...string) *screen {
	t.Helper()
	return newScreenOf(t, 80, 24, command...)
}

func newScreenOf(t *testing.T, width, height int, command ...string) *screen {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: this test needs tmux: %v", err)
	}
	s := &screen{t, filepath.Join(t.TempDir(), "tmux")}
	shell := strings.Join(command, " ") + "; echo ended with $?; sleep 60"
	s.tmux("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height),
		shell)
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

// waitFor waits until the lines of the screen are right: it may be half drawn when it is
// looked at.
func (s *screen) waitFor(what string, right func(lines []string) bool) {
	s.t.Helper()
	testenv.Eventually(s.t, what, func() bool {
		return right(strings.Split(strings.TrimRight(s.text(), "\n"),
			"\n"))
	})
}

// wait waits until all texts are on the screen.
func (s *screen) wait(texts ...string) {
	s.t.Helper()
	testenv.Eventually(s.t, fmt.Sprintf("%q on the screen: %s", texts, s.text()), func() bool {
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
	testenv.SkipShort(t)
	t.Parallel()
	m := startServer(t, server)
	remote := saveConnection(t, m.Socket)
	const long = `smtp\nhost%02d with a name that is much too long for a screen of ` +
		`eighty columns\n25\n`
	for i := range 30 { // more than fit
		must(t, "--socket", m.Socket, "debug", "save", "endpoint", fmt.Sprintf(long, i),
			"--ttl", "1000")
	}
	s := newScreen(t, tool, "--socket", m.Socket, "top")
	s.wait("scache test  pid ", "sessions     31", "endpoints    31", "destinations     1",
		"smtp host10 with", "SESSIONS")
	s.waitFor("a full screen", func(lines []string) bool {
		return len(lines) == 24 && strings.HasPrefix(lines[0], "scache test") && lines[23] == "… 16 more"
	})
	must(t, "--socket", m.Socket, "flush", "--all")
	saveConnection(t, m.Socket)
	s.wait("sessions      1", "peak         31", "smtp 192.0.2.1  127.0.0.1:")
	s.waitFor("the flushed session is gone",
		func(lines []string) bool { return !strings.Contains(strings.Join(lines, "\n"), remote) })
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

func TestTop_sorts(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startServer(t, server)
	for label, ttl := range map[string]string{"short": "100", "long": "1000"} {
		must(t, "--socket", m.Socket, "debug", "save", "endpoint", label, "--ttl", ttl)
	}
	must(t, "--socket", m.Socket, "debug", "save", "endpoint", "short", "--ttl", "100")
	s := newScreen(t, tool, "--socket", m.Socket, "top", "--sort", "left")
	s.wait("s sorts: left, h misses, r receivers, l labels, + - every 1s")
	wantFirst := func(label string) {
		t.Helper()
		s.waitFor(label+" comes first", func(lines []string) bool {
			return len(lines) > 8 && strings.Contains(lines[8], "  "+label+" ")
		})
	}
	wantFirst("long")
	for _, want := range []string{"label", "sessions"} {
		s.tmux("send-keys", "s")
		s.wait("s sorts: " + want)
	}
	wantFirst("short")
	run(exec.Command(tool, "--socket", m.Socket, "debug", "find", "destination", "unknown.example"))
	s.tmux("send-keys", "h")
	s.wait("MISSES", " unknown.example")
	s.tmux("send-keys", "h")
	s.wait("ENDPOINT")
	s.tmux("send-keys", "-l", "+")
	s.wait("every 2s")
	for range 9 {
		s.tmux("send-keys", "-l", "-")
	}
	s.wait("every 250ms")
	s.tmux("send-keys", "C-c")
	s.wait("ended with 0")
}

// TestTop_fitsTheScreen: any size, and wide characters.
func TestTop_fitsTheScreen(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startServer(t, server)
	for i := range 40 {
		must(t, "--socket", m.Socket, "debug", "save", "endpoint",
			fmt.Sprintf(`smtp\n東京%02d.example 東京 東京 東京 東京 東京 東京 東京 東京 東京\n25\n`, i), "--ttl", "1000")
	}
	for _, size := range [][2]int{{10, 3}, {60, 12}, {200, 60}} {
		s := newScreenOf(t, size[0], size[1], tool, "--socket", m.Socket, "top")
		s.waitFor(fmt.Sprintf("a screen of %v", size), func(lines []string) bool {
			switch {
			case len(lines) > size[1] || !strings.HasPrefix(lines[0], "scache tes"):
				return false
			case size[1] == 12:
				return len(lines) == 12 && lines[11] == "… 37 more" && strings.Contains(lines[8], "smtp 東京")
			case size[1] == 60:
				return len(lines) == 48 && strings.HasSuffix(lines[47], "東京  (opaque)")
			}
			return true
		})
		s.tmux("resize-window", "-x", "80", "-y", "24")
		s.wait("… 25 more")
		s.tmux("send-keys", "q")
		s.wait("ended with 0")
	}
}

func TestTop_batch(t *testing.T) {
	t.Parallel()
	m := startServer(t, server)
	saveConnection(t, m.Socket)
	out := must(t, "--socket", m.Socket, "top", "--batch", "2", "--interval", "300ms")
	if strings.Count(out, "scache test  pid ") != 2 || strings.Contains(out, "\x1b") ||
		strings.Count(out, "smtp 192.0.2.1 ") != 2 {
		t.Error(out)
	}
	wantError(t, []string{"--socket", "/nosuch", "top", "--batch", "2"}, "/nosuch")
	wantError(t, []string{"--socket", m.Socket, "top", "--interval", "1ms"}, "--interval 1ms")
}

// TestTop_endsWithoutAFirstAnswer leaves the terminal as it was.
func TestTop_endsWithoutAFirstAnswer(t *testing.T) {
	t.Parallel()
	s := newScreen(t, tool, "-c", "/nosuch", "top")
	s.wait("/nosuch", "ended with 1")
}

func TestTop_needsATerminal(t *testing.T) {
	t.Parallel()
	wantError(t, []string{"top"}, "top needs a terminal")
}

func TestTop_stock(t *testing.T) {
	t.Parallel()
	m := startServer(t, postfixtest.NeedPostfix(t))
	s := newScreen(t, tool, "--socket", m.Socket, "top")
	s.wait("stock scache", "ended with 1")
}
