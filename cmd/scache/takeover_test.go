// SPDX-License-Identifier: EPL-2.0

// Tests of what happens to clients and sessions when the daemon is replaced.

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// A saved is a session that a test has saved, and will look for.
type saved struct {
	label, property string
	inode           uint64
}

func saveSession(t *testing.T, c *client.Client, ttl int32, label, property string) saved {
	t.Helper()
	fd := testenv.NewDescriptor(t)
	if status, err := c.SaveEndpoint(ttl, label, property, fd); err != nil || status != client.OK {
		t.Fatal(status, err)
	}
	return saved{label, property, inode(t, fd)}
}

func (s saved) want(t *testing.T, c *client.Client) {
	t.Helper()
	f, err := c.FindEndpoint(s.label)
	if err != nil || f.Code != client.OK || f.Property != s.property {
		t.Fatalf("%+v: got %+v, %v", s, f, err)
	}
	if got := inode(t, f.FD); got != s.inode {
		t.Errorf("%+v: got inode %d", s, got)
	}
}

// replace reloads the daemon, and starts the next one when the first has asked
// for it.
func replace(t *testing.T, m *postfixtest.Master) {
	t.Helper()
	if err := m.HangUp(); err != nil {
		t.Fatal(err)
	}
	if err := m.StartWhenNeeded(time.Minute); err != nil {
		t.Fatalf("%v\n%q", err, m.Log())
	}
}

func wantNoWarnings(t *testing.T, m *postfixtest.Master) {
	t.Helper()
	for _, text := range m.Texts() {
		if !strings.HasPrefix(text, "statistics: ") && !strings.HasPrefix(text, "takeover: ") {
			t.Error(text)
		}
	}
}

func TestReload_repeatedUnderLoad(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const sessions, bindings, clients, takeovers = 5000, 300, 200, 10
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	var all []saved
	for i := range sessions {
		all = append(all, saveSession(t, c, 3600, fmt.Sprintf("endpoint\n%d\n", i%(sessions/5)),
			fmt.Sprint("property ", i)))
	}
	for i := range bindings {
		if status, err := c.SaveDestination(3600, fmt.Sprint("destination ", i/3),
			fmt.Sprint("property ", i), fmt.Sprint("nowhere ", i)); err != nil || status != client.OK {
			t.Fatal(status, err)
		}
	}
	var idle []*client.Client
	for i := range clients {
		idle = append(idle, dial(t, m))
		if f, err := idle[i].FindEndpoint("miss"); err != nil || f.Code != client.NotFound {
			t.Fatal(f, err)
		}
	}
	before := stableDescriptors(t, m)
	for n := range takeovers {
		replace(t, m)
		if !m.WaitForTexts("takeover: sessions=5000 bindings=300 clients=201 lost=0", n+1) {
			t.Fatalf("takeover %d: %q", n, m.Texts())
		}
	}
	wantDescriptors(t, m, before)
	for i, c := range idle {
		if f, err := c.FindEndpoint("miss"); err != nil || f.Code != client.NotFound {
			t.Fatalf("client %d: %+v, %v", i, f, err)
		}
	}
	for i, s := range all {
		s.want(t, idle[i%clients])
	}
	for i := 0; i < bindings; i += 3 { // each destination has three, the first of which comes first
		wantBindings(t, c, fmt.Sprint("destination ", i/3), i)
	}
	wantNoWarnings(t, m)
}

// wantBindings gives all three endpoints of a destination a session, the last one
// first, and looks in which order they are found.
func wantBindings(t *testing.T, c *client.Client, destination string, first int) {
	t.Helper()
	for i := first + 2; i >= first; i-- {
		saveSession(t, c, 60, fmt.Sprint("nowhere ", i), "")
	}
	for i := range 3 {
		f, err := c.FindDestination(destination)
		if err != nil || f.Code != client.OK ||
			f.DestinationProperty != fmt.Sprint("property ", first+i) {
			t.Fatalf("%s: got %+v, %v", destination, f, err)
		}
		unix.Close(f.FD)
	}
}

// TestReload_keepsTheRestOfTheTTL looks when a session is closed whose time to
// live spans two reloads.
func TestReload_keepsTheRestOfTheTTL(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	start := time.Now()
	if status, err := c.SaveEndpoint(4, "e", "p", int(w.Fd())); err != nil || status != client.OK {
		t.Fatal(status, err)
	}
	saved := time.Now()
	w.Close()
	replace(t, m)
	replace(t, m)
	r.Read(make([]byte, 1)) // until the daemon closes it
	if lived := time.Since(start); lived < 4*time.Second || time.Since(saved) > 14*time.Second {
		t.Errorf("a session with a time to live of 4s was closed after %v", lived)
	}
	wantNoWarnings(t, m)
}

// TestReload_continuesRequests reloads, twice, while clients are in the middle of
// a request: each goes on where it stopped, and nothing is said about it.
func TestReload_continuesRequests(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	idle := dial(t, m)
	s, other := saveSession(t, idle, 60, "e", "p"), saveSession(t, idle, 60, "f", "p")

	half := dial(t, m)
	half.Conn.Write([]byte("request\x00find_endp\x00la"))
	owesDescriptor := dial(t, m)
	fd := testenv.NewDescriptor(t)
	owesDescriptor.Conn.Write([]byte(list("request", "save_endp", "ttl", "60", "label", "g",
		"property", "p")))
	wantBytes(t, owesDescriptor, list("dummy", ""))
	owesDummy := dial(t, m)
	owesDummy.Conn.Write([]byte(list("request", "find_endp", "label", "f")))
	wantBytes(t, owesDummy, list("status", "0", "property", "p"))
	for _, c := range []*client.Client{half, owesDescriptor, owesDummy} {
		waitUntilRead(t, c)
	}
	replace(t, m)
	replace(t, m)

	half.Conn.Write([]byte("bel\x00e\x00\x00"))
	wantBytes(t, half, list("status", "0", "property", "p"))
	half.Conn.Write([]byte(list("dummy", "")))
	wantDescriptor(t, half, s.inode)
	owesDescriptor.Conn.Send(fd)
	wantBytes(t, owesDescriptor, list("status", "0"))
	saved{"g", "p", inode(t, fd)}.want(t, idle)
	owesDummy.Conn.Write([]byte(list("dummy", "")))
	wantDescriptor(t, owesDummy, other.inode)
	owesDummy.Conn.Write([]byte(list("dummy", "")))
	wantAnswer(t, owesDummy)
	wantNoWarnings(t, m)
}

// wantBytes reads exactly these bytes.
func wantBytes(t *testing.T, c *client.Client, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c.Conn, got); string(got) != want || err != nil {
		t.Fatalf("heard %q, %v, want %q", got, err, want)
	}
}

// wantDescriptor reads a descriptor.
func wantDescriptor(t *testing.T, c *client.Client, want uint64) {
	t.Helper()
	wantBytes(t, c, "\x00")
	fd, err := c.Conn.Take()
	if err != nil {
		t.Fatal(err)
	}
	if got := inode(t, fd); got != want {
		t.Errorf("got inode %d, want %d", got, want)
	}
}

// waitUntilRead waits until the daemon has read all that a client wrote. What it
// has not read, it would leave to the next process.
func waitUntilRead(t *testing.T, c *client.Client) {
	t.Helper()
	fd, err := c.Conn.(*fdpass.Conn).FD()
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "all is read", func() bool {
		n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
}

// TestReload_toTheStockServerAndBack replaces the daemon by the stock one, and that by
// ours again.
func TestReload_toTheStockServerAndBack(t *testing.T) {
	t.Parallel()
	stock := postfixtest.NeedPostfix(t)
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if status, err := c.SaveEndpoint(3600, "e", "p", int(w.Fd())); err != nil || status != client.OK {
		t.Fatal(status, err)
	}
	w.Close()
	m.Binary = stock
	replace(t, m)
	r.Read(make([]byte, 1)) // closed, or this would block
	if _, err := c.FindEndpoint("e"); err == nil {
		t.Error("the stock server serves a client of ours")
	}
	fresh := dial(t, m)
	if f, err := fresh.FindEndpoint("e"); err != nil || f.Code != client.NotFound {
		t.Errorf("got %+v, %v", f, err)
	}
	var warnings []string
	for _, text := range m.Texts() {
		if strings.HasPrefix(text, "warning: ") {
			warnings = append(warnings, text)
		}
	}
	if len(warnings) > 1 {
		t.Errorf("%d warnings: %q", len(warnings), warnings)
	}
	if err := m.HangUp(); err != nil {
		t.Fatal(err)
	}
	m.Binary = binary
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	c = dial(t, m)
	saveSession(t, c, 60, "e", "p").want(t, c)
}

// TestTerminate_doesNotHandOver ends the daemon for good.
func TestTerminate_doesNotHandOver(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "")
	c := dial(t, m)
	saveSession(t, c, 60, "e", "p")
	m.Cmd.Process.Signal(unix.SIGTERM)
	if err := m.Wait(); err != nil {
		t.Error(err)
	}
	if err := m.StartWhenNeeded(100 * time.Millisecond); err == nil {
		t.Error("another process has connected to the socket")
	}
}

// TestReload_limits reloads again and again with limits and numbers as sites have them:
// nothing is lost, and nothing leaks.
func TestReload_limits(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	var highest unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &highest); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		files, sessions, clients, reloads int
		room                              int // for this number of sessions
	}{
		"highest limit": {int(min(highest.Max, 1<<30)), 50, 5, 3, 50},
		// 64 descriptors are for the process itself, and two for each client.
		"tight limit":  {600, 400, 90, 20, 600 - 64 - 2*90},
		"many reloads": {10000, 500, 5, 40, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := startWithFiles(t, binary, test.files)
			reloadAgainAndAgain(t, m, test.sessions, test.clients, test.reloads, test.room)
		})
	}
}

// reloadAgainAndAgain has a daemon keep the last sessions of those that are saved, as far as
// there is room.
func reloadAgainAndAgain(
	t *testing.T, m *postfixtest.Master, sessions, clients, reloads, room int,
) {
	t.Helper()
	var all []saved
	idle := []*client.Client{dial(t, m)}
	for i := range sessions {
		all = append(all, saveSession(t, idle[0], 3600, fmt.Sprint("e", i), fmt.Sprint("p", i)))
	}
	for len(idle) < clients {
		c := dial(t, m)
		if f, err := c.FindEndpoint("miss"); err != nil || f.Code != client.NotFound {
			t.Fatal(f, err)
		}
		idle = append(idle, c)
	}
	before := stableDescriptors(t, m)
	for n := range reloads {
		replace(t, m)
		line := fmt.Sprintf("takeover: sessions=%d bindings=0 clients=%d lost=0", room, clients)
		if !m.WaitForTexts(line, n+1) {
			t.Fatalf("reload %d: %q", n, m.Texts())
		}
	}
	wantDescriptors(t, m, before)
	for i, s := range all[sessions-room:] {
		s.want(t, idle[i%clients])
	}
	wantNoWarnings(t, m)
}
