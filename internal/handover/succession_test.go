// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/fdpass"
	"scache/internal/topk"
)

// An heir that remembers what it was left.
type heir struct{ Estate }

func (h *heir) RestoreCounts(c Counts)              { h.Counts = c }
func (h *heir) RestoreClient(c Client)              { h.Clients = append(h.Clients, c) }
func (h *heir) RestoreBinding(b cache.SavedBinding) { h.Bindings = append(h.Bindings, b) }
func (h *heir) RestoreSession(s cache.SavedSession) { h.Sessions = append(h.Sessions, s) }
func (h *heir) RestoreHits(one Hits)                { h.Hits = append(h.Hits, one) }
func (h *heir) close() {
	for _, s := range h.Sessions {
		unix.Close(s.FD)
	}
	for _, c := range h.Clients {
		closeAll(c.descriptors())
	}
}

// A place is a listening socket that nobody serves.
type place struct {
	path     string
	listener int
}

func newPlace(t testing.TB) place {
	t.Helper()
	p := place{path: filepath.Join(t.TempDir(), "socket")}
	var err error
	if p.listener, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p.listener) })
	if err := errors.Join(unix.Bind(p.listener, &unix.SockaddrUnix{Name: p.path}), unix.Listen(p.listener, 3)); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p place) route(t testing.TB) Route {
	t.Helper()
	owner, err := fdpass.PeerOf(p.listener)
	if err != nil {
		t.Fatal(err)
	}
	return Route{Path: p.path, Owner: owner, Now: time.Hour}
}

// message accepts who has left something, and returns the descriptor of the message.
func (p place) message(t testing.TB) int {
	t.Helper()
	for {
		fd, err := fdpass.Accept(p.listener)
		if err != nil {
			t.Fatal("nobody is in line: ", err)
		}
		s := fdpass.NewSocket(fd)
		buf := make([]byte, 100)
		n, err := s.Receive(buf)
		if err != nil { // somebody else
			s.Close()
			continue
		}
		got, err := s.Take()
		s.Close()
		if string(buf[:n]) != "request\x00take_over\x00\x00" || err != nil {
			t.Fatalf("got %q, %v", buf[:n], err)
		}
		return got
	}
}

// file returns a descriptor with an inode of its own, and its inode.
func file(t testing.TB) (fd int, inode uint64) {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return fd, inodeOf(t, fd)
}

func inodeOf(t testing.TB, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// an estate with so many clients and sessions, and the inodes of all descriptors
// in order.
func estate(t testing.TB, clients, sessions int) (e *Estate, inodes []uint64) {
	t.Helper()
	next := func() int {
		fd, inode := file(t)
		inodes = append(inodes, inode)
		return fd
	}
	e = &Estate{Counts: Counts{Totals: cache.Totals{Saved: 7, Peak: cache.Size{Sessions: 3}}, Connections: 9, Age: time.Minute}}
	e.Counts.Ended[cache.Dead] = 4
	e.Counts.Took.Counts[3], e.Counts.Took.Sum = 5, time.Second
	e.Hits = []Hits{{Level: "endpoint", Entry: topk.Entry{Label: "e\n", Counts: topk.Counts{1, 2, 3, 4, 5, 6}, Error: 7}, Age: 30 * time.Minute}}
	for i := range clients {
		c := Client{FD: next(), State: BetweenRequests, Session: -1, AckDue: i%2 == 1, Unread: fmt.Appendf(nil, "req\x00%d", i)}
		if i%3 == 0 {
			c.State, c.Session, c.Unwritten, c.Left = DummyDue, next(), []byte("reply\x00"), time.Second
		}
		e.Clients = append(e.Clients, c)
	}
	e.Bindings = []cache.SavedBinding{{Age: time.Second, TTL: time.Minute, Label: "d\n", Property: "p", Endpoint: "e\n"}}
	for i := range sessions {
		e.Sessions = append(e.Sessions, cache.SavedSession{Age: time.Second, TTL: time.Minute, Label: fmt.Sprint("e", i), Property: "p\n", FD: next()})
	}
	return e, inodes
}

// inodes returns those of all descriptors of an estate, in order.
func (e *Estate) inodes(t testing.TB) (all []uint64) {
	for _, c := range e.Clients {
		for _, fd := range c.descriptors() {
			all = append(all, inodeOf(t, fd))
		}
	}
	for _, s := range e.Sessions {
		all = append(all, inodeOf(t, s.FD))
	}
	return all
}

// forget makes estates comparable: their descriptors differ.
func (e *Estate) forget() {
	for i := range e.Clients {
		e.Clients[i].FD = 0
		e.Clients[i].Session = min(e.Clients[i].Session, 0)
	}
	for i := range e.Sessions {
		e.Sessions[i].FD = 0
	}
}

func receive(t testing.TB, fd int, now time.Duration) (*heir, Receipt, error) {
	t.Helper()
	h := &heir{}
	r, err := Receive(fd, h, func() time.Duration { return now }, []byte("hello"), make(chan struct{}))
	return h, r, err
}

func TestWhatIsLeftArrives(t *testing.T) {
	for _, size := range []struct{ clients, sessions int }{{0, 0}, {1, 0}, {0, 1}, {5, 3}, {300, 600}} {
		before := openDescriptors(t)
		p := newPlace(t)
		e, inodes := estate(t, size.clients, size.sessions)
		if rest, err := Leave(p.route(t), e); err != nil || len(rest) > 0 {
			t.Fatal(rest, err)
		}
		h, r, err := receive(t, p.message(t), time.Hour+time.Second)
		if want := (Receipt{size.sessions, 1, size.clients, 0}); r != want || err != nil {
			t.Fatalf("%+v: got %+v, %v", size, r, err)
		}
		if got := h.inodes(t); !slices.Equal(got, inodes) {
			t.Errorf("%+v: descriptors are not in order", size)
		}
		h.close()
		// A second has passed.
		e.Counts.Age += time.Second
		e.Hits[0].Age += time.Second
		for i := range e.Clients {
			if e.Clients[i].Left > 0 {
				e.Clients[i].Left = -1 // which is over
			}
		}
		for i := range h.Clients {
			if h.Clients[i].Left == 0 && h.Clients[i].State == DummyDue {
				h.Clients[i].Left = -1
			}
		}
		e.Bindings[0].Age, e.Bindings[0].TTL = 2*time.Second, 59*time.Second
		for i := range e.Sessions {
			e.Sessions[i].Age, e.Sessions[i].TTL = 2*time.Second, 59*time.Second
		}
		e.forget()
		h.forget()
		if !reflect.DeepEqual(h.Estate, *e) {
			t.Errorf("got  %+v\nwant %+v", h.Estate, *e)
		}
		if after := openDescriptors(t) - 1; after != before { // that of the listener
			t.Errorf("%+v: %d descriptors are open, were %d", size, after, before)
		}
	}
}

// golden are descriptions that earlier versions left, and what they say.
var golden = []struct {
	file        string
	now         time.Duration
	descriptors int
	want        Receipt
}{
	{"version1", 5076505480237, 4, Receipt{2, 1, 2, 0}},
	{"version2", 5076861902652, 7, Receipt{1, 1, 5, 0}},
}

func BenchmarkDescribe(b *testing.B) {
	e := &Estate{Sessions: make([]cache.SavedSession, 1000)}
	for i := range e.Sessions {
		e.Sessions[i] = cache.SavedSession{TTL: time.Hour, Label: strings.Repeat("l", 50), Property: strings.Repeat("p", 200)}
	}
	var out bytes.Buffer
	for b.Loop() {
		out.Reset()
		if err := describe(&out, e, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}
