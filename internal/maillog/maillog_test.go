// SPDX-License-Identifier: EPL-2.0

package maillog

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a sink that remembers, and blocks while it is held.
type memory struct {
	hold  sync.Mutex
	lines []string
}

func (m *memory) Write(level Level, line string) error {
	m.hold.Lock()
	defer m.hold.Unlock()
	m.lines = append(m.lines, fmt.Sprint(int(level), " ", line))
	return nil
}

func TestLevelsAndText(t *testing.T) {
	t.Parallel()
	var m memory
	l := New(&m)
	l.Debug("not shown")
	l.Info("a %d", 1)
	l.Warning("b\nc\x7f\xff")
	l.Error("d é")
	l.Fatal("e")
	l.SetVerbose(1)
	l.Debug("shown")
	l.Info("%s", strings.Repeat("x", 5000))
	l.Flush(time.Minute)
	want := []string{"0 a 1", "1 warning: b?c??", "2 error: d é", "3 fatal: e", "0 shown", "0 " + strings.Repeat("x", maxLine)}
	if got := strings.Join(m.lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s", got)
	}
}

// closing is a sink that tells when it is closed.
type closing struct {
	memory
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

func TestReplacedSinksAreClosed(t *testing.T) {
	t.Parallel()
	var former, next closing
	l := New(&former)
	l.Info("a")
	l.Flush(time.Minute)
	l.SetSinks(&next)
	l.Info("b")
	l.Flush(time.Minute)
	if !former.closed || next.closed || len(former.lines) != 1 || len(next.lines) != 1 {
		t.Errorf("former %+v, next %+v", former.lines, next.lines)
	}
}

func TestAStuckSinkHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	var m memory
	l := New(&m)
	m.hold.Lock()
	for i := range 3 * queueSize {
		l.Info("%d", i) // would deadlock if it blocked
	}
	l.Flush(time.Millisecond)
	m.hold.Unlock()
	l.Flush(time.Minute)
	last := m.lines[len(m.lines)-1]
	lost := regexp.MustCompile(`1 warning: (\d+) log lines were lost`)
	if len(m.lines) > queueSize+3 || !lost.MatchString(strings.Join(m.lines, "\n")) {
		t.Errorf("%d lines were written, the last one is %q", len(m.lines), last)
	}
}

func receiver(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 3000)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestPostlog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postlog")
	conn := receiver(t, path)
	l := New(Postlog("host.example", "postfix/scache", "/nonexistent", path))
	l.Warning("one")
	want := regexp.MustCompile(fmt.Sprintf(`^[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d host postfix/scache\[%d\]: warning: one$`, os.Getpid()))
	if got := receive(t, conn); !want.MatchString(got) {
		t.Errorf("got %q", got)
	}
}

func TestPostlogConnectsAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postlog")
	l := New(Postlog("host", "tag", path))
	l.Info("lost: nobody listens")
	l.Flush(time.Minute)
	for _, line := range []string{"first", "second"} {
		conn := receiver(t, path)
		l.Info("%s", line)
		if got := receive(t, conn); !strings.HasSuffix(got, ": "+line) {
			t.Errorf("got %q", got)
		}
		conn.Close()
		os.Remove(path)
		l.Info("lost: it is gone")
		l.Flush(time.Minute)
	}
}

func TestAStalledPostlogReceiverHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postlog")
	conn := receiver(t, path)
	l := New(Postlog("host", "tag", path))
	for i := range 10 * queueSize {
		l.Info("%d", i)
	}
	l.Flush(10 * time.Millisecond)
	for range queueSize { // once it reads, lines come again
		if strings.Contains(receive(t, conn), "log lines were lost") {
			return
		}
	}
	t.Error("nothing tells of lost lines")
}

func TestUnknownFacility(t *testing.T) {
	t.Parallel()
	if _, err := Syslog("post", "tag"); err == nil || !strings.Contains(err.Error(), "post") {
		t.Errorf("got %v", err)
	}
	if _, err := Syslog("local7", "tag"); err != nil {
		t.Errorf("local7: %v", err)
	}
}

func TestPanicIsLoggedBeforeTheProcessDies(t *testing.T) {
	t.Parallel()
	if os.Getenv("PANIC") != "" {
		l := New(Stream(os.Stderr, "scache"))
		done := make(chan bool)
		go func() {
			defer l.ExitOnPanic()
			panic("two\nlines")
		}()
		<-done
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "PANIC=1")
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("the process ended with %v", err)
	}
	want := regexp.MustCompile(`^scache\[\d+\]: panic: two\?lines\nscache\[\d+\]: panic: at runtime\.gopanic .*\nscache\[\d+\]: panic: at .*TestPanic.*maillog_test\.go:\d+\)\n`)
	if !want.Match(out) {
		t.Errorf("got\n%s", out)
	}
}
