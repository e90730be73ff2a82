// SPDX-License-Identifier: EPL-2.0

package succession

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/fdpass"
	"scache/internal/hits"
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
	e.Hits = []Hits{{Level: "endpoint", Entry: hits.Entry{Label: "e\n", Counts: hits.Counts{1, 2, 3, 4, 5, 6}, Error: 7}, Age: 30 * time.Minute}}
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

// TestManySessions has more than one queue takes, which is 70,334 descriptors, if
// this process may have as many open files.
func TestManySessions(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	n := 80_000
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100_000, Max: max(limit.Max, 100_000)}) != nil {
		n = int(limit.Cur) - 100
		t.Logf("only %d sessions: it takes root to have more open files", n)
	}
	p := newPlace(t)
	fd, inode := file(t)
	defer unix.Close(fd)
	e := &Estate{Sessions: make([]cache.SavedSession, n)}
	for i := range e.Sessions {
		copied, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		e.Sessions[i] = cache.SavedSession{TTL: time.Hour, Label: "e", FD: copied}
	}
	count := len(e.Sessions)
	rest, err := Leave(p.route(t), e)
	if err != nil && !errors.Is(err, unix.ETOOMANYREFS) {
		t.Fatal(err)
	}
	for _, s := range rest {
		unix.Close(s.FD)
	}
	h, r, err := receive(t, p.message(t), time.Hour)
	defer h.close()
	if r.Sessions+len(rest) != count || r.Lost != 0 || err != nil {
		t.Fatalf("got %+v, %v, and %d of %d were not left", r, err, len(rest), count)
	}
	for _, s := range h.Sessions {
		if inodeOf(t, s.FD) != inode {
			t.Fatal("another descriptor")
		}
	}
}

// TestOthersHaveDescriptorsInFlight of the same user, who may have no more: clients go
// first, and then as many sessions as find room.
func TestOthersHaveDescriptorsInFlight(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("to become another user takes root")
	}
	const limit, clients, sessions = 5000, 3, 6000
	p := newPlace(t)
	route := p.route(t)
	fd, _ := file(t)
	defer unix.Close(fd)
	e, _ := estate(t, clients, 0)
	for range sessions {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 2*limit) // out of the way of the limit
		if err != nil {
			t.Fatal(err)
		}
		e.Sessions = append(e.Sessions, cache.SavedSession{TTL: time.Hour, Label: "e", FD: copied})
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
	ours, theirs, err := fdpass.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()

	var rest []cache.SavedSession
	asAnotherUser(func() {
		for range 2 {
			ours.SendBatch(slices.Repeat([]int{fd}, fdpass.BatchSize))
		}
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: files.Max})
		rest, err = Leave(route, e)
	})
	for _, s := range rest {
		unix.Close(s.FD)
	}
	unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
	if !errors.Is(err, unix.ETOOMANYREFS) || len(rest) != sessions-queueSize {
		t.Errorf("%d sessions are not left: %v", len(rest), err)
	}
	h, r, err := receive(t, p.message(t), time.Hour)
	defer h.close()
	if r.Clients != clients || r.Sessions != queueSize || r.Lost != 0 || err != nil {
		t.Errorf("got %+v, %v", r, err)
	}
}

// asAnotherUser calls a function in a thread of another real user without privileges, but
// for the right to reach any file, and waits.
func asAnotherUser(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		const nobody = 64999
		unix.RawSyscall(unix.SYS_SETRESUID, nobody, 0, 0)
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		rights := [2]unix.CapUserData{{Effective: 1 << unix.CAP_DAC_OVERRIDE, Permitted: 1 << unix.CAP_DAC_OVERRIDE}}
		unix.Capset(&header, &rights[0])
		f()
	}()
	<-done
}

func zero() time.Duration { return 0 }

// TestAFullLine has a full accept queue: whoever is in it goes along.
func TestAFullLine(t *testing.T) {
	p := newPlace(t)
	var waiting []*fdpass.Socket
	for {
		c, err := fdpass.Connect(p.path)
		if err != nil {
			break
		}
		defer c.Close()
		waiting = append(waiting, c)
	}
	e, _ := estate(t, 1, 1)
	route := p.route(t)
	route.NextInLine = func() (Client, error) {
		fd, err := fdpass.Accept(p.listener)
		return Client{FD: fd, State: BetweenRequests, Session: -1, Unwritten: []byte("hello")}, err
	}
	if rest, err := Leave(route, e); err != nil || len(rest) > 0 {
		t.Fatal(rest, err)
	}
	h, r, err := receive(t, p.message(t), 0)
	defer h.close()
	if r.Clients != 2 || r.Sessions != 1 || r.Lost != 0 || err != nil || string(h.Clients[1].Unwritten) != "hello" {
		t.Errorf("%d in line: got %+v, %v", len(waiting), r, err)
	}
}

func TestNothingIsLeftToOthers(t *testing.T) {
	p := newPlace(t)
	e, inodes := estate(t, 2, 3)
	route := p.route(t)
	route.Owner.PID++
	before := openDescriptors(t)
	rest, err := Leave(route, e)
	if err == nil || !strings.Contains(err.Error(), "another process listens at "+p.path) || len(rest) != 3 {
		t.Errorf("%d sessions, %v", len(rest), err)
	}
	if after := openDescriptors(t); after != before-3 { // two clients, and a session in hand
		t.Errorf("%d descriptors are open, were %d", after, before)
	}
	fd, err := fdpass.Accept(p.listener)
	if err != nil {
		t.Fatal(err)
	}
	s := fdpass.NewSocket(fd)
	defer s.Close()
	if n, err := s.Receive(make([]byte, 100)); n != 0 || err != io.EOF {
		t.Errorf("the other process has received %d bytes, %v", n, err)
	}
	for i, s := range rest {
		if inodeOf(t, s.FD) != inodes[3+i] {
			t.Error("a session that is returned has another descriptor")
		}
		unix.Close(s.FD)
	}
}

func TestNobodyListens(t *testing.T) {
	e, _ := estate(t, 0, 2)
	rest, err := Leave(Route{Path: filepath.Join(t.TempDir(), "none")}, e)
	if !errors.Is(err, unix.ENOENT) || len(rest) != 2 {
		t.Errorf("%d sessions, %v", len(rest), err)
	}
	h := heir{Estate{Sessions: rest}}
	h.close()
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

// TestDescriptionsOfOtherVersions reads them, in the order in which their
// descriptors come.
func TestDescriptionsOfOtherVersions(t *testing.T) {
	for _, g := range golden {
		text, err := os.ReadFile("../../testdata/descriptions/" + g.file)
		if err != nil {
			t.Fatal(err)
		}
		h, r, err := receive(t, craft(t, text, g.file == "version1", g.descriptors), g.now)
		if r != g.want || err != nil {
			t.Fatalf("%s: %+v, %v", g.file, r, err)
		}
		if b := h.Bindings[0]; b.Label != "smtp\nexample.test\n" || b.Property != "dest property\n" || b.Endpoint != "smtp\n192.0.2.1\n25\n" || b.TTL < 999*time.Second || b.TTL > 1000*time.Second {
			t.Errorf("%s: %+v", g.file, b)
		}
		last := h.Sessions[len(h.Sessions)-1]
		if last.Label != "smtp\n192.0.2.1\n25\n" || last.Property != "reuse_count=2\n" || last.TTL < 999*time.Second || last.TTL > 1000*time.Second {
			t.Errorf("%s: %+v", g.file, last)
		}
		if !slices.ContainsFunc(h.Clients, func(c Client) bool { return c.AckDue }) {
			t.Errorf("%s: nobody owes an acknowledgement", g.file)
		}
		h.close()
	}
}

// craft returns the end of a message with this description and so many
// descriptors.
func craft(t testing.TB, description []byte, old bool, descriptors int) int {
	t.Helper()
	f, _ := file(t)
	defer unix.Close(f)
	unix.Write(f, description)
	fds := make([]int, descriptors)
	for i := range fds {
		fds[i], _ = file(t)
	}
	defer closeAll(fds)
	ours, theirs := pair(t)
	defer ours.Close()
	self, other := pair(t)
	defer self.Close()
	defer other.Close()
	if !old {
		queue, end := pair(t)
		defer queue.Close()
		defer end.Close()
		ours.SendBatch([]int{f, self.FD(), end.FD()})
		if descriptors > 0 {
			queue.SendBatch(fds)
		}
		return theirs.FD()
	}
	ours.SendBatch([]int{f, self.FD()})
	sessions := descriptors / 2 // as many as clients
	for _, group := range [][]int{fds[:sessions], fds[sessions:]} {
		if len(group) > 0 {
			unix.SendmsgN(ours.FD(), []byte{0}, unix.UnixRights(group...), nil, 0)
		}
	}
	return theirs.FD()
}

func pair(t testing.TB) (a, b *fdpass.Socket) {
	t.Helper()
	a, b, err := fdpass.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func list(fields ...string) string { return strings.Join(fields, "\x00") + "\x00\x00" }

// TestDescriptionsInBadOrder: what is lost is counted, and nothing stays open.
func TestDescriptionsInBadOrder(t *testing.T) {
	header := list("version", "3", "bindings", "1", "sessions", "2", "clients", "1", "news", "x")
	aSession := list("entry", "session", "descriptors", "1", "label", "e", "property", "p", "deadline", "9000000000", "colour", "red")
	aClient := list("entry", "client", "descriptors", "1")
	for name, test := range map[string]struct {
		description string
		descriptors int
		want        Receipt
		fails       bool
	}{
		"attributes, entries and versions that are not known": {header + list("entry", "song", "descriptors", "2", "title", "x") + aClient + list("entry", "binding") + aSession + aSession, 5, Receipt{2, 1, 1, 0}, false},
		"nothing":                     {"", 0, Receipt{}, true},
		"no version":                  {list("bindings", "1"), 0, Receipt{}, true},
		"a version that is no number": {list("version", "new", "sessions", "1"), 0, Receipt{0, 0, 0, 1}, true},
		"the end comes too early":     {header + aClient + aSession, 4, Receipt{1, 0, 1, 1}, false},
		"the end in an entry":         {header + aClient + aSession[:20], 4, Receipt{0, 0, 1, 2}, true},
		"more descriptors in an entry than are known": {list("version", "3", "sessions", "1", "clients", "1") + list("entry", "client", "descriptors", "4") + list("entry", "session", "descriptors", "3", "deadline", "9000000000"), 7, Receipt{1, 0, 1, 0}, false},
		"too few descriptors":                         {header + aClient + aSession + aSession, 2, Receipt{1, 0, 1, 1}, true},
		"too many descriptors":                        {header + aClient + aSession + aSession, 9, Receipt{2, 0, 1, 0}, false},
		"a session without one":                       {header + aClient + list("entry", "session", "label", "e") + aSession, 2, Receipt{1, 0, 1, 1}, false},
		"a number that is none":                       {header + aClient + list("entry", "session", "descriptors", "x") + aSession, 3, Receipt{0, 0, 1, 2}, true},
		"a deadline that is none":                     {header + aClient + list("entry", "session", "descriptors", "1", "deadline", "x") + aSession, 3, Receipt{0, 0, 1, 2}, true},
		"an entry of a million":                       {header + list("entry", "x", "descriptors", "1000000"), 3, Receipt{0, 0, 0, 3}, true},
	} {
		before := openDescriptors(t)
		h, r, err := receive(t, craft(t, []byte(test.description), false, test.descriptors), time.Second)
		if r != test.want || (err != nil) != test.fails {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		h.close()
		if after := openDescriptors(t); after != before {
			t.Errorf("%s: %d descriptors are open, were %d", name, after, before)
		}
	}
}

// TestASilentMessage: whoever sends it is waited for, but not for long, and not
// when there is something better to do.
func TestASilentMessage(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		ours, theirs := pair(t)
		stop := make(chan struct{})
		if stopped {
			close(stop)
		}
		start := time.Now()
		_, err := Receive(theirs.FD(), &heir{}, zero, nil, stop)
		if took := time.Since(start); err == nil || stopped && took > patience/2 || took > 20*patience {
			t.Errorf("stopped: %v: %v after %v", stopped, err, took)
		}
		ours.Close()
	}
}

// TestAReceiverWithFewFiles cannot have as many descriptors as arrive. It takes
// what it can have, waits until there are more, and gives up when it has to.
func TestAReceiverWithFewFiles(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t)
	e, _ := estate(t, 10, 300)
	if rest, err := Leave(p.route(t), e); err != nil || len(rest) > 0 {
		t.Fatal(rest, err)
	}
	fd := p.message(t)
	low := limit
	low.Cur = uint64(openDescriptors(t) + 100)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() { close(stop) })
	h := &heir{}
	r, err := Receive(fd, h, zero, nil, stop)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	h.close()
	if r.Clients != 10 || r.Sessions == 0 || r.Sessions == 300 || r.Sessions+r.Lost != 300 || err != nil {
		t.Errorf("got %+v, %v", r, err)
	}

	e, _ = estate(t, 10, 300)
	if rest, err := Leave(p.route(t), e); err != nil || len(rest) > 0 {
		t.Fatal(rest, err)
	}
	fd = p.message(t)
	low.Cur = uint64(openDescriptors(t)) // not even for the description
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) })
	h, r, err = receive(t, fd, 0)
	h.close()
	if r.Clients != 10 || r.Sessions != 300 || r.Lost != 0 || err != nil {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestTimeGoesOnWhileSomethingIsReceived has a clock that goes on by a second with each look.
func TestTimeGoesOnWhileSomethingIsReceived(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	e, _ := estate(t, 0, 3)
	for i := range e.Sessions {
		e.Sessions[i].TTL = time.Minute
	}
	if rest, err := Leave(p.route(t), e); err != nil || len(rest) > 0 {
		t.Fatal(rest, err)
	}
	h, now := &heir{}, time.Hour
	defer h.close()
	_, err := Receive(p.message(t), h, func() time.Duration { now += time.Second; return now }, nil, make(chan struct{}))
	if err != nil || len(h.Sessions) != 3 {
		t.Fatalf("%v, %+v", err, h.Sessions)
	}
	if first, last := h.Sessions[0].TTL, h.Sessions[2].TTL; first >= time.Minute || last >= first {
		t.Errorf("times to live: %v, and %v for the last one", first, last)
	}
}

// FuzzDescription reads any description: it neither crashes nor leaks.
func FuzzDescription(f *testing.F) {
	for _, g := range golden {
		text, err := os.ReadFile("../../testdata/descriptions/" + g.file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, g.file == "version1", uint8(g.descriptors))
	}
	f.Add([]byte(list("version", "2", "sessions", "2147483647")), false, uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, old bool, descriptors uint8) {
		before := openDescriptors(t)
		h, r, _ := receive(t, craft(t, text, old, int(descriptors%50)), time.Hour)
		h.close()
		if r.Sessions != len(h.Sessions) || r.Clients != len(h.Clients) || r.Lost < 0 {
			t.Errorf("%+v", r)
		}
		if after := openDescriptors(t); after != before {
			t.Errorf("%d descriptors are open, were %d", after, before)
		}
	})
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
