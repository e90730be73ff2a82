// SPDX-License-Identifier: EPL-2.0

package maillog

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a sink that keeps lines, and blocks while it is held.
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

// written returns the lines so far.
func (m *memory) written() []string {
	m.hold.Lock()
	defer m.hold.Unlock()
	return slices.Clone(m.lines)
}

// last returns the last line so far.
func (m *memory) last() string {
	lines := m.written()
	return lines[len(lines)-1]
}

func TestLogger_levelsAndText(t *testing.T) {
	t.Parallel()
	var m memory
	l := New(&m)
	l.Debug("not shown")
	l.Info("a %d", 1)
	l.Warning("b\nc\x7f\xff")
	l.LogFatal("e é")
	l.SetVerbose(1)
	l.Debug("shown")
	l.Info("%s", strings.Repeat("x", 5000))
	l.Flush(time.Minute)
	want := []string{
		"0 a 1", "1 warning: b?c??", "2 fatal: e é", "0 shown", "0 " + strings.Repeat("x", maxLine),
	}
	if !slices.Equal(m.lines, want) {
		t.Errorf("got %q, want %q", m.lines, want)
	}
}

// TestLogger_replacesWhatIsNotPrintable has characters that would change a terminal or
// what a person reads.
func TestLogger_replacesWhatIsNotPrintable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\x1b[31mb":            "a?[31mb",
		"C1 \u0080\u009b\u009f": "C1 ???",
		"bidi \u202a\u202e\u2066\u2069\u200f\u061c": "bidi ??????",
		"width \u200b\ufeff\u00ad":                  "width ???",
		"lines \u2028\u2029\u0085":                  "lines ???",
		"tag \U000e0041":                            "tag ?",
		"é 漢字 €":                                    "é 漢字 €",
	} {
		var m memory
		l := New(&m)
		l.Info("%s", text)
		l.Flush(time.Minute)
		if got := m.lines[0]; got != "0 "+want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// fakeTime runs a test of a logger with a clock of its own.
func fakeTime(t *testing.T, test func(l *Logger, m *memory)) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		l := New(&m)
		defer close(l.queue)
		test(l, &m)
	})
}

func TestLogger_limitsLinesOfOneKind(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(l *Logger, m *memory) {
		for i := range 100_000 {
			l.Warning("client: %d", i)
		}
		l.Info("other")
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if got, want := len(m.written()), linesPerSecond+1; got != want {
			t.Fatalf("within a second: got %d lines, want %d: %q", got, want, m.written())
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		want := fmt.Sprintf("1 warning: %d more lines like this one within a second: client: %d",
			100_000-linesPerSecond, linesPerSecond-1)
		if got := m.last(); got != want || len(m.written()) != linesPerSecond+2 {
			t.Errorf("got %q, want %q", got, want)
		}
		l.Warning("client: %d", 7)
		synctest.Wait()
		if got, want := m.last(), "1 warning: client: 7"; got != want {
			t.Errorf("in the next second: got %q, want %q", got, want)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got, want := len(m.written()), linesPerSecond+3; got != want {
			t.Errorf("an hour later: got %d lines, want %d", got, want)
		}
	})
}

// TestLogger_logsALineASecond has no more lines than the limit in any second.
func TestLogger_logsALineASecond(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(l *Logger, m *memory) {
		const n = 10 * linesPerSecond
		for range n {
			l.Info("line")
			time.Sleep(time.Second / linesPerSecond)
		}
		synctest.Wait()
		if got := len(m.written()); got != n {
			t.Errorf("got %d lines, want %d", got, n)
		}
	})
}

// TestLogger_warnsRarely logs the first line of each kind in a minute.
func TestLogger_warnsRarely(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(l *Logger, m *memory) {
		for range 90 {
			l.WarningRarely("one %d", 1)
			l.WarningRarely("two")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		want := []string{"1 warning: one 1", "1 warning: two", "1 warning: one 1", "1 warning: two"}
		if got := m.written(); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestLogger_doesNotLimitDebugAndFatal(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(l *Logger, m *memory) {
		l.SetVerbose(1)
		for range 100 {
			l.Debug("a")
			l.LogFatal("b")
		}
		l.Flush(time.Minute)
		if got := len(m.written()); got != 200 {
			t.Errorf("got %d lines, want 200", got)
		}
	})
}

func TestFlush_reportsSuppressedLines(t *testing.T) {
	t.Parallel()
	fakeTime(t, func(l *Logger, m *memory) {
		for range linesPerSecond + 5 {
			l.Info("line")
		}
		l.Flush(time.Minute)
		const want = "1 warning: 5 more lines like this one within a second: line"
		if got := m.last(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestLogger_boundsTheNumberOfKinds has formats that are not constants.
func TestLogger_boundsTheNumberOfKinds(t *testing.T) {
	t.Parallel()
	l := New()
	for i := range 3 * maxKinds {
		l.Info(fmt.Sprint("format ", i))
	}
	if got := len(l.rate.kinds); got > maxKinds {
		t.Errorf("got %d kinds, want at most %d", got, maxKinds)
	}
}

// closing is a sink that knows whether it is closed.
type closing struct {
	memory
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

func TestSetSinks_closesFormerOnes(t *testing.T) {
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

func TestLogger_doesNotWaitForAStuckSink(t *testing.T) {
	t.Parallel()
	var m memory
	l := New(&m)
	l.SetVerbose(1)
	m.hold.Lock()
	for i := range 3 * queueSize {
		l.Debug("%d", i) // would deadlock if it blocked
	}
	l.Flush(time.Millisecond)
	m.hold.Unlock()
	l.Flush(time.Minute)
	last := m.lines[len(m.lines)-1]
	lost := regexp.MustCompile(`1 warning: (\d+) log lines were lost`)
	if len(m.lines) > queueSize+3 || !lost.MatchString(strings.Join(m.lines, "\n")) {
		t.Errorf("got %d lines, the last one %q", len(m.lines), last)
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

func TestPostlog_writesHostAndTag(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postlog")
	conn := receiver(t, path)
	l := New(Postlog("host.example", "postfix/scache", "/nonexistent", path))
	l.Warning("one")
	want := regexp.MustCompile(fmt.Sprintf(
		`^[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d host postfix/scache\[%d\]: warning: one$`,
		os.Getpid()))
	if got := receive(t, conn); !want.MatchString(got) {
		t.Errorf("got %q", got)
	}
}

func TestPostlog_connectsAgain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postlog")
	l := New(Postlog("host", "tag", path))
	l.Info("lost: no receiver")
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

func TestLogger_doesNotWaitForAStalledPostlog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "postlog")
	conn := receiver(t, path)
	l := New(Postlog("host", "tag", path))
	l.SetVerbose(1)
	for i := range 10 * queueSize {
		l.Debug("%d", i)
	}
	l.Flush(10 * time.Millisecond)
	for range queueSize { // once it reads, lines come again
		if strings.Contains(receive(t, conn), "log lines were lost") {
			return
		}
	}
	t.Error("got no line about lost lines")
}

func TestSyslog_unknownFacility(t *testing.T) {
	t.Parallel()
	if _, err := Syslog("post", "tag"); err == nil || !strings.Contains(err.Error(), "post") {
		t.Errorf("got %v", err)
	}
	if _, err := Syslog("local7", "tag"); err != nil {
		t.Errorf("local7: %v", err)
	}
}

func TestExitOnPanic_logsBeforeTheProcessEnds(t *testing.T) {
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
		t.Errorf("got exit status %v, want 2", err)
	}
	want := regexp.MustCompile(`^scache\[\d+\]: panic: two\?lines\n` +
		`scache\[\d+\]: panic: at runtime\.gopanic .*\n` +
		`scache\[\d+\]: panic: at .*TestExitOnPanic.*maillog_test\.go:\d+\)\n`)
	if !want.Match(out) {
		t.Errorf("got\n%s", out)
	}
}

// TestPostlog_line has the date as strftime(3) writes "%b %d %H:%M:%S", which is how all daemons
// of Postfix write it.
func TestPostlog_line(t *testing.T) {
	t.Parallel()
	names := strings.Fields("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu",
		"Pacific/Kiritimati"} {
		location, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, year := range []int{1999, 2000, 2024, 2026, 2038, 2100} {
			day := time.Date(year, 1, 1, 0, 7, 8, 9, location)
			for ; day.Year() == year; day = day.AddDate(0, 0, 1) {
				want := fmt.Sprintf("%s %02d %02d:%02d:%02d host postfix/scache[1]: text",
					names[day.Month()-1], day.Day(), day.Hour(), day.Minute(), day.Second())
				if got := postlogLine(day, "host postfix/scache[1]", "text"); got != want {
					t.Fatalf("%v: got %q, want %q", day, got, want)
				}
			}
		}
	}
	for _, test := range []struct {
		at, zone, want string
	}{
		{"2026-11-05T16:54:00Z", "Europe/Berlin", "Nov 05 17:54:00 h: x"},
		{"2024-02-28T23:30:00Z", "Europe/Berlin", "Feb 29 00:30:00 h: x"},
		{"2023-02-28T23:30:00Z", "Europe/Berlin", "Mar 01 00:30:00 h: x"},
		{"2026-12-31T23:59:59Z", "Asia/Kathmandu", "Jan 01 05:44:59 h: x"},
		{"2026-10-25T00:59:59Z", "Europe/Berlin", "Oct 25 02:59:59 h: x"},
		{"2026-10-25T01:00:00Z", "Europe/Berlin", "Oct 25 02:00:00 h: x"},
		{"2026-03-29T01:00:00Z", "Europe/Berlin", "Mar 29 03:00:00 h: x"},
	} {
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		location, err := time.LoadLocation(test.zone)
		if err != nil {
			t.Fatal(err)
		}
		if got := postlogLine(at.In(location), "h", "x"); got != test.want {
			t.Errorf("%s in %s: got %q, want %q", test.at, test.zone, got, test.want)
		}
	}
}
