// SPDX-License-Identifier: EPL-2.0

package server

// Conversations without a loop that runs, and without time that passes: each test
// says when there is something to read, and what comes of it.

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/eventloop"
	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/testenv"
)

// still returns a conversation of a loop that does not run, and its other end.
func still(t testing.TB, w *world) (c *conversation, p *peer) {
	t.Helper()
	worker := stillWorker(t, w)
	c, p = worker.meetStill(t)
	t.Cleanup(func() {
		if len(worker.clients) > 0 {
			c.end(nil)
		}
		p.Close()
	})
	return c, p
}

// stillWorker returns a worker with a loop that does not run.
func stillWorker(t testing.TB, w *world) *worker {
	t.Helper()
	loop, err := eventloop.New(func() time.Duration { return time.Hour })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		loop.Post(loop.Stop)
		loop.Run()
	})
	return newWorker(w.Server, loop)
}

// meetStill begins a conversation, which is up to its caller.
func (w *worker) meetStill(t testing.TB) (c *conversation, p *peer) {
	t.Helper()
	p, fd := newPeer(t)
	c = w.server.greet(fd)
	w.beginStill(c, p)
	return c, p
}

// beginStill begins a conversation with a peer, in whatever state it is.
func (w *worker) beginStill(c *conversation, p *peer) {
	c.onClose = func(bool) { close(p.gone) }
	w.count.Add(1)
	w.server.register()
	w.begin(c)
}

// states are those that the full conversation is in after each exchange.
var states = []handover.Phase{
	handover.BetweenRequests, // find_dest, a miss
	handover.BetweenRequests, // save_dest
	handover.DescriptorDue,   // save_endp
	handover.BetweenRequests, // the descriptor
	handover.DummyDue,        // find_dest
	handover.BetweenRequests, // the dummy
	handover.BetweenRequests, // the acknowledgement
	handover.BetweenRequests, // find_endp, a miss
	handover.DescriptorDue,
	handover.BetweenRequests,
	handover.DummyDue,
	handover.BetweenRequests,
	handover.BetweenRequests, // the acknowledgement and a miss
}

// TestConversation_inEveryPhase cuts each exchange at every place.
func TestConversation_inEveryPhase(t *testing.T) {
	t.Parallel()
	longest := 0
	for _, exchange := range fullConversation {
		longest = max(longest, len(wire(exchange.say)))
	}
	for cut := 1; cut <= longest; cut++ {
		w := newWorld(t)
		c, p := still(t, w)
		_, fd := testenv.Pipe(t)
		for i, exchange := range fullConversation {
			whole := wire(exchange.say)
			for said := 0; said < len(whole); {
				n := min(cut, len(whole)-said)
				before := c.phase
				if exchange.sends {
					p.say(whole[said:said+n], fd)
				} else {
					p.say(whole[said : said+n])
				}
				c.Ready()
				said += n
				if said < len(whole) && c.phase != before && i != len(fullConversation)-1 {
					t.Fatalf("cut at %d, exchange %d, %d of %d bytes: %s", cut, i, said, len(whole), c.phase)
				}
				if limited, in := c.watch.Remaining() > 0, c.inRequest(); limited != in {
					t.Fatalf("cut at %d, exchange %d: in a request: %v, with a limit: %v", cut, i, in, limited)
				}
			}
			if c.phase != states[i] || c.ackDue != (exchange.receives) {
				t.Fatalf("cut at %d, exchange %d: %s, acknowledgement due: %v", cut, i, c.phase, c.ackDue)
			}
			p.hear(exchange.hear)
			if got, err := p.Take(); (err == nil) != exchange.receives {
				t.Fatalf("cut at %d, exchange %d: %v", cut, i, err)
			} else if err == nil {
				unix.Close(got)
			}
		}
		if len(c.unread) > 0 || c.session != fdpass.None || c.watch.Remaining() != 0 {
			t.Errorf("cut at %d: %+v", cut, c)
		}
		unix.Close(fd)
		if lines := w.logged(); len(lines) > 0 {
			t.Fatalf("cut at %d: %q", cut, lines)
		}
	}
}

func TestTimeout_isExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := still(t, w)
	p.say(`request\0find_endp\0lab`)
	c.Ready()
	if left := c.watch.Remaining(); left != w.Timeout {
		t.Errorf("%v are left", left)
	}
	c.TimedOut()
	p.wantEnd()
	w.wantWarning(t, "timeout")
}

// TestHandOver_afterATimeout is not begun anew.
func TestHandOver_afterATimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	worker := stillWorker(t, w)
	p, fd := newPeer(t)
	c := newConversation(fd)
	c.unread, c.timeout = []byte("request\x00find"), -time.Second
	worker.beginStill(c, p)
	if left := c.watch.Remaining(); left > time.Millisecond {
		t.Errorf("%v are left", left)
	}
	c.TimedOut()
	p.wantEnd()
	w.wantWarning(t, "timeout")
}

// TestResume_refusesWhatCannotContinue, as another version may have left it, ends the conversation.
func TestResume_refusesWhatCannotContinue(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		state   handover.Phase
		session bool
		unread  string
		warning string
	}{
		{handover.DescriptorDue, false, "request\x00save_endp",
			"request that waits for a descriptor is missing"},
		{handover.DescriptorDue, false, "\x00\x00", "request that waits for a descriptor is missing"},
		{handover.DescriptorDue, true, "request\x00save_endp\x00\x00", "does not fit its descriptors"},
		{handover.DummyDue, false, "", "does not fit its descriptors"},
		{"odd", false, "", "unknown phase"},
	} {
		w := newWorld(t)
		worker := stillWorker(t, w)
		p, fd := newPeer(t)
		c := newConversation(fd)
		c.phase, c.unread = test.state, []byte(test.unread)
		r := -1
		if test.session {
			r, c.session = testenv.Pipe(t)
		}
		worker.beginStill(c, p)
		p.wantEnd()
		w.wantWarning(t, test.warning)
		if test.session {
			testenv.WantClosed(t, r)
		}
	}
}

// TestConversation_mostRequestsOfATurn: others are served in between.
func TestConversation_mostRequestsOfATurn(t *testing.T) {
	t.Parallel()
	c, p := still(t, newWorld(t))
	const n = 3*requestsPerTurn + 1
	p.say(strings.Repeat(`request\0find_endp\0label\0x\0\0`, n))
	for turn := 1; turn <= 4; turn++ {
		c.Ready()
		if c.morePending != (turn < 4) {
			t.Errorf("turn %d: there is more: %v", turn, c.morePending)
		}
		p.hear(strings.Repeat(`status\02\0property\0\0\0`,
			min(requestsPerTurn, n-(turn-1)*requestsPerTurn)))
	}
}

// TestReply_thatDoesNotFitWaits until the client reads.
func TestReply_thatDoesNotFitWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 2000 {
		w.Cache.SaveBinding(time.Hour, fmt.Append(nil, "d", i), []byte(strings.Repeat("p", 1000)),
			[]byte("e"))
	}
	c, p := still(t, w)
	p.say(`request\0list\0\0request\0find_endp\0label\0x\0\0`)
	for range 1000 {
		c.Ready()
		if len(c.unwritten) > 0 {
			break
		}
	}
	if len(c.unwritten) == 0 || len(c.unwritten) > 4*maxOut || c.watch.Remaining() != w.Timeout ||
		c.listing == nil {
		t.Fatalf("%d bytes wait, for %v", len(c.unwritten), c.watch.Remaining())
	}
	heard := make(chan int)
	go func() {
		in := attr.NewDecoder(p)
		bindings := 0
		for ; ; bindings++ {
			list, err := in.Decode()
			if err != nil || list.Expect("status", "property") == nil {
				break
			}
		}
		heard <- bindings
	}()
	for {
		select {
		case n := <-heard:
			if n != 2002 { // with the status and the end
				t.Errorf("heard %d lists", n)
			}
			return
		default:
			c.Ready()
		}
	}
}

// TestRequest_allocations counts those of the server's side: a find makes none.
func TestRequest_allocations(t *testing.T) {
	w := newWorld(t)
	c, p := still(t, w)
	buf, miss := make([]byte, 200), []byte(wire(`request\0find_endp\0label\0x\0\0`))
	raw, err := p.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var end int
	raw.Control(func(fd uintptr) { end = int(fd) })
	ask := func(request []byte, ready int) {
		unix.Write(end, request)
		for range ready {
			c.Ready()
		}
		unix.Read(end, buf)
	}
	if n := testing.AllocsPerRun(100, func() { ask(miss, 1) }); n != 0 {
		t.Errorf("a miss allocates %v times", n)
	}
	find, dummy := []byte(wire(`request\0find_endp\0label\0e\0\0`)), []byte(wire(`dummy\0\0\0`))
	const runs = 100
	for range runs + 1 {
		fd, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		w.Cache.SaveSession(time.Hour, []byte("e"), []byte("property\n"), fd)
	}
	if n := testing.AllocsPerRun(runs, func() {
		ask(find, 1)
		ask(dummy, 1) // the descriptor is lost on a plain reader
		unix.Write(end, dummy)
		c.Ready()
	}); n != 0 {
		t.Errorf("a find allocates %v times", n)
	}
}
