// SPDX-License-Identifier: EPL-2.0

package server

// The world of a server under test, and what clients and administrators see of
// a server in good order: replies, descriptors, statistics.

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/client"
	"scache/internal/fdpass"
	"scache/internal/maillog"
	"scache/internal/testenv"
)

// A world is a server with all it touches: a clock that stands still, a log
// that is remembered, and descriptors that are really closed.
type world struct {
	*Server
	now   atomic.Int64
	mu    sync.Mutex
	lines []string
	alive func(fd int) bool // reports whether a session can still be used
}

func newWorld(t testing.TB) *world { return newWorldWith(t, func(*world) {}) }

// newWorldWith returns a world that is prepared before its server starts.
func newWorldWith(t testing.TB, prepare func(*world)) *world {
	w := &world{alive: func(int) bool { return true }}
	now := func() time.Duration { return time.Duration(w.now.Load()) }
	w.Server = &Server{Log: maillog.New(w), Timeout: time.Minute, Labels: NewLabels(now)}
	w.Cache = cache.New(cache.Config{
		Now:   now,
		Alarm: func(time.Duration) {},
		Alive: func(fd int) bool { return w.alive(fd) },
		Release: func(all []cache.Dropped) {
			for _, e := range all {
				w.Labels.dropped(e)
				if e.FD == fdpass.None {
					continue
				}
				if err := unix.Close(e.FD); err != nil {
					panic(err) // closed twice: the next time it hits a stranger
				}
			}
		},
	})
	t.Cleanup(func() { w.Cache.Clear() })
	prepare(w)
	start := time.Now()
	if err := w.Start(2, func() time.Duration { return time.Since(start) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// Write is for the log.
func (w *world) Write(_ maillog.Level, line string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, line)
	return nil
}

func (w *world) logged() []string {
	w.Log.Flush(time.Minute)
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

// wantWarning looks for a text in the log, where nothing but warnings may be.
func (w *world) wantWarning(t *testing.T, text string) {
	t.Helper()
	all := "\n" + strings.Join(w.logged(), "\n")
	if !strings.Contains(all, text) || strings.Count(all, "\n") != strings.Count(all, "\nwarning: ") {
		t.Errorf("no warning says %q, or there are not only warnings: %s", text, all)
	}
}

// A peer is the client's end of a conversation. It speaks raw bytes.
type peer struct {
	*fdpass.Conn
	t    testing.TB
	gone chan struct{} // closed once the server is done with it
}

func (w *world) connect(t testing.TB) *peer {
	t.Helper()
	p, theirs := newPeer(t)
	w.Accept(theirs, func(bool) { close(p.gone) })
	t.Cleanup(p.leave)
	return p
}

// newPeer returns a peer and the other end of its connection.
func newPeer(t testing.TB) (p *peer, theirs int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := testenv.UnixConn(t, fds[0])
	conn.SetDeadline(time.Now().Add(time.Minute)) // what fails, fails with a message
	return &peer{fdpass.New(conn), t, make(chan struct{})}, fds[1]
}

// leave closes the connection, and waits until the server has noticed.
func (p *peer) leave() {
	p.Close()
	<-p.gone
}

// wire turns the notation of protocol descriptions into bytes.
var wire = strings.NewReplacer(`\0`, "\x00", `\n`, "\n").Replace

// say sends bytes, with descriptors beside the last one. What is heard tells
// whether they were welcome.
func (p *peer) say(text string, fds ...int) {
	bytes := []byte(wire(text))
	if last := len(bytes) - 1; len(fds) > 0 {
		p.Write(bytes[:last])
		p.WriteMsgUnix(bytes[last:], unix.UnixRights(fds...), nil)
		return
	}
	p.Write(bytes)
}

// hear waits for exactly these bytes.
func (p *peer) hear(text string) {
	p.t.Helper()
	want := wire(text)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(p, got); string(got) != want {
		p.t.Fatalf("heard %q, %v, want %q", got, err, want)
	}
}

// miss has a request understood that finds nothing.
func (p *peer) miss() {
	p.t.Helper()
	p.say(`request\0find_endp\0label\0none\0\0`)
	p.hear(`status\02\0property\0\0\0`)
}

// wantInStep wants a request to be understood, and then to hear nothing more.
func (p *peer) wantInStep() {
	p.t.Helper()
	p.miss()
	p.CloseWrite()
	p.wantEnd()
}

// wantEnd waits until the server closes the connection, without another word.
func (p *peer) wantEnd() {
	p.t.Helper()
	if heard, _ := io.ReadAll(p.UnixConn); len(heard) > 0 {
		p.t.Errorf("heard %q, want the end", heard)
	}
	<-p.gone
}

// save has a session saved.
func (p *peer) save(endpoint string, fd int) {
	p.t.Helper()
	p.say(`request\0save_endp\0ttl\02\0label\0` + endpoint + `\0property\0of ` + endpoint + `\0\0`)
	p.hear(`dummy\0\0\0`)
	p.say(`\0`, fd)
	p.hear(`status\00\0\0`)
}

func TestConversation_repliesToTheByte(t *testing.T) {
	t.Parallel()
	_, fd := testenv.Pipe(t)
	defer unix.Close(fd)
	for _, piece := range []int{1, 2, 3, 7, everything} { // as the client's bytes may arrive
		for announce, announcement := range map[bool]string{
			true:  `protocol\0connection_cache_protocol\0\0`,
			false: "",
		} {
			w := newWorld(t)
			w.Announce = func() bool { return announce }
			p := w.connect(t)
			p.hear(announcement)
			p.play(fullConversation, fd, everything, piece, true)
			p.wantInStep()
			if lines := w.logged(); len(lines) > 0 {
				t.Errorf("logged %q", lines)
			}
		}
	}
}

func TestTTL_isInSeconds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect(t)
	r, fd := testenv.Pipe(t)
	p.save("e", fd)
	unix.Close(fd)
	p.say(`request\0save_dest\0ttl\02\0label\0d\0property\0\0label\0none\0\0`)
	p.hear(`status\00\0\0`)
	w.now.Store(int64(2*time.Second - 1))
	if got := w.Cache.Size(); got != (cache.Size{Destinations: 1, Endpoints: 1, Sessions: 1}) {
		t.Errorf("just before the end: %+v", got)
	}
	w.now.Store(int64(3 * time.Second))
	if got := w.Cache.Size(); got != (cache.Size{}) {
		t.Errorf("after the end: %+v", got)
	}
	testenv.WantClosed(t, r)
}

// stamp is a moment as syslog has it.
func stamp(t time.Time) string {
	return fmt.Sprintf("%s %2d %02d:%02d:%02d", t.Month().String()[:3], t.Day(), t.Hour(), t.Minute(),
		t.Second())
}

func TestStatistics_ofIntervals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var want []string
	synctest.Test(t, func(t *testing.T) { // the only clock is that of the bubble
		stop := w.Statistics(10 * time.Minute)
		time.Sleep(time.Second) // to be beside the ticks
		for _, interval := range []struct{ does, want string }{
			{"", ""},
			{"d", "domain lookup hits=0 miss=1 success=0%"},
			{"e", "address lookup hits=0 miss=1 success=0%"},
			{"", ""},
			{"D", "max simultaneous domains=1 addresses=0 connection=0"},
			{"EEeee",
				"address lookup hits=2 miss=1 success=66%|max simultaneous domains=0 addresses=1 connection=2"},
			{"edEDddEe",
				"domain lookup hits=1 miss=2 success=33%|address lookup hits=1 miss=1 success=50%|" +
					"max simultaneous domains=1 addresses=1 connection=1"},
			{"d", "domain lookup hits=0 miss=1 success=0%"},
		} {
			if interval.want != "" {
				lines := "start interval " + stamp(time.Now().Add(-time.Second)) + "|" + interval.want
				want = append(want, strings.Split(lines, "|")...)
			}
			for _, do := range interval.does {
				w.do(t, do)
			}
			w.Cache.Clear()
			time.Sleep(10 * time.Minute)
		}
		w.do(t, 'd')
		want = append(want, "start interval "+stamp(time.Now().Add(-time.Second)),
			"domain lookup hits=0 miss=1 success=0%")
		stop()
	})
	if got, want := strings.Join(w.logged(), "\n"),
		"statistics: "+strings.Join(want, "\nstatistics: "); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// do saves (a capital letter) or finds, by destination (d) or endpoint (e).
func (w *world) do(t *testing.T, what rune) {
	label := []byte{'x'}
	var s cache.Session
	switch what {
	case 'D':
		w.Cache.SaveBinding(time.Hour, label, nil, label)
	case 'E':
		_, fd := testenv.Pipe(t)
		w.Cache.SaveSession(time.Hour, label, nil, fd)
	case 'd':
		s, _ = w.Cache.FindDestination(label)
	case 'e':
		s, _ = w.Cache.FindEndpoint(label)
	}
	if s.FD > 0 {
		unix.Close(s.FD)
	}
}

func BenchmarkPair(b *testing.B) {
	c := client.Detect(newWorld(b).connect(b).Conn)
	_, fd := testenv.Pipe(b)
	defer unix.Close(fd)
	const label, property = "smtp\n127.0.0.1\n25\n0\n", "reuse_count=1\n"
	b.ReportAllocs()
	for b.Loop() {
		status, err := c.SaveEndpoint(9, label, property, fd)
		if status != client.OK || err != nil {
			b.Fatal(status, err)
		}
		f, err := c.FindEndpoint(label)
		if f.Code != client.OK || err != nil {
			b.Fatal(f, err)
		}
		unix.Close(f.FD)
	}
}

// TestPipelinedRequests_doNotStall has a client that does not read, and fills the buffer of its
// connection step by step. epoll(7) calls a buffer ready only while a quarter of it is free, and
// the server must not wait for that while it has room.
func TestPipelinedRequests_doNotStall(t *testing.T) {
	t.Parallel()
	for _, requests := range []int{500, 1000, 1500, 2000} {
		w := newWorld(t)
		p := w.connect(t)
		p.say(strings.Repeat(wire(`request\0find_dest\0label\0d\0\0`), requests))
		testenv.Eventually(t, fmt.Sprintf("%d requests are processed", requests), func() bool {
			return w.Cache.Totals().Destination.Misses == int64(requests)
		})
	}
}

// TestWorker_cannotWatch serves clients that epoll(7) refuses, as it does at a limit: each is
// disconnected, and one warning says so.
func TestWorker_cannotWatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worker := stillWorker(t, w)
	gone := 0
	for range 3 {
		file, err := os.Open(os.DevNull) // may not be watched
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		c := newConversation(fd)
		c.onClose = func(bool) { gone++ }
		worker.count.Add(1)
		w.register()
		worker.begin(c)
	}
	if gone != 3 || len(worker.clients) != 0 {
		t.Errorf("got %d of 3 clients disconnected, %d still served", gone, len(worker.clients))
	}
	w.wantWarning(t, "watch connection: ")
	if lines := w.logged(); len(lines) != 1 {
		t.Errorf("got %q, want one line", lines)
	}
}
