// SPDX-License-Identifier: EPL-2.0

// Tests of what the daemon makes of dead peers, a lack of descriptors and
// strangers, with the stock daemon beside it.

package main

import (
	"bufio"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// impatientSink is a mail server that hangs up on clients that are silent for
// half a second.
func impatientSink(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go impatientSession(conn)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func impatientSession(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for reply, data := "220 ready", false; ; {
		if reply != "" {
			fmt.Fprintf(conn, "%s\r\n", reply)
		}
		conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb := strings.ToUpper(strings.TrimSpace(line))
		switch {
		case data && verb != ".":
			reply = ""
		case verb == "DATA":
			reply, data = "354 go on", true
		case verb == "QUIT":
			return
		default:
			reply, data = "250 fine", false
		}
	}
}

// TestReuse_onlyLiveSessions sends bursts of mail with pauses in which the
// remote end hangs up. A session that was found in the cache and could not be
// used shows as a hit without a delivery.
func TestReuse_onlyLiveSessions(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	if failed := failedReuses(t, binary); failed != 0 {
		t.Errorf("%d sessions could not be reused", failed)
	}
	t.Logf("stock scache: %d sessions could not be reused",
		failedReuses(t, postfixtest.NeedPostfix(t)))
}

func failedReuses(t *testing.T, scache string) int {
	t.Helper()
	settings := relayTo(impatientSink(t), map[string]string{
		"connection_cache_ttl_limit":       "5s",
		"smtp_connection_cache_time_limit": "5s",
	})
	i := startInstance(t, postfixtest.Config{Scache: scache, Chroot: "y", Main: settings})
	for range 4 {
		deliver(t, i, 50, "recipient@example.test")
		pause := time.NewTimer(time.Second) // the remote end needs it, not the test
		<-pause.C
	}
	deliver(t, i, 50, "recipient@example.test")
	if err := i.Command("reload"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the statistics are logged", func() bool {
		return len(i.Grep("postfix/scache[", "max simultaneous")) > 0
	})
	hits := 0
	for _, line := range i.Grep("postfix/scache[", "lookup hits=") {
		n, _ := strconv.Atoi(regexp.MustCompile(`hits=(\d+)`).FindStringSubmatch(line)[1])
		hits += n
	}
	return hits - len(i.Grep("status=sent", "conn_use="))
}

// TestDescriptors_pressure allows the daemon 256 open files, and asks for more.
func TestDescriptors_pressure(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	if failed, refused := pressure(t, binary, longWait); failed+refused > 0 {
		t.Errorf("%d saves failed, and %d clients were refused", failed, refused)
	}
	failed, refused := pressure(t, postfixtest.NeedPostfix(t), 5*time.Second)
	t.Logf("stock scache: %d of 1000 saves failed, and %d of 50 clients were refused", failed, refused)
}

// startWithFiles starts a daemon with this limit of open files.
func startWithFiles(t *testing.T, scache string, files int) *postfixtest.Master {
	t.Helper()
	m, err := postfixtest.NewMaster("/usr/bin/prlimit", "connection_cache_ttl_limit=1h")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	m.Args = append([]string{fmt.Sprintf("--nofile=%d:%d", files, files), scache}, m.Args...)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	return m
}

// pressure makes requests, and waits this long for each answer.
func pressure(t *testing.T, scache string, wait time.Duration) (failed, refused int) {
	t.Helper()
	m := startWithFiles(t, scache, 256)
	c := dial(t, m)
	fd := testenv.NewDescriptor(t)
	defer unix.Close(fd)
	for i := range 1000 {
		c.Conn.(*fdpass.Conn).SetDeadline(time.Now().Add(wait))
		status, err := c.SaveEndpoint(3600, fmt.Sprint("endpoint ", i), "", fd)
		if err != nil {
			failed += 1000 - i
			break
		}
		if status != client.OK {
			failed++
		}
	}
	var answered atomic.Int32
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			if answers(t, m, wait) {
				answered.Add(1)
			}
		})
	}
	clients.Wait()
	return failed, 50 - int(answered.Load())
}

// answers connects a further client, which stays connected.
func answers(t *testing.T, m *postfixtest.Master, wait time.Duration) bool {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: m.Socket, Net: "unix"})
	if err != nil {
		return false
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(wait))
	c, err := postfixtest.NewClient(fdpass.New(conn), true)
	if err != nil {
		return false
	}
	_, err = c.FindEndpoint("miss")
	return err == nil
}

// TestDescriptors_exhausted has as many clients as there are descriptors, and none is left for
// another one: it waits, without a busy loop, until one goes.
func TestDescriptors_exhausted(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startWithFiles(t, binary, 64)
	var clients []*net.UnixConn
	for range 100 {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: m.Socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		clients = append(clients, conn)
	}
	if !m.WaitForText("warning: accept connection: ") {
		t.Error("nothing is said about it")
	}
	for _, conn := range clients[:80] {
		conn.Close()
	}
	c, err := postfixtest.NewClient(fdpass.New(clients[99]), true)
	if err != nil {
		t.Fatal(err)
	}
	saveSession(t, c, 60, "e", "p").want(t, c)
	if n := strings.Count(strings.Join(m.Texts(), "\n"), "warning: "); n > 2 {
		t.Errorf("%d warnings: %q", n, m.Texts())
	}
}

// TestGoodbye looks at the log of a remote Postfix on whose connections the time
// runs out.
func TestGoodbye(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for goodbye, polite := range map[string]bool{"": false, "QUIT": true} {
		t.Run("goodbye="+goodbye, func(t *testing.T) {
			t.Parallel()
			sink := startSink(t)
			remote := startInstance(t, postfixtest.Config{Main: map[string]string{
				"relayhost": fmt.Sprintf("[127.0.0.1]:%d", sink.Port),
			}})
			_, port, _ := net.SplitHostPort(remote.SMTP)
			n, _ := strconv.Atoi(port)
			settings := relayTo(n, map[string]string{
				"connection_cache_goodbye":   goodbye,
				"connection_cache_ttl_limit": "1s",
			})
			local := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: settings})
			deliver(t, local, 50, "recipient@example.test")
			// All connections end at the remote, in one way or the other.
			for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				connects := len(remote.Grep("smtpd[", ": connect from"))
				if connects > 1 && len(remote.Grep("smtpd[", ": disconnect from")) >= connects {
					break
				}
				if time.Now().After(end) {
					t.Fatal("connections to the remote stay open")
				}
			}
			// smtpd does not count it as a lost connection if a client hangs up
			// between two messages, but it counts what the client said.
			rude := 0
			for _, line := range remote.Grep("smtpd[", ": disconnect from", "ehlo=1") {
				if !strings.Contains(line, " quit=1") {
					rude++
				}
			}
			if polite != (rude == 0) {
				t.Errorf("%d connections ended without QUIT", rude)
			}
			lost := remote.Grep("lost connection after")
			if len(lost) != len(remote.Grep("lost connection after CONNECT")) {
				t.Errorf("lost connections, beside our own probe: %q", lost)
			}
		})
	}
}

// TestReceivers_limitSessions saves sessions for receivers that allow few idle connections,
// or for a short time, or few messages.
func TestReceivers_limitSessions(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, `connection_cache_goodbye = QUIT
connection_cache_ttl_limit = 1h
connection_cache_receivers = { few, 192.0.2.0/24, idle=1 }
  { none, 192.0.3.0/24, idle=0, time=1m },
  { short, lmtp, time=2m }, { used, 203.0.113.7, messages=5 }
  { *, idle=3 }`,
		"-o", "max_idle=1h")
	c := startWithClient(t, m)
	for label, want := range map[string]struct {
		sessions int
		receiver string
		left     time.Duration
	}{
		"smtp\n192.0.2.1\n25\n0\n":    {1, "few", time.Hour},
		"smtp\n192.0.3.1\n25\n0\n":    {0, "none", time.Hour},
		"smtp\n198.51.100.1\n25\n0\n": {3, "*", time.Hour},
		"lmtp\n198.51.100.1\n25\n0\n": {5, "short", 2 * time.Minute},
		"smtp\n203.0.113.7\n25\n0\n":  {4, "used", time.Hour},
	} {
		var remotes []int
		for i := range 5 {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			property := fmt.Sprintf("reuse_count=%d\n", i)
			status, err := c.SaveEndpoint(3600, label, property, pair[0])
			if err != nil || status != client.OK {
				t.Fatal(status, err)
			}
			unix.Close(pair[0])
			remotes = append(remotes, pair[1])
		}
		testenv.Eventually(t, fmt.Sprintf("%q: the rest is sent QUIT", label), func() bool {
			polite := 0
			for _, remote := range remotes {
				buf := make([]byte, 10)
				n, _, _ := unix.Recvfrom(remote, buf, unix.MSG_DONTWAIT|unix.MSG_PEEK)
				if string(buf[:max(n, 0)]) == "QUIT\r\n" {
					polite++
				}
			}
			return polite == 5-want.sessions
		})
		for _, remote := range remotes {
			unix.Close(remote)
		}
		_, sessions, err := c.List()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range sessions {
			if s.Endpoint != control.Escape(label) {
				continue
			}
			n++
			left := time.Duration(s.Remaining)
			if s.Receiver != want.receiver || left > want.left || left < want.left-time.Minute {
				t.Errorf("%q: got receiver %q and %v left, want %q and %v",
					label, s.Receiver, left, want.receiver, want.left)
			}
		}
		if n != want.sessions {
			t.Errorf("%q: got %d sessions, want %d", label, n, want.sessions)
		}
	}
	replace(t, m)
	if s, err := c.Status(); s.Sessions != 13 || err != nil {
		t.Errorf("after a reload: got %d sessions, %v, want 13", s.Sessions, err)
	}
}

// TestPeers_strangersAreRefused connects as another user.
func TestPeers_strangersAreRefused(t *testing.T) {
	t.Parallel()
	postfixtest.NeedPostfix(t) // that is, root
	m := startMaster(t, binary, "")
	conn := connectAs(t, m.Socket, 65534)
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a stranger was answered: %d, %v", n, err)
	}
	if !m.WaitForText("warning: refused a client with uid 65534, pid ") {
		t.Errorf("nothing is said about it: %q", m.Texts())
	}
	c := dial(t, m)
	saveSession(t, c, 60, "e", "p").want(t, c)
}

// connectAs connects as another user, which one thread of this process becomes
// for that time.
func connectAs(t *testing.T, path string, uid int) (conn net.Conn) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid int) {
		const unchanged = ^uintptr(0)
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged)
		if errno != 0 {
			t.Fatal(errno)
		}
	}
	become(uid)
	conn, err := net.Dial("unix", path)
	become(0)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}
