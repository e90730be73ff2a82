// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"testing"
	"time"
)

// learn saves a destination whose property has the name of an address.
func (b *bench) learn(i int) {
	address := fmt.Sprintf("10.0.%d.%d", i/256, i%256)
	text := "host_name=x.mx.example\nhost_addr=" + address + "\n"
	b.set.SaveDestination(b.client(), b.now, time.Second, fmt.Append(nil, "smtp\nd", i, "\n"),
		[]byte(text), []byte(label(address)))
}

// knows reports whether the names of an address and the destination are known.
func (b *bench) knows(i int) bool {
	b.Helper()
	name, _ := b.set.Receiver(b.now, []byte(label(fmt.Sprintf("10.0.%d.%d", i/256, i%256))))
	d, _ := b.set.known.destination(fmt.Append(nil, "smtp\nd", i, "\n"), b.now)
	if (name == "a") != (d != nil) {
		b.Errorf("%d: got receiver %q and destination %v, want both or none", i, name, d)
	}
	return name == "a"
}

// TestKnown_endsInTime has what is remembered end, unless it is learned again.
func TestKnown_endsInTime(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, .mx.example, connections=1 }")
	b.learn(1)
	b.learn(2)
	b.pass(memory - 1)
	if !b.knows(1) || !b.knows(2) {
		t.Error("got nothing known before the end")
	}
	b.learn(2)
	b.pass(1)
	if b.knows(1) || !b.knows(2) {
		t.Errorf("at the end: got %v and %v, want what was learned again only",
			b.knows(1), b.knows(2))
	}
	b.pass(memory - 1)
	if b.knows(2) {
		t.Error("at the second end: got something known, want nothing")
	}
}

// TestKnown_makesRoom has as much as is remembered, of which a half has just ended: that makes
// room, and all else stays.
func TestKnown_makesRoom(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, .mx.example, connections=1 }")
	const half = capacity / 2
	wantSize := func(when string, want int) {
		t.Helper()
		if k := &b.set.known; len(k.names) != want || len(k.destinations) != want {
			t.Errorf("%s: got %d names and %d destinations, want %d",
				when, len(k.names), len(k.destinations), want)
		}
	}
	for i := range half {
		b.learn(i)
	}
	b.pass(memory)
	for i := half; i < capacity; i++ {
		b.learn(i)
	}
	wantSize("full", capacity)
	b.learn(capacity - 1) // takes no room
	wantSize("full", capacity)
	b.learn(capacity)
	wantSize("a half has ended", half+1)
	for i := half; i <= capacity; i++ {
		if !b.knows(i) {
			t.Fatalf("got %d forgotten", i)
		}
	}
	for i := range half - 1 {
		b.learn(i)
	}
	for i := range 3 { // nothing has ended
		wantSize("full again", capacity)
		b.learn(capacity + 1 + i)
		if !b.knows(capacity + 1 + i) {
			t.Errorf("got the newest one forgotten")
		}
	}
}

// TestBind_isBounded has one destination lead to more endpoints than are remembered, until
// their bindings end.
func TestBind_isBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	bind := func(i int, ttl time.Duration) {
		b.set.SaveDestination(b.client(), b.now, ttl, []byte("smtp\nd\n"), nil,
			[]byte(label(fmt.Sprint("192.0.2.", i))))
	}
	bound := func() map[string]time.Duration {
		all := map[string]time.Duration{}
		for _, d := range b.set.Export(b.now).Destinations {
			all[d.Endpoint] = d.Binding
		}
		return all
	}
	for i := range maxPerDestination + 1 {
		bind(i, time.Duration(1+i%2)*time.Second)
	}
	if got := bound(); len(got) != maxPerDestination || got[label("192.0.2.16")] != 0 {
		t.Errorf("got %v, want the first %d", got, maxPerDestination)
	}
	bind(0, 3*time.Second) // takes no room
	b.pass(time.Second)
	bind(16, time.Minute)
	// Seven have ended.
	if got := bound(); len(got) != maxPerDestination-6 || got[label("192.0.2.16")] != time.Minute ||
		got[label("192.0.2.0")] != 2*time.Second || got[label("192.0.2.1")] != time.Second {
		t.Errorf("later: got %v", got)
	}
}
