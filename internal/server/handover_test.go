// SPDX-License-Identifier: EPL-2.0

package server

// A server that goes on where another one has stopped. What is left in bad order
// is tested in package handover, and whole processes in the command.

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/testenv"
)

// takesOver makes a server take over what others leave.
func takesOver(w *world) {
	w.Connected = func() func(bool) { return func(bool) {} }
}

// A relay is a listening socket between two servers, which no process serves at the time.
type relay struct {
	*handover.Sender
	listener *os.File
}

func newRelay(t *testing.T) relay {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	owner, err := fdpass.PeerOf(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return relay{&handover.Sender{
		Path: path, Owner: owner, Now: BootTime, Pause: time.Sleep,
		AcceptQueued: func() (handover.Client, error) { return handover.Client{}, fdpass.ErrAgain },
	}, f}
}

// handOver hands over from one server to the next.
func handOver(t *testing.T, from, to *world) {
	t.Helper()
	r := newRelay(t)
	if result, err := from.HandOver(r.Sender, false); err != nil || result.Err != nil {
		t.Fatalf("got %+v, %v", result, err)
	}
	fd, err := fdpass.Accept(int(r.listener.Fd()))
	if err != nil {
		t.Fatal(err, from.logged())
	}
	takesOver(to)
	gone := make(chan struct{})
	to.Accept(fd, func(bool) { close(gone) })
	<-gone
	to.receptions.running.Wait()
}

// TestHandOver_changesNothingWhenItFails stops a conversation after each byte, fails to hand
// over, and continues; and then hands over.
func TestHandOver_changesNothingWhenItFails(t *testing.T) {
	t.Parallel()
	said, _ := clientBytes()
	for n := 0; n <= len(said); n += testenv.Stride() {
		from, to := newWorld(t), newWorld(t)
		takesOver(from)
		_, fd := testenv.Pipe(t)
		p := from.connect(t)
		left := p.playUntil(fullConversation, fd, n)
		r := newRelay(t)
		r.Owner.PID++
		queued, theirs := newPeer(t)
		waiting := []int{theirs}
		r.AcceptQueued = func() (handover.Client, error) {
			if len(waiting) == 0 {
				return handover.Client{}, fdpass.ErrAgain
			}
			fd := waiting[0]
			waiting = nil
			c, _ := from.Greet(fd)
			return c, nil
		}
		if _, err := from.HandOver(r.Sender, true); err == nil {
			t.Fatal("it has handed over to another process")
		}
		queued.miss()
		queued.Close()
		p.playOn(left, fd)
		p.miss()
		if size := from.Cache.Size(); size.Sessions != 0 {
			t.Errorf("got %+v, want no session", size)
		}
		handOver(t, from, to)
		p.miss()
		unix.Close(fd)
		if lines := from.logged(); len(lines) != 0 {
			t.Fatalf("after %d bytes: %q", n, lines)
		}
		from.Stop()
		to.Stop()
	}
}

// TestPanic_endsOneConversation has a cache that panics when it looks at one session.
func TestPanic_endsOneConversation(t *testing.T) {
	t.Parallel()
	panicked := make(chan struct{})
	from, to := newWorld(t), newWorld(t)
	from.OnPanic = func() { close(panicked) }
	_, bad := testenv.Pipe(t)
	_, good := testenv.Pipe(t)
	want := testenv.Inode(t, good)
	from.alive = func(fd int) bool {
		if fd == bad {
			panic("a bug")
		}
		return true
	}
	from.Cache.SaveSession(time.Minute, []byte("bad"), nil, bad)
	from.Cache.SaveSession(time.Minute, []byte("good"), nil, good)
	victim, other := from.connect(t), from.connect(t)
	victim.say(`request\0find_endp\0label\0bad\0\0`)
	victim.wantEnd()
	<-panicked
	if lines := from.logged(); len(lines) < 3 || lines[0] != "panic: a bug" ||
		!strings.Contains(strings.Join(lines, "\n"), "TestPanic_endsOneConversation") {
		t.Errorf("got %q, want the reason and the stack", lines)
	}
	other.miss()
	handOver(t, from, to)
	other.say(`request\0find_endp\0label\0good\0\0`)
	other.hear(`status\00\0property\0\0\0`)
	other.say(`dummy\0\0\0`)
	other.hear(`\0`)
	fd, err := other.Take()
	if err != nil || testenv.Inode(t, fd) != want {
		t.Errorf("got descriptor %d, %v", fd, err)
	}
	unix.Close(fd)
	unix.Close(bad)
}

func TestHandOver_keepsTheRestOfTheTTL(t *testing.T) {
	t.Parallel()
	from, to := newWorld(t), newWorld(t)
	r, fd := testenv.Pipe(t)
	from.Cache.SaveSession(10*time.Second, []byte("e"), []byte("p"), fd)
	from.Cache.SaveBinding(20*time.Second, []byte("d"), []byte("q"), []byte("e"))
	from.now.Add(int64(4 * time.Second))
	to.now.Store(int64(time.Minute))
	handOver(t, from, to)
	if got := to.Cache.Size(); got.Sessions != 1 || got.Destinations != 1 {
		t.Fatalf("the successor holds %+v; %q", got, to.logged())
	}
	if got, _ := to.Cache.Sessions(&cache.SessionCursor{}, 1,
		remoteAddress); got[0].Age < 4*time.Second || got[0].Age > 5*time.Second {
		t.Errorf("%+v", got)
	}
	to.now.Add(int64(6*time.Second + 50*time.Millisecond)) // and the precision of the wheel
	to.Cache.Expire()
	if got := to.Cache.Size(); got.Sessions != 0 || got.Destinations != 1 {
		t.Errorf("after its end: %+v", got)
	}
	testenv.WantClosed(t, r)
	if got := to.status(); got.TakenOver != 1 || got.Saved != 1 {
		t.Errorf("got %+v, want 1 session saved and 1 taken over", got)
	}
}

// TestHandover_connectionsAreThoseOfClients hands over twice, with a client that stays, and
// counts one connection.
func TestHandover_connectionsAreThoseOfClients(t *testing.T) {
	t.Parallel()
	worlds := []*world{newWorld(t), newWorld(t), newWorld(t)}
	p := worlds[0].connect(t)
	p.miss()
	for i, to := range worlds[1:] {
		handOver(t, worlds[i], to)
		p.miss()
		if got := to.status(); got.Connections != 1 || got.Clients != 1 ||
			got.EndpointMisses != int64(i)+2 {
			t.Errorf("handover %d: got %d connections, %d clients, %d misses, want 1, 1, %d",
				i+1, got.Connections, got.Clients, got.EndpointMisses, i+2)
		}
	}
}

// TestHandOver_inEveryPhase stops a conversation after each byte, and goes on
// with the next server, and with the one after that.
func TestHandOver_inEveryPhase(t *testing.T) {
	t.Parallel()
	said, _ := clientBytes()
	for n := 0; n <= len(said); n += testenv.Stride() {
		worlds := []*world{newWorld(t), newWorld(t), newWorld(t)}
		_, fd := testenv.Pipe(t)
		p := worlds[0].connect(t)
		left := p.playUntil(fullConversation, fd, n)
		handOver(t, worlds[0], worlds[1])
		handOver(t, worlds[1], worlds[2])
		p.playOn(left, fd)
		p.miss()
		unix.Close(fd)
		for i, w := range worlds {
			if lines := w.logged(); len(lines) != min(i, 1) || i > 0 &&
				!strings.HasSuffix(lines[0], "clients=1 lost=0") {
				t.Fatalf("after %d bytes, server %d: %q", n, i, lines)
			}
			w.Stop()
		}
	}
}

// playUntil says the first n bytes of a conversation, hears what comes in between,
// and waits until the server has read them. It returns what is left: the first
// exchange may have nothing left to say.
func (p *peer) playUntil(exchanges []exchange, fd, n int) (left []exchange) {
	p.t.Helper()
	for i, next := range exchanges {
		whole := wire(next.say)
		if n > len(whole) {
			n -= len(whole)
			p.playOn([]exchange{next}, fd)
			continue
		}
		left = append([]exchange{next}, exchanges[i+1:]...)
		left[0].say = whole[n:]
		if n > 0 && n == len(whole) && next.sends {
			p.say(whole, fd)
		} else if n > 0 {
			p.say(whole[:n])
		}
		break
	}
	raw, err := p.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	for unread := 1; unread > 0 && err == nil; time.Sleep(time.Millisecond / 10) {
		raw.Control(func(f uintptr) { unread, err = unix.IoctlGetInt(int(f), unix.SIOCOUTQ) })
	}
	return left
}

// playOn says and hears the other exchanges.
func (p *peer) playOn(exchanges []exchange, fd int) {
	p.t.Helper()
	for _, exchange := range exchanges {
		switch {
		case exchange.sends && exchange.say != "":
			p.say(exchange.say, fd)
		case exchange.say != "":
			p.say(exchange.say)
		}
		p.hearReply(exchange, fd)
	}
}

// TestHandOver_keepsPipelinedRequests has requests that were not answered for want
// of a reader, and those that the server did not read.
func TestHandOver_keepsPipelinedRequests(t *testing.T) {
	t.Parallel()
	from, to := newWorld(t), newWorld(t)
	from.Cache.SaveBinding(time.Minute, []byte("d"), []byte(strings.Repeat("x", 60_000)), []byte("e"))
	p := from.connect(t)
	const requests = 300
	go p.Write([]byte(strings.Repeat(wire(`request\0list\0\0`), requests)))
	in := attr.NewDecoder(p)
	in.SetMaxSize(1 << 20)
	for ends := 0; ends < requests; {
		list, err := in.Decode()
		if err != nil {
			t.Fatalf("after %d replies: %v", ends, err)
		}
		if entry, _ := list.Lookup("entry"); string(entry.Value) != "end" {
			continue
		}
		if ends++; ends == 10 {
			handOver(t, from, to)
		}
	}
	p.miss()
}
