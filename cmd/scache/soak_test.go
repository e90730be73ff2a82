// SPDX-License-Identifier: EPL-2.0

// A soak test: hundreds of clients do random, slow, broken and vanishing things,
// while the daemon is reloaded again and again.

package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
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

// A soak is one run of the test.
type soak struct {
	*postfixtest.Master
	end time.Time

	// Each session is one end of a connection. The other one is kept here by
	// the inode of the first, and tells when the last copy of that is closed.
	mu      sync.Mutex
	remotes map[uint64]int

	operations, saves, hits, closed, farewells, broken atomic.Int64
	failures                                           atomic.Int64
	wrong                                              atomic.Pointer[string]
}

func TestSoak(t *testing.T) {
	testenv.SkipShort(t)
	duration := 10 * time.Second
	if text := os.Getenv("DURATION"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	m := startMaster(t, binary, `connection_cache_ttl_limit=5s
connection_cache_status_update_time=1s
ipc_timeout=2s
connection_cache_goodbye=QUIT`)
	s := &soak{Master: m, end: time.Now().Add(duration), remotes: map[uint64]int{}}
	seed := uint64(time.Now().UnixNano())
	t.Logf("%v, seed %d", duration, seed)
	first := dial(t, m)
	before := stableDescriptors(t, m)

	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() { s.client(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	end := s.startAndStop(t, &all)
	all.Go(func() { s.stallLog() })
	all.Go(s.sweep)
	reloads := 0
	for time.Now().Before(s.end) {
		tick := time.NewTimer(300 * time.Millisecond)
		<-tick.C
		replace(t, m)
		reloads++
	}
	all.Wait()
	end()

	for limit := time.Now().Add(time.Minute); s.sweepOnce() > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d sessions are neither cached nor closed", len(s.remotes))
		}
	}
	s.wantAllAccountedFor(t, first)
	if f, err := first.FindEndpoint("miss"); err != nil || f.Code != client.NotFound {
		t.Errorf("the first client: %+v, %v", f, err)
	}
	after := before + 1
	limit := time.Now().Add(time.Minute)
	for ; after > before && time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		after = descriptors(t, m) // until the last clients are gone
	}
	if after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	memory := residentMemory(t, m)
	if memory > 100<<20 {
		t.Errorf("%d MB of resident memory", memory>>20)
	}
	if text := s.wrong.Load(); text != nil {
		t.Error(*text)
	}
	for _, text := range m.Texts() {
		if strings.HasPrefix(text, "panic: ") || strings.HasPrefix(text, "fatal: ") {
			t.Error(text)
		}
	}
	goroutines := goroutines(m)
	if goroutines == 0 || goroutines > 25 {
		t.Errorf("%d goroutines with one client", goroutines)
	}
	if failures, operations := s.failures.Load(), s.operations.Load(); failures > 0 ||
		operations == 0 {
		t.Errorf("%d of %d operations failed", failures, operations)
	}
	wantTakeovers(t, m, 1) // the line of a reload may be lost, while the log stalls
	t.Logf("%d operations: %d saves, %d hits, %d expired, %d broken clients, %d reloads, "+
		"%d failures; %d descriptors, %d goroutines, %d KB resident",
		s.operations.Load(), s.saves.Load(), s.hits.Load(), s.closed.Load()-s.hits.Load(),
		s.broken.Load(), reloads, s.failures.Load(), after, goroutines, memory>>10)
}

// wantAllAccountedFor compares what was saved, in all processes together, with
// what became of it, when nothing is cached any more.
func (s *soak) wantAllAccountedFor(t *testing.T, c *client.Client) {
	t.Helper()
	var st control.Status
	testenv.Eventually(t, "the cache is empty", func() (empty bool) {
		var err error
		if st, err = c.Status(); err != nil {
			t.Fatal(err)
		}
		return st.Sessions == 0
	})
	found, closed := st.DestinationHits+st.EndpointHits, st.Expired+st.Dead+st.Evicted+st.Flushed
	if st.Saved != found+closed || st.Dead > 0 || st.Saved < s.saves.Load() {
		t.Errorf("%d sessions were saved, %d found, and %d closed, some for being dead: %+v", st.Saved,
			found, closed, st)
	}
	// The client that is stopped finds some, too, and takes no leave of them.
	if want := s.closed.Load() - s.hits.Load(); s.farewells.Load() < want*9/10 {
		t.Errorf("%d sessions were closed, and %d of them with a farewell", want, s.farewells.Load())
	}
}

func descriptors(t *testing.T, m *postfixtest.Master) int {
	t.Helper()
	n, err := m.Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wantDescriptors waits until this number of descriptors is open. A process that has just
// started has some more until it knows the version of Postfix.
func wantDescriptors(t *testing.T, m *postfixtest.Master, n int) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprintf("%d descriptors are open", n), func() bool {
		return descriptors(t, m) == n
	})
}

func residentMemory(t *testing.T, m *postfixtest.Master) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", m.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int
	fmt.Sscan(string(data), &size, &resident)
	return resident * os.Getpagesize()
}

// goroutines ends the daemon in a way that makes it show all its goroutines, and
// counts them.
func goroutines(m *postfixtest.Master) (n int) {
	m.Cmd.Process.Signal(unix.SIGQUIT)
	m.Wait()
	for _, line := range m.Log() {
		if strings.HasPrefix(line, "stderr: goroutine ") {
			n++
		}
	}
	return n
}

// client is one client after another, each of a random kind.
func (s *soak) client(r *rand.Rand) {
	for time.Now().Before(s.end) {
		switch r.IntN(10) {
		case 0:
			s.vanish(r)
		case 1:
			s.garbage(r)
		case 2:
			s.stall(r)
		case 3:
			s.work(r, true)
		default:
			s.work(r, false)
		}
	}
}

// A slowConn is the connection of a client that stops at any place.
type slowConn struct {
	*fdpass.Conn
	*rand.Rand
}

func (c slowConn) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := 1 + c.IntN(len(rest))
		if _, err := c.Conn.Write(rest[:n]); err != nil {
			return 0, err
		}
		c.stop()
		rest = rest[n:]
	}
	return len(p), nil
}

func (c slowConn) Send(fd int) error {
	c.stop()
	return c.Conn.Send(fd)
}

func (c slowConn) stop() { time.Sleep(time.Duration(c.IntN(50)) * time.Millisecond) }

// work is an ordinary client, for some operations; or a slow one.
func (s *soak) work(r *rand.Rand, slow bool) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.Socket, Net: "unix"})
	if err != nil {
		s.fail(err)
		return
	}
	var end client.Conn = fdpass.New(conn)
	if slow {
		end = slowConn{fdpass.New(conn), r}
	}
	defer conn.Close()
	c, err := postfixtest.NewClient(end, true)
	if err != nil {
		s.fail(err)
		return
	}
	for range r.IntN(200) {
		if err := s.operation(r, c); err != nil {
			s.fail(err)
			return
		}
		s.operations.Add(1)
		if r.IntN(20) == 0 {
			time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond) // as a delivery takes
		}
	}
}

func (s *soak) operation(r *rand.Rand, c *client.Client) error {
	endpoint := fmt.Sprint("endpoint ", r.IntN(50))
	destination := fmt.Sprint("destination ", r.IntN(50))
	switch r.IntN(4) {
	case 0:
		_, err := c.SaveDestination(int32(1+r.IntN(9)), destination, "property", endpoint)
		return err
	case 1:
		if r.IntN(4) == 0 {
			endpoint = fmt.Sprint("not asked for ", r.IntN(1000)) // it will expire
		}
		return s.save(r, c, endpoint)
	case 2:
		f, err := c.FindEndpoint(endpoint)
		return s.found(f, err)
	default:
		f, err := c.FindDestination(destination)
		return s.found(f, err)
	}
}

// save saves a session whose property is its inode.
func (s *soak) save(r *rand.Rand, c *client.Client, endpoint string) error {
	s.mu.Lock()
	full := len(s.remotes) > 4000
	s.mu.Unlock()
	if full {
		return nil
	}
	const kind = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	pair, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[1])
	var st unix.Stat_t
	if err := unix.Fstat(pair[1], &st); err != nil {
		return err
	}
	s.mu.Lock()
	s.remotes[st.Ino] = pair[0]
	s.mu.Unlock()
	s.saves.Add(1)
	status, err := c.SaveEndpoint(int32(1+r.IntN(9)), endpoint, fmt.Sprint(st.Ino), pair[1])
	if err == nil && status != client.OK {
		err = fmt.Errorf("save_endp: status %d", status)
	}
	return err
}

// found checks that a session is what its property says.
func (s *soak) found(f client.Found, err error) error {
	if err != nil || f.Code != client.OK {
		return err
	}
	defer unix.Close(f.FD)
	var st unix.Stat_t
	if err := unix.Fstat(f.FD, &st); err != nil {
		return err
	}
	s.mu.Lock()
	if _, ours := s.remotes[st.Ino]; ours { // and not of the client that is stopped
		s.hits.Add(1)
	}
	s.mu.Unlock()
	if f.Property != fmt.Sprint(st.Ino) {
		text := fmt.Sprintf("a session with the property %s has the inode %d", f.Property, st.Ino)
		s.wrong.Store(&text)
	}
	return nil
}

// conversation is what a client sends to save and find; vanish and stall stop
// anywhere in it.
const conversation = "request\x00save_dest\x00ttl\x002\x00" +
	"label\x00d\x00property\x00p\x00label\x00e\x00\x00" +
	"request\x00find_dest\x00label\x00d\x00\x00dummy\x00\x00\x00dummy\x00\x00\x00" +
	"request\x00save_endp\x00ttl\x002\x00label\x00e\x00property\x00p\x00\x00\x00"

func (s *soak) vanish(r *rand.Rand) { s.talk([]byte(conversation[:r.IntN(len(conversation))]), 0) }

func (s *soak) stall(r *rand.Rand) {
	s.talk([]byte(conversation[:r.IntN(len(conversation))]), time.Duration(r.IntN(4))*time.Second)
}

func (s *soak) garbage(r *rand.Rand) {
	data := make([]byte, r.IntN(500))
	for i := range data {
		data[i] = byte(max(r.IntN(512)-256, 0)) // half of it NULs
	}
	s.talk(data, 0)
}

// talk sends bytes, and waits this long whether the daemon hangs up.
func (s *soak) talk(data []byte, wait time.Duration) {
	s.broken.Add(1)
	conn, err := net.Dial("unix", s.Socket)
	if err != nil {
		s.fail(err)
		return
	}
	defer conn.Close()
	conn.Write(data)
	conn.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 4096)
	for {
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// startAndStop runs a client in a process of its own, and stops that process most of
// the time. end ends it: not before the others have ended, as its sessions die with it.
func (s *soak) startAndStop(t *testing.T, all *sync.WaitGroup) (end func()) {
	t.Helper()
	cmd := postfixtest.Command(os.Args[0], "-test.run=^TestSoak_client$")
	cmd.Env = append(os.Environ(), "SOAK_SOCKET="+s.Socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	all.Go(func() {
		for time.Now().Before(s.end) {
			cmd.Process.Signal(unix.SIGSTOP)
			time.Sleep(200 * time.Millisecond)
			cmd.Process.Signal(unix.SIGCONT)
			time.Sleep(10 * time.Millisecond)
		}
		cmd.Process.Signal(unix.SIGSTOP)
	})
	return func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

// TestSoak_client is the client that is stopped.
func TestSoak_client(t *testing.T) {
	testenv.SkipShort(t)
	path := os.Getenv("SOAK_SOCKET")
	if path == "" {
		return // this is no test of its own
	}
	r := rand.New(rand.NewPCG(1, 2))
	s := &soak{Master: &postfixtest.Master{Socket: path}, end: time.Now().Add(time.Hour),
		remotes: map[uint64]int{}}
	s.client(r)
}

// stallLog stops the log receiver now and then.
func (s *soak) stallLog() {
	for time.Now().Before(s.end) {
		release := s.HoldLog()
		time.Sleep(500 * time.Millisecond)
		release()
		time.Sleep(500 * time.Millisecond)
	}
}

// sweep forgets sessions that are closed.
func (s *soak) sweep() {
	for time.Now().Before(s.end) {
		s.sweepOnce()
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *soak) sweepOnce() (left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	buf := make([]byte, 100)
	for inode, remote := range s.remotes {
		n, err := unix.Read(remote, buf)
		if n > 0 {
			if string(buf[:n]) != "QUIT\r\n" {
				text := fmt.Sprintf("a session has heard %q", buf[:n])
				s.wrong.Store(&text)
			}
			s.farewells.Add(1)
			n, err = unix.Read(remote, buf)
		}
		if n == 0 && err == nil {
			unix.Close(remote)
			delete(s.remotes, inode)
			s.closed.Add(1)
		}
	}
	return len(s.remotes)
}

// fail counts an operation that has failed, and keeps the first reason.
func (s *soak) fail(err error) {
	s.failures.Add(1)
	text := fmt.Sprintf("an operation has failed: %v", err)
	s.wrong.CompareAndSwap(nil, &text)
}
