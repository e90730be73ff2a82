// SPDX-License-Identifier: EPL-2.0

// Tests of where log lines go, and of service when they go nowhere.

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/client"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// complainAbout sends malformed requests, each of which is worth at least one
// line in the log, and waits for the answers.
func complainAbout(t *testing.T, c *client.Client, requests int) {
	t.Helper()
	const batch = 100 // fits into the socket's buffers, so that neither side waits for the other
	in := attr.NewDecoder(c.Conn)
	for range requests / batch {
		if _, err := io.Copy(c.Conn, bytes.NewReader(bytes.Repeat([]byte(list("request", "nonsense")),
			batch))); err != nil {
			t.Fatal(err)
		}
		for range batch {
			answer, err := in.Decode()
			if err != nil || answer.Expect("status") != nil {
				t.Fatalf("the daemon does not answer: %q, %v", answer, err)
			}
		}
	}
}

func TestLog_deafReceiverDelaysNoClient(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for name, options := range map[string][]string{"": nil, "-v": {"-v"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, "postlog_service_name = deaf", options...)
			deaf := receiveLog(t, filepath.Join(queueDirectory(m), "public", "deaf"))
			c := startWithClient(t, m)
			complainAbout(t, c, 10_000)
			wantAnswer(t, c)
			wantAnswer(t, talk(t, connect(t, m.Socket), true))
			if err := m.HangUp(); err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
			if line := readLog(t, deaf); len(line) == 0 {
				t.Error("the receiver was not there")
			}
		})
	}
}

// TestLog_startsWithADeafReceiver has the receiver of early lines deaf, too, and
// its queue full before the daemon starts.
func TestLog_startsWithADeafReceiver(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "postlog_service_name = deaf")
	path := filepath.Join(queueDirectory(m), "public", "deaf")
	receiveLog(t, path)
	m.Env = append(m.Env, "POSTLOG_SERVICE="+path)
	fillLog(t, path)
	wantAnswer(t, startWithClient(t, m))
	if err := terminate(m); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

// TestLog_fatalErrorWithADeafReceiver: what is wrong cannot be
// logged, but the daemon ends.
func TestLog_fatalErrorWithADeafReceiver(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "postlog_service_name = deaf\nipc_timeout = x")
	path := filepath.Join(queueDirectory(m), "public", "deaf")
	receiveLog(t, path)
	fillLog(t, path)
	start(t, m)
	if err := m.Wait(); err == nil || m.Cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("the daemon ended with %v", err)
	}
}

// fillLog writes to a log receiver until it takes no more.
func fillLog(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for err == nil {
		err = unix.Sendto(fd, []byte("full"), 0, &unix.SockaddrUnix{Name: path})
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
}

// TestLog_withoutReceiver: lines are lost while no receiver takes them, and
// those that come later are not.
func TestLog_withoutReceiver(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "postlog_service_name = late")
	path := filepath.Join(queueDirectory(m), "public", "late")
	m.Env = append(m.Env, "POSTLOG_SERVICE="+path)
	c := startWithClient(t, m)
	complainAbout(t, c, 200) // as many as wait in any case
	late := receiveLog(t, path)
	// Of another kind than those before, which are too many by now.
	raw(list("request", "save_endp", "ttl", "late", "label", "e", "property", "p"), nil)(t, c)
	for !strings.Contains(readLog(t, late), `"late"`) {
	}
}

func TestLog_longLines(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "debugger_command = true "+strings.Repeat("x", 10_000), "-D")
	wantAnswer(t, startWithClient(t, m))
	m.WaitForText(strings.Repeat("x", 1000))
	for _, line := range m.Log() {
		if len(line) < 1900 || len(line) > 2100 {
			t.Errorf("logged %d bytes: %q", len(line), line)
		}
	}
	if len(m.Log()) != 1 {
		t.Errorf("logged %d lines", len(m.Log()))
	}
}

func TestLog_strangeLines(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "")
	c := startWithClient(t, m)
	raw(list("request", "a\nb\x01\x7f\xff\"%s"), nil)(t, c)
	if text := `"a?b???"%s"`; !m.WaitForText(text) {
		t.Errorf("logged %q, without %q", m.Log(), text)
	}
}

// TestSyslog_absent has a /dev without a socket for the log.
func TestSyslog_absent(t *testing.T) {
	postfixtest.NeedPostfix(t)
	t.Parallel()
	if !postfixtest.InPrivateDev(t) {
		return
	}
	m := newMaster(t, "maillog_file =", "-v")
	c := startWithClient(t, m)
	complainAbout(t, c, 2000)
	wantAnswer(t, c)
	if err := m.HangUp(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	if lines := m.Log(); len(lines) != 0 {
		t.Errorf("postlogd got %q", lines)
	}
}

func TestSyslog_lines(t *testing.T) {
	postfixtest.NeedPostfix(t)
	t.Parallel()
	if !postfixtest.InPrivateDev(t) {
		return
	}
	log := receiveLog(t, "/dev/log")
	for name, test := range map[string]struct {
		settings string
		facility int
		tag      string
	}{
		"default":           {"", 2, "postfix"},
		"facility and name": {"syslog_facility = local3\nsyslog_name = postfix-out", 19, "postfix-out"},
		"upper case":        {"syslog_facility = LOCAL7", 23, "postfix"},
		"of an instance":    {"multi_instance_name = postfix-in", 2, "postfix-in"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaster(t, "maillog_file =\n"+test.settings, "-c", "-u")
			c := startWithClient(t, m)
			raw(list("request", "nonsense"), nil)(t, c)
			wantAnswer(t, c)
			if err := m.HangUp(); err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
			for _, want := range []struct {
				severity int
				text     string
			}{
				{4, `warning: unrecognized request: "nonsense", ignored`},
				{6, startPattern},
				{6, missed[1]},
			} {
				pattern := fmt.Sprintf(`^<%d>[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d %s/scache\[%d\]: %s\n?$`,
					test.facility*8+want.severity, test.tag, m.Cmd.Process.Pid, want.text)
				if line := readOwn(t, log, m); !regexp.MustCompile(pattern).MatchString(line) {
					t.Errorf("logged %q, want %s", line, pattern)
				}
			}
		})
	}
	t.Run("fatal", func(t *testing.T) {
		m := newMaster(t, "maillog_file =\nsyslog_facility = user\ndaemon_timeout = x")
		start(t, m)
		m.Wait()
		if line := readOwn(t, log, m); !strings.HasPrefix(line, "<10>") ||
			!strings.Contains(line, "]: fatal: ") {
			t.Errorf("logged %q", line)
		}
	})
}

// readOwn returns the next line that the child of m has logged, and skips those of other
// processes.
func readOwn(t *testing.T, log *net.UnixConn, m *postfixtest.Master) string {
	t.Helper()
	for {
		if line := readLog(t, log); strings.Contains(line, fmt.Sprintf("[%d]: ", m.Cmd.Process.Pid)) {
			return line
		}
	}
}
