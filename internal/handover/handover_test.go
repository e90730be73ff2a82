// SPDX-License-Identifier: EPL-2.0

// Survivors of "make mutants PKG=internal/handover" that are equal in behaviour:
//
//   - Bounds that are far above what is written, one more or less; one more wait for some
//     milliseconds, or for longer; one more pipe that is acquired, or is sent without anything
//     in it; one more batch that is asked for and is not there. Room that is reserved.
//   - A read of the memory file is tried again. That needs a kernel that refuses it: see the
//     tests of cmd/scache that make system calls fail.

package handover

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/fdpass"
	"scache/internal/receivers"
	"scache/internal/stats"
	"scache/internal/testenv"
	"scache/internal/topk"
)

// close closes the descriptors of a state.
func (s *State) close() {
	for _, c := range s.Claims {
		unix.Close(c.FD)
	}
	for _, session := range s.Sessions {
		unix.Close(session.FD)
	}
	for _, c := range s.Clients {
		closeAll(c.descriptors())
	}
}

// A place is a listening socket that no process serves.
type place struct {
	path     string
	listener int
}

func newPlace(t testing.TB) place {
	t.Helper()
	p := place{path: filepath.Join(t.TempDir(), "socket")}
	var err error
	if p.listener, err = unix.Socket(unix.AF_UNIX,
		unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p.listener) })
	if err := errors.Join(unix.Bind(p.listener, &unix.SockaddrUnix{Name: p.path}),
		unix.Listen(p.listener, 3)); err != nil {
		t.Fatal(err)
	}
	return p
}

// sender returns one that sends to the place at the time of one hour.
func (p place) sender(t testing.TB) *Sender {
	t.Helper()
	owner, err := fdpass.PeerOf(p.listener)
	if err != nil {
		t.Fatal(err)
	}
	return &Sender{
		Path: p.path, Owner: owner, Now: func() time.Duration { return time.Hour },
		Pause:        func(time.Duration) {},
		AcceptQueued: func() (Client, error) { return Client{}, fdpass.ErrAgain },
	}
}

// send sends a state, closes it as a process does that exits, and returns what was sent.
func (p place) send(t testing.TB, s *State) Result {
	t.Helper()
	sender := p.sender(t)
	if err := sender.Acquire(len(s.Sessions)); err != nil {
		t.Fatal(err)
	}
	sent := *s
	result, queued, err := sender.Send(&sent, false)
	if err != nil || result.Err != nil || len(queued) > 0 || len(result.Unsent) > 0 {
		t.Fatalf("got %+v, %v, %v", result, queued, err)
	}
	s.close()
	return result
}

// message accepts the connection of a sender, and returns the descriptor of its message.
func (p place) message(t testing.TB) int {
	t.Helper()
	for {
		fd, err := fdpass.Accept(p.listener)
		if err != nil {
			t.Fatal("no message: ", err)
		}
		s := fdpass.NewSocket(fd)
		buf := make([]byte, 100)
		n, err := s.Receive(buf)
		if err != nil { // another client
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
	return fd, testenv.Inode(t, fd)
}

// stream returns one end of a connection, whose other end is closed, and its inode.
func stream(t testing.TB) (fd int, inode uint64) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fds[1])
	return fds[0], testenv.Inode(t, fds[0])
}

// newState returns a state with this many clients and sessions, and the inodes of all
// descriptors in order.
func newState(t testing.TB, clients, sessions int) (s *State, inodes []uint64) {
	t.Helper()
	next := func() int {
		fd, inode := stream(t)
		inodes = append(inodes, inode)
		return fd
	}
	s = &State{Counts: Counts{Values: stats.Values{Saved: 7, PeakSessions: 3, Connections: 9, Dead: 4},
		Age: time.Minute}}
	s.Counts.Took.Counts[3], s.Counts.Took.Sum = 5, time.Second
	s.Labels = []LabelCounts{{Level: "endpoint", Entry: topk.Entry{Label: "e\n",
		Counts: topk.Counts{1, 2, 3, 4, 5, 6, 7}, Error: 7}, Age: 30 * time.Minute}}
	for i := range clients {
		c := Client{FD: next(), Phase: BetweenRequests, Session: fdpass.None, AckDue: i%2 == 1,
			Unread: fmt.Appendf(nil, "req\x00%d", i)}
		if i%3 == 0 {
			c.Phase, c.Session, c.Unwritten, c.Timeout = DummyDue, next(), []byte("reply\x00"), time.Second
		}
		s.Clients = append(s.Clients, c)
	}
	for i := range 2 {
		s.Claims = append(s.Claims, Claim{fmt.Sprint("receiver", i), next()})
	}
	s.Bindings = []cache.SavedBinding{{Age: time.Second, TTL: time.Minute, Label: "d\n", Property: "p",
		Endpoint: "e\n"}}
	for i := range sessions {
		s.Sessions = append(s.Sessions, cache.SavedSession{Age: time.Second, TTL: time.Minute,
			Label: fmt.Sprint("e", i), Property: "p\n", FD: next()})
	}
	return s, inodes
}

// inodes returns those of all descriptors of a state, in order.
func (s *State) inodes(t testing.TB) (all []uint64) {
	for _, c := range s.Clients {
		for _, fd := range c.descriptors() {
			all = append(all, testenv.Inode(t, fd))
		}
	}
	for _, c := range s.Claims {
		all = append(all, testenv.Inode(t, c.FD))
	}
	for _, session := range s.Sessions {
		all = append(all, testenv.Inode(t, session.FD))
	}
	return all
}

// forget makes states comparable: their descriptors differ.
func (s *State) forget() {
	for i := range s.Claims {
		s.Claims[i].FD = 0
	}
	for i := range s.Clients {
		s.Clients[i].FD = 0
		s.Clients[i].Session = min(s.Clients[i].Session, 0)
	}
	for i := range s.Sessions {
		s.Sessions[i].FD = 0
	}
}

// receiver returns one whose clock stands still.
func receiver(now time.Duration) Receiver {
	return Receiver{Now: func() time.Duration { return now }, Announcement: []byte("hello"),
		Stop: make(chan struct{})}
}

// receive receives a state.
func (r Receiver) receive(fd int) (*State, Received, error) {
	s, in := &State{}, r.Receive(fd)
	for e := range in.Entries() {
		s.add(e)
	}
	return s, in.Received, errors.Join(in.Err, in.Refused)
}

// add adds an entry of a reception.
func (s *State) add(entry any) {
	switch e := entry.(type) {
	case *Counts:
		s.Counts = *e
	case *Claim:
		s.Claims = append(s.Claims, *e)
	case *Client:
		s.Clients = append(s.Clients, *e)
	case *cache.SavedBinding:
		s.Bindings = append(s.Bindings, *e)
	case *cache.SavedSession:
		s.Sessions = append(s.Sessions, *e)
	case *LabelCounts:
		s.Labels = append(s.Labels, *e)
	case *receivers.State:
		all := &s.Receivers
		all.Names = append(all.Names, e.Names...)
		all.Destinations = append(all.Destinations, e.Destinations...)
		all.Begun = append(all.Begun, e.Begun...)
		all.Holds = append(all.Holds, e.Holds...)
		all.Totals = append(all.Totals, e.Totals...)
	}
}

func TestSend_allArrives(t *testing.T) {
	for _, size := range []struct{ clients, sessions int }{{0, 0}, {1, 0}, {0, 1}, {5, 3},
		{300, 600}} {
		before := testenv.OpenDescriptors(t)
		p := newPlace(t)
		want, inodes := newState(t, size.clients, size.sessions)
		p.send(t, want)
		got, r, err := receiver(time.Hour + time.Second).receive(p.message(t))
		if want := (Received{size.sessions, 1, size.clients, 0}); r != want || err != nil {
			t.Fatalf("%+v: got %+v, %v", size, r, err)
		}
		if got := got.inodes(t); !slices.Equal(got, inodes) {
			t.Errorf("%+v: descriptors are not in order", size)
		}
		got.close()
		// A second has passed.
		want.Counts.Age += time.Second
		want.Labels[0].Age += time.Second
		for i := range want.Clients {
			if want.Clients[i].Timeout > 0 {
				want.Clients[i].Timeout = -1 // which is over
			}
		}
		for i := range got.Clients {
			if got.Clients[i].Timeout == 0 && got.Clients[i].Phase == DummyDue {
				got.Clients[i].Timeout = -1
			}
		}
		want.Bindings[0].Age, want.Bindings[0].TTL = 2*time.Second, 59*time.Second
		for i := range want.Sessions {
			want.Sessions[i].Age, want.Sessions[i].TTL = 2*time.Second, 59*time.Second
		}
		want.forget()
		got.forget()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		before.WantMore(t, 1, fmt.Sprintf("%+v", size)) // the listener
	}
}

// golden are descriptions of earlier versions, and what is in them.
var golden = []struct {
	file        string
	now         time.Duration
	descriptors int
	want        Received
}{
	{"version1", 5076505480237, 4, Received{2, 1, 2, 0}},
	{"version2", 5076861902652, 7, Received{1, 1, 5, 0}},
}

// manySessions returns a state with a thousand sessions of the usual size.
func manySessions() *State {
	s := &State{Sessions: make([]cache.SavedSession, 1000)}
	for i := range s.Sessions {
		s.Sessions[i] = cache.SavedSession{TTL: time.Hour, Label: strings.Repeat("l", 50),
			Property: strings.Repeat("p", 200)}
	}
	return s
}

// BenchmarkReadAhead reads the description of a thousand sessions.
func BenchmarkReadAhead(b *testing.B) {
	var out bytes.Buffer
	if err := writeState(&out, manySessions(), nil, time.Hour); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		e, err := newEntryReader(bytes.NewReader(out.Bytes()), zero)
		if err != nil {
			b.Fatal(err)
		}
		r := &Reception{entries: e}
		if r.readAhead(); len(r.ahead) != 1002 {
			b.Fatalf("got %d entries", len(r.ahead))
		}
	}
}

func BenchmarkWriteState(b *testing.B) {
	s := manySessions()
	var out bytes.Buffer
	for b.Loop() {
		out.Reset()
		if err := writeState(&out, s, nil, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}
