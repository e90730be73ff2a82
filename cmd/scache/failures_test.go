// SPDX-License-Identifier: EPL-2.0

// Tests of hand-overs on a bad day: each way in which one can fail half-way is
// made to happen.

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// wantTakeovers waits for takeovers, and fails if one has lost anything.
func wantTakeovers(t *testing.T, m *postfixtest.Master, n int) {
	t.Helper()
	if !m.WaitForTexts("takeover: ", n) {
		t.Fatalf("not %d takeovers", n)
	}
	for _, text := range m.Texts() {
		if strings.HasPrefix(text, "takeover: ") && !strings.HasSuffix(text, " lost=0") {
			t.Error(text)
		}
	}
}

// TestReload_takesTheAcceptQueueAlong reloads while more clients wait to be accepted than
// have room in the line.
func TestReload_takesTheAcceptQueueAlong(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "connection_cache_ttl_limit=1h")
	if err := m.SetBacklog(100); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	first := dial(t, m)
	s := saveSession(t, first, 60, "e", "p")
	m.Cmd.Process.Signal(unix.SIGSTOP)
	answered := make(chan error, 130)
	for range 130 {
		go func() { answered <- askOnce(m.Socket) }()
	}
	connections := int64(1 + 130)
	testenv.Eventually(t, "the line is full", func() bool {
		c, err := connectNow(m.Socket)
		if err == nil {
			connections++
			c.Close()
		}
		return err == fdpass.ErrAgain
	})
	m.CloseStatus()
	m.Cmd.Process.Signal(unix.SIGCONT)
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	if err := m.StartWhenNeeded(time.Minute); err != nil {
		t.Fatalf("%v\n%q", err, m.Log())
	}
	for range 130 {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	s.want(t, first)
	wantTakeovers(t, m, 1)
	wantNoWarnings(t, m)
	if s, err := first.Status(); s.Connections != connections || err != nil {
		t.Errorf("got %d connections, %v, want %d: each of a client, once", s.Connections, err,
			connections)
	}
}

// askOnce makes one request as a client that waits to be accepted. net.Dial does not wait:
// it fails when the accept queue is full.
func askOnce(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	socket := os.NewFile(uintptr(fd), "client")
	defer socket.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	conn, err := net.FileConn(socket)
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(longWait))
	c := fdpass.New(conn.(*net.UnixConn))
	defer c.Close()
	f, err := client.Detect(c).FindEndpoint("miss")
	if err == nil && f.Code != client.NotFound {
		err = fmt.Errorf("status %d", f.Code)
	}
	return err
}

// TestReload_withoutFreeDescriptors reloads when clients have taken all that there are.
func TestReload_withoutFreeDescriptors(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startWithFiles(t, binary, 80)
	var clients []*net.UnixConn
	for range 80 {
		clients = append(clients, connect(t, m.Socket))
	}
	if !m.WaitForText("warning: accept connection: ") {
		t.Fatal("there are descriptors left")
	}
	replace(t, m)
	answers := make(chan error, len(clients))
	for _, conn := range clients {
		go func() {
			defer conn.Close() // makes room for another one
			c, err := postfixtest.NewClient(fdpass.New(conn), true)
			if err == nil {
				_, err = c.FindEndpoint("miss")
			}
			answers <- err
		}()
	}
	for range clients {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	wantTakeovers(t, m, 1)
}

// TestReload_manyBindingsOfOneDestination reloads with more than a list could bear.
func TestReload_manyBindingsOfOneDestination(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const n = 60_000
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	for i := range n {
		if status, err := c.SaveDestination(3600, "d", "p", fmt.Sprint("e", i)); err != nil ||
			status != client.OK {
			t.Fatal(status, err)
		}
	}
	replace(t, m)
	wantAnswer(t, c)
	if !m.WaitForText(fmt.Sprintf("takeover: sessions=0 bindings=%d clients=1 lost=0", n)) {
		t.Errorf("%q", m.Texts())
	}
}

// TestReload_longProperties reloads with a lot to write and to read: it takes its time,
// and nothing else.
func TestReload_longProperties(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	var all []saved
	for i := range 1000 {
		all = append(all, saveSession(t, c, 3600, fmt.Sprint("e", i), strings.Repeat("p", 60_000)))
	}
	replace(t, m)
	wantAnswer(t, c)
	wantTakeovers(t, m, 1)
	for _, s := range all {
		s.want(t, c)
	}
	wantNoWarnings(t, m)
}

// TestHandover_silentSenderDelaysNoClient has a client that says it is a predecessor, and
// leaves nothing; and a reload while it is waited for.
func TestHandover_silentSenderDelaysNoClient(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	s := saveSession(t, c, 3600, "e", "p")
	queue, end, err := fdpass.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close()
	liar, err := connectNow(m.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	if err := liar.SendWith([]byte(list("request", "take_over")), end.FD()); err != nil {
		t.Fatal(err)
	}
	end.Close()
	wantAnswer(t, c)
	replace(t, m)
	s.want(t, c)
	if !m.WaitForText("takeover: sessions=1 bindings=0 clients=1 lost=0") {
		t.Errorf("%q", m.Texts())
	}
}

// TestNothingIsLeftToAStranger has another process at the path of the socket.
func TestHandover_notToAStranger(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h\nconnection_cache_goodbye=QUIT")
	c := dial(t, m)
	x, y := testenv.ConnPair(t)
	remote, session := fdpass.New(x), fdpass.New(y)
	fd, err := session.FD()
	if err != nil {
		t.Fatal(err)
	}
	if status, err := c.SaveEndpoint(3600, "e", "p", fd); err != nil || status != client.OK {
		t.Fatal(status, err)
	}
	session.Close()
	stranger := postfixtest.Command(binary, "--listen", m.Socket+".new")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer stranger.Wait()
	defer stranger.Process.Kill()
	testenv.Eventually(t, "the stranger listens",
		func() bool { return askOnce(m.Socket+".new") == nil })
	if err := os.Rename(m.Socket+".new", m.Socket); err != nil {
		t.Fatal(err)
	}
	if err := m.HangUp(); err != nil {
		t.Error(err)
	}
	if !m.WaitForText("warning: cannot hand over 1 sessions and 1 clients to the next process: " +
		"another process listens at ") {
		t.Errorf("%q", m.Texts())
	}
	if heard, err := io.ReadAll(remote); string(heard) != "QUIT\r\n" || err != nil {
		t.Errorf("the remote end has heard %q, %v", heard, err)
	}
}

// TestWatchdog_processThatWasStopped for longer than daemon_timeout.
func TestWatchdog_processThatWasStopped(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "daemon_timeout=1s\nmax_idle=1h")
	c := dial(t, m)
	m.Cmd.Process.Signal(unix.SIGSTOP)
	stopped := time.NewTimer(3 * time.Second)
	<-stopped.C
	m.Cmd.Process.Signal(unix.SIGCONT)
	for range 20 {
		wantAnswer(t, c)
		time.Sleep(50 * time.Millisecond) // as a watchdog would bite
	}
}

// TestReload_asRootWithClientsOfMailOwner has a daemon that stays root, with clients that do
// not.
func TestReload_asRootWithClientsOfMailOwner(t *testing.T) {
	t.Parallel()
	postfixtest.NeedPostfix(t) // that is, root
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	m := startMaster(t, binary, "")
	conn := connectAs(t, m.Socket, uid)
	defer conn.Close()
	wantAnswer(t, talk(t, conn.(*net.UnixConn), true))
	stranger := connectAs(t, m.Socket, uid+1)
	defer stranger.Close()
	if n, err := stranger.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a stranger was answered: %d, %v", n, err)
	}
}

// TestCountsGoOn looks at what an operator sees before and after reloads.
func TestHandover_keepsCounts(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	s := saveSession(t, c, 60, "e", "p")
	saveSession(t, c, 60, "e", "p")
	s.want(t, c)
	wantAnswer(t, c)
	before, err := c.Status()
	if err != nil {
		t.Fatal(err)
	}
	replace(t, m)
	replace(t, m)
	after, err := c.Status()
	if err != nil {
		t.Fatal(err)
	}
	if after.PID == before.PID || after.Counted < before.Counted || after.Uptime > after.Counted {
		t.Errorf("before: %+v\nafter: %+v", before, after)
	}
	if after.Saved != 2 || after.EndpointHits != 1 || after.EndpointMisses != 1 ||
		after.PeakSessions != 2 ||
		after.Connections != before.Connections {
		t.Errorf("before: %+v\nafter: %+v", before, after)
	}
	hits, err := c.LabelCounts(control.LevelEndpoint)
	if err != nil || len(hits) != 2 || hits[0].Label != "e" || hits[0].Hits != 1 ||
		hits[0].Saves != 2 || hits[1].Misses != 1 || hits[0].Counted <= 0 {
		t.Errorf("%+v, %v", hits, err)
	}
	if after.Waited.Count() != 1 || after.Took.Count() < before.Took.Count() {
		t.Errorf("before: %v, %v\nafter: %v, %v", before.Waited, before.Took, after.Waited, after.Took)
	}
	// The statistics are those of each process.
	m.WaitForText("takeover: ")
	if n := strings.Count(strings.Join(m.Texts(), "\n"), "statistics: address lookup"); n != 1 {
		t.Errorf("%q", m.Texts())
	}
}

// TestReload_beforeTheStateIsRead replaces processes that did not yet read what they were left:
// it must not come inside what they leave, again and again.
func TestReload_beforeTheStateIsRead(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	var all []saved
	for i := range 300 {
		all = append(all, saveSession(t, c, 3600, fmt.Sprint("e", i), "p"))
	}
	for range 12 {
		m.CloseStatus()
		if err := m.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := m.StartWhenNeeded(time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range all {
		s.want(t, c)
	}
	wantTakeovers(t, m, 12)
	wantNoWarnings(t, m)
}

// TestRestart_byAnOperator has an operator ask for a new process.
func TestRestart_byAnOperator(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	s := saveSession(t, c, 60, "e", "p")
	before, err := c.Status()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	if err := m.StartWhenNeeded(time.Minute); err != nil {
		t.Fatal(err)
	}
	after, err := c.Status()
	if err != nil || after.PID == before.PID {
		t.Fatal(after, err)
	}
	s.want(t, c)
	wantTakeovers(t, m, 1)
}

// TestReload_doesNotWaitForTheLog reloads with a log receiver that is stuck:
// lines may be lost, clients not.
func TestReload_doesNotWaitForTheLog(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	s := saveSession(t, c, 60, "e", "p")
	release := m.HoldLog()
	complainAbout(t, c, 2000)
	replace(t, m)
	s.want(t, c)
	release()
}

// TestHandover_refusedByAServerForOneClient is about a server for one
// client.
func TestHandover_refusedByAServerForOneClient(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "")
	cmd, c := standAlone(t, m)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := c.Conn.(*fdpass.Conn).SendWith([]byte(list("request", "take_over")),
		int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	wantBytes(t, c, list("status", "1"))
	r.Read(make([]byte, 1)) // closed, or this would block
	c.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestDescriptors_ofMasterAreCloseOnExec: commands get none of them.
func TestDescriptors_ofMasterAreCloseOnExec(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "")
	dial(t, m)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", m.Cmd.Process.Pid, e.Name()))
		fd, _ := strconv.Atoi(e.Name())
		if err != nil || fd < 3 || fd > 6 { // others may be inherited from the caller of this test
			continue
		}
		for line := range strings.Lines(string(info)) {
			if octal, found := strings.CutPrefix(line, "flags:"); found {
				flags, _ := strconv.ParseInt(strings.TrimSpace(octal), 8, 64)
				if flags&unix.O_CLOEXEC == 0 {
					t.Errorf("descriptor %d is left to commands", fd)
				}
			}
		}
	}
}

// TestLog_brokenStandardError has a standard error that is broken.
func TestLog_brokenStandardError(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "socket")
	cmd := postfixtest.Command(binary, "--listen", path)
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	r.Close()
	w.Close()
	testenv.Eventually(t, "it listens", func() bool { return askOnce(path) == nil })
	c := talk(t, connect(t, path), true)
	complainAbout(t, c, 200)
	wantAnswer(t, c)
}

// connectNow connects to a socket without waiting.
func connectNow(path string) (*fdpass.Socket, error) {
	s, err := fdpass.NewStream()
	if err == nil {
		if err = s.Connect(path); err != nil {
			s.Close()
		}
	}
	return s, err
}
