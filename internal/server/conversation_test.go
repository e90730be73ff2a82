// SPDX-License-Identifier: EPL-2.0

package server

// Clients that stop, vanish, dawdle or babble, at any byte of a conversation.
// They harm only themselves, and leave nothing behind.

import (
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/testenv"
)

// An exchange is what a client says, and what it hears then.
type exchange struct {
	say, hear       string
	sends, receives bool // a descriptor, beside the only byte
}

// fullConversation has all requests, with and without success, in the bytes of
// smtp(8).
var fullConversation = []exchange{
	{say: `request\0find_dest\0label\0smtp\n[127.0.0.1]:3074\n\0\0`,
		hear: `status\02\0property\0\0property\0\0\0`},
	{say: `request\0save_dest\0ttl\02\0label\0smtp\n[127.0.0.1]:3074\n\0` +
		`property\0destination=[127.0.0.1]:3074\nhost_name=127.0.0.1\n\n\0` +
		`label\0smtp\n127.0.0.1\n3074\n0\n\0\0`,
		hear: `status\00\0\0`},
	{say: `request\0save_endp\0ttl\02\0label\0smtp\n127.0.0.1\n3074\n0\n\0` +
		`property\0reuse_count=1\n\0\0`,
		hear: `dummy\0\0\0`},
	{say: `\0`, sends: true, hear: `status\00\0\0`},
	{say: `request\0find_dest\0label\0smtp\n[127.0.0.1]:3074\n\0\0`,
		hear: `status\00\0property\0destination=[127.0.0.1]:3074\nhost_name=127.0.0.1\n\n\0` +
			`property\0reuse_count=1\n\0\0`},
	{say: `dummy\0\0\0`, hear: `\0`, receives: true},
	{say: `dummy\0\0\0`},
	{say: `request\0find_endp\0label\0smtp\n127.0.0.1\n3074\n0\n\0\0`,
		hear: `status\02\0property\0\0\0`},
	{say: `request\0save_endp\0ttl\02\0label\0smtp\n127.0.0.1\n3074\n0\n\0property\0\0\0`,
		hear: `dummy\0\0\0`},
	{say: `\0`, sends: true, hear: `status\00\0\0`},
	{say: `request\0find_endp\0label\0smtp\n127.0.0.1\n3074\n0\n\0\0`,
		hear: `status\00\0property\0\0\0`},
	{say: `dummy\0\0\0`, hear: `\0`, receives: true},
	// The acknowledgement comes with the next request.
	{say: `dummy\0\0\0request\0find_endp\0label\0gone\0\0`, hear: `status\02\0property\0\0\0`},
}

const everything = math.MaxInt

// clientBytes returns all that the client says, and where in it the first
// descriptor goes.
func clientBytes() (said []byte, descriptor int) {
	for _, exchange := range fullConversation {
		if exchange.sends && descriptor == 0 {
			descriptor = len(said)
		}
		said = append(said, wire(exchange.say)...)
	}
	return said, descriptor
}

// play says the first n bytes of a conversation, in pieces of this size, and
// hears the replies to them if it listens.
func (p *peer) play(exchanges []exchange, fd, n, size int, listen bool) {
	p.t.Helper()
	for _, exchange := range exchanges {
		var fds []int
		if exchange.sends {
			fds = []int{fd}
		}
		whole := []byte(wire(exchange.say))
		said := whole[:min(n, len(whole))]
		n -= len(said)
		for piece := range slices.Chunk(said, size) {
			p.say(string(piece), fds...)
		}
		if len(said) < len(whole) {
			return
		}
		if listen {
			p.hearReply(exchange, fd)
		}
	}
}

// hearReply wants the reply of an exchange, with a copy of fd if it has a descriptor.
func (p *peer) hearReply(e exchange, fd int) {
	p.t.Helper()
	p.hear(e.hear)
	got, err := p.Take()
	if err == nil {
		defer unix.Close(got)
	}
	if received := err == nil; received != e.receives ||
		received && testenv.Inode(p.t, got) != testenv.Inode(p.t, fd) {
		p.t.Errorf("after %q: got descriptor %d, %v, want one: %v", e.hear, got, err, e.receives)
	}
}

func TestConversation_endsAtAnyByte(t *testing.T) {
	w := newWorld(t)
	_, fd := testenv.Pipe(t)
	defer unix.Close(fd)
	w.connect(t).leave() // the first connection opens what belongs to the runtime
	said, _ := clientBytes()
	before := testenv.OpenDescriptors(t)
	for n := 0; n <= len(said); n += testenv.Stride() {
		for _, last := range []string{"listening", "deaf", "with a descriptor beside the last byte"} {
			p := w.connect(t)
			p.play(fullConversation, fd, n, everything, last != "deaf")
			if last != "listening" && last != "deaf" {
				p.say("x", fd)
			}
			p.leave()
			w.Cache.Clear()
			before.WantSame(t, fmt.Sprintf("%d bytes, %s", n, last))
		}
	}
}

func TestConversation_endsBetweenRequests(t *testing.T) {
	t.Parallel()
	_, fd := testenv.Pipe(t)
	defer unix.Close(fd)
	for i, next := range fullConversation {
		if next.sends || next.receives {
			continue // it owes an answer
		}
		w := newWorld(t)
		p := w.connect(t)
		p.play(fullConversation[:i], fd, everything, everything, true)
		p.leave()
		if lines := w.logged(); len(lines) > 0 {
			t.Errorf("after %d exchanges: %q", i, lines)
		}
	}
}

// stops are the ways to stop in the middle of a request: what a client says and
// hears before. There must be a session of the endpoint e.
var stops = map[string]exchange{
	"in a list": {say: `request\0find_endp\0lab`},
	"before the byte": {say: `request\0save_endp\0ttl\09\0label\0f\0property\0\0\0`,
		hear: `dummy\0\0\0`},
	"before the dummy": {say: `request\0find_endp\0label\0e\0\0`,
		hear: `status\00\0property\0\0\0`},
	"in the dummy": {say: `request\0find_endp\0label\0e\0\0dum`,
		hear: `status\00\0property\0\0\0`},
	"in a second request": {say: `request\0find_endp\0label\0f\0\0requ`,
		hear: `status\02\0property\0\0\0`},
}

// stopped returns a peer that has stopped in the middle of a request.
func (w *world) stopped(t *testing.T, stop exchange) *peer {
	t.Helper()
	_, fd := testenv.Pipe(t)
	w.Cache.SaveSession(time.Second, []byte("e"), nil, fd)
	p := w.connect(t)
	p.say(stop.say)
	p.hear(stop.hear)
	return p
}

func TestConversation_slowClientDelaysNoOther(t *testing.T) {
	t.Parallel()
	_, fd := testenv.Pipe(t)
	defer unix.Close(fd)
	for name, stop := range stops {
		w := newWorld(t)
		slow, other := w.stopped(t, stop), w.connect(t)
		other.miss()
		other.save(name, fd)
		other.wantInStep()
		slow.CloseWrite()
		slow.wantEnd()
		w.wantWarning(t, "in the middle of a request")
	}
}

func TestTimeout_inARequest(t *testing.T) {
	t.Parallel()
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.Timeout = 50 * time.Millisecond
			w.stopped(t, stop).wantEnd()
			w.wantWarning(t, "timeout")
		})
	}
}

func TestTimeout_clientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Timeout = 50 * time.Millisecond
	p := w.connect(t)
	for err := error(nil); err == nil; { // until no more replies fit, and the server gives up
		_, err = p.Write([]byte(wire(`request\0find_endp\0label\0none\0\0`)))
	}
	<-p.gone
	w.wantWarning(t, "timeout")
}

func TestTimeout_notOfIdleClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Timeout = 50 * time.Millisecond
	idle := w.connect(t)
	for range 3 {
		idle.miss()
		// Its time ends before that of a client that comes now and stops.
		w.stopped(t, stops["in a list"]).wantEnd()
	}
	idle.wantInStep()
}

// FuzzConversation says anything, with descriptors beside any byte. Its seeds
// run alone, after all other tests. As goroutines never run twice alike, it gets
// nowhere without -fuzzminimizetime 1x.
func FuzzConversation(f *testing.F) {
	w := newWorld(f)
	w.Log.SetSinks()
	w.connect(f).leave()
	_, fd := testenv.Pipe(f)
	f.Cleanup(func() { unix.Close(fd) })
	said, at := clientBytes()
	f.Add(said, uint16(at), uint8(1))
	f.Add(said, uint16(at), uint8(2))
	f.Add(said[:at+1], uint16(0), uint8(1))
	f.Add([]byte("request"), uint16(6), uint8(1))
	f.Add([]byte(wire(`\0{\0a\0b\0}\0\0request\0save_endp\0ttl\0-1\0\0`)), uint16(3), uint8(0))
	f.Fuzz(func(t *testing.T, said []byte, at uint16, count uint8) {
		var start, end runtime.MemStats
		before := testenv.OpenDescriptors(t)
		runtime.ReadMemStats(&start)
		p := w.connect(t)
		go func() {
			n := min(int(at)+1, len(said)) // the last of these bytes has the descriptors
			if n > 0 {
				p.say(string(said[:n]), slices.Repeat([]int{fd}, int(count%4))...)
			}
			p.Write(said[n:])
			p.CloseWrite()
		}()
		io.Copy(io.Discard, p.UnixConn) // descriptors are lost on a plain reader
		p.leave()
		w.Cache.Clear()
		runtime.ReadMemStats(&end)
		before.WantSame(t, "at the end")
		if used, limit := end.TotalAlloc-start.TotalAlloc, uint64(1<<20+1000*len(said)); used > limit {
			t.Errorf("%d bytes of conversation took %d bytes of memory, more than %d", len(said), used,
				limit)
		}
	})
}
