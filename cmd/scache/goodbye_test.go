// SPDX-License-Identifier: EPL-2.0

// Tests of the end of a process that has nothing to hand over to: each cached connection ends
// with goodbye. Where another process follows, none does.

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// A remote is a server at which all connections end that a test has put into the cache. It
// counts how they end.
type remote struct {
	t        *testing.T
	listener net.Listener

	mu               sync.Mutex
	open, quit, rude int
}

func newRemote(t *testing.T) *remote {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := &remote{t: t, listener: l}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.listen(conn)
		}
	}()
	return r
}

func (r *remote) listen(conn net.Conn) {
	defer conn.Close()
	heard, _ := io.ReadAll(bufio.NewReader(conn))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
	if string(heard) == "QUIT\r\n" {
		r.quit++
	} else {
		r.rude++
	}
}

// fill puts connections into the cache.
func (r *remote) fill(c *client.Client, number int) {
	r.t.Helper()
	for i := range number {
		conn, err := net.Dial("tcp", r.listener.Addr().String())
		if err != nil {
			r.t.Fatal(err)
		}
		r.mu.Lock()
		r.open++
		r.mu.Unlock()
		f, err := conn.(*net.TCPConn).File()
		if err != nil {
			r.t.Fatal(err)
		}
		status, err := c.SaveEndpoint(3600, fmt.Sprint("endpoint ", i), "p", int(f.Fd()))
		f.Close()
		conn.Close()
		if err != nil || status != client.OK {
			r.t.Fatal(status, err)
		}
	}
}

func (r *remote) counts() (open, quit, rude int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open, r.quit, r.rude
}

// goodbyeRounds returns how many times to play each of these tests.
func goodbyeRounds(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("GOODBYE_ROUNDS"))
	if os.Getenv("GOODBYE_ROUNDS") != "" && err != nil {
		t.Fatal(err)
	}
	return max(n, 1)
}

// TestGoodbye_atTheEnd ends the cache of a real Postfix in all ways: QUIT on every connection
// where no process follows, and on none where one does. GOODBYE_ROUNDS=20 plays each 20 times.
func TestGoodbye_atTheEnd(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const sessions = 50
	removeEntry := func(i *postfixtest.Instance) error {
		path := filepath.Join(i.Dir, "etc/master.cf")
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var kept []string
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "scache ") {
				kept = append(kept, line)
			}
		}
		if err := os.WriteFile(path, []byte(strings.Join(kept, "")), 0o644); err != nil {
			return err
		}
		old := time.Now().Add(-time.Hour) // Postfix waits while a file is being edited
		return os.Chtimes(path, old, old)
	}
	postfix := func(command string) func(*postfixtest.Instance, *client.Client) error {
		return func(i *postfixtest.Instance, _ *client.Client) error { return i.Command(command) }
	}
	for _, test := range []struct {
		name string
		end  func(*postfixtest.Instance, *client.Client) error
		ends bool
	}{
		{"postfix stop", postfix("stop"), true},
		{"master killed", func(i *postfixtest.Instance, _ *client.Client) error {
			text, err := os.ReadFile(filepath.Join(i.Dir, "queue/pid/master.pid"))
			if err != nil {
				return err
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				return err
			}
			return unix.Kill(pid, unix.SIGKILL)
		}, true},
		{"entry removed", func(i *postfixtest.Instance, _ *client.Client) error {
			if err := removeEntry(i); err != nil {
				return err
			}
			return i.Command("reload")
		}, true},
		{"reload", postfix("reload"), false},
		{"restart", func(_ *postfixtest.Instance, c *client.Client) error { return c.Restart() }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for range goodbyeRounds(t) {
				i, err := postfixtest.NewInstance(postfixtest.Config{Scache: binary, Chroot: "y",
					Main: map[string]string{
						"connection_cache_goodbye":   "QUIT",
						"connection_cache_ttl_limit": "1h",
					},
				})
				postfixtest.NeedPostfix(t)
				if err != nil {
					t.Fatal(err)
				}
				if err := i.Start(); err != nil {
					i.Close()
					t.Fatal(err)
				}
				wantGoodbye(t, i, sessions, test.ends, test.end)
				if err := i.Close(); err != nil && test.name != "master killed" {
					t.Error(err)
				}
			}
		})
	}
}

func wantGoodbye(
	t *testing.T, i *postfixtest.Instance, sessions int, ends bool,
	end func(*postfixtest.Instance, *client.Client) error,
) {
	t.Helper()
	r := newRemote(t)
	c, err := postfixtest.Dial(filepath.Join(i.Dir, "queue/private/scache"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.fill(c, sessions)
	before, err := c.Status()
	if err != nil {
		t.Fatal(err)
	}
	if err := end(i, c); err != nil {
		t.Error(err)
	}
	if ends {
		testenv.Eventually(t, "all connections end", func() bool {
			open, _, _ := r.counts()
			return open == 0
		})
		if _, quit, rude := r.counts(); quit != sessions {
			t.Errorf("got %d connections with QUIT, %d without, want %d with\n%s", quit, rude, sessions,
				strings.Join(i.Grep("scache["), "\n"))
		}
		return
	}
	testenv.Eventually(t, "the next process answers", func() bool {
		s, err := c.Status()
		if err != nil {
			t.Fatal(err)
		}
		return s.PID != before.PID && s.Sessions == before.Sessions
	})
	if open, quit, rude := r.counts(); open != sessions {
		t.Errorf("got %d connections open, %d ended with QUIT, %d without, want %d open",
			open, quit, rude, sessions)
	}
	_, err = c.FlushAll() // they would be closed at the end of the instance, too
	if err != nil {
		t.Error(err)
	}
	testenv.Eventually(t, "all connections end", func() bool {
		open, _, _ := r.counts()
		return open == 0
	})
	if _, quit, rude := r.counts(); quit != sessions {
		t.Errorf("after the flush: got %d connections with QUIT, %d without", quit, rude)
	}
}
