// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"scache/internal/histogram"
)

// TestExport_all has some of everything, of which a part has ended, go over to a process with
// another clock, and from there to a third one.
func TestExport_all(t *testing.T) {
	t.Parallel()
	const rules = "{ a, .mx.example, 192.0.2.0/24, connections=9, new=5/1m } " +
		"{ b, slow, connections=2 }"
	b := newBench(t, rules)
	text := []byte("host_name=x.mx.example\nhost_addr=198.51.100.1\n")
	b.set.SaveDestination(b.client(), b.now, time.Second, []byte("old\n"), text,
		[]byte(label("192.0.2.1")))
	b.pass(memory - time.Minute)
	b.count()
	b.set.SaveDestination(b.client(), b.now, 2*time.Minute, []byte("new\n"), nil,
		[]byte("smtp\n192.0.2.1\n26\n"))
	b.count()
	c := b.client()
	b.wantVerdict("a", b.ask(c, label("192.0.2.1")), NotFound)
	b.open("192.0.2.1", 1)
	b.count()
	begun := b.now
	b.wantVerdict("a", b.ask(b.client(), label("192.0.2.1")), NotFound) // a promise: not exported
	held, unknown := b.client(), &Client{}
	b.wantVerdict("b", b.ask(held, "slow\n"), NotFound)
	b.wantVerdict("b", b.ask(unknown, "slow\n"), NotFound)
	b.pass(10 * time.Millisecond)
	want := State{
		Names: []KnownName{{b.address("198.51.100.1"), "x.mx.example",
			time.Hour + memory - b.now}}, // since the clock of the test began
		Begun: []KnownBegun{{Receiver: "a", Age: b.now - begun}},
		Holds: []KnownHold{{Receiver: "b", PID: held.PID}},
	}
	check := func(what string, got State) {
		t.Helper()
		if !reflect.DeepEqual(got.Names, want.Names) || !reflect.DeepEqual(got.Begun, want.Begun) ||
			!reflect.DeepEqual(got.Holds, want.Holds) {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
		for _, d := range got.Destinations {
			if d.Label == "new\n" && (d.Binding < 0 || d.Remaining <= time.Minute || d.Remaining > memory) {
				t.Errorf("%s: got %+v", what, d)
			}
		}
		if got.Totals[0].Counts.New != 2 || got.Totals[1].Counts.New != 2 {
			t.Errorf("%s: got %+v, want two new each", what, got.Totals)
		}
	}
	state := b.set.Export(b.now)
	check("first", state)
	b.now = time.Hour + memory
	if got := b.set.Export(b.now); len(got.Names) > 0 || len(got.Destinations) != 1 {
		t.Errorf("got %+v, want nothing that has ended", got)
	}
	other := newBench(t, rules)
	other.now = 7 * time.Hour
	d := other.set.Restore(other.now, state)
	if !slices.Equal(d.Watch, []int{held.PID}) {
		t.Errorf("got processes %d to be watched, want %d", d.Watch, held.PID)
	}
	if got := other.set.Ports(); !slices.Equal(got, []uint16{25, 26}) {
		t.Errorf("got ports %d", got)
	}
	check("second", other.set.Export(other.now))
	for _, d := range other.set.Export(other.now).Destinations {
		i := slices.IndexFunc(state.Destinations,
			func(o KnownDestination) bool { return o.Label == d.Label })
		if want := state.Destinations[i]; d.Binding != want.Binding || d.Remaining != want.Remaining {
			t.Errorf("%q: got %+v, want %+v", d.Label, d, want)
		}
	}
}

// TestRestore_olderThanWhatIsKnown has a destination that an agent has saved meanwhile.
func TestRestore_olderThanWhatIsKnown(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24 }")
	b.set.SaveDestination(b.client(), b.now, time.Second, []byte("d\n"), nil,
		[]byte(label("192.0.2.1")))
	b.set.Restore(b.now, State{
		Destinations: []KnownDestination{{"d\n", label("192.0.2.1"), time.Minute, time.Second}},
	})
	if got := b.set.Export(b.now).Destinations; len(got) != 1 || got[0].Remaining != memory {
		t.Errorf("got %+v, want one that is remembered for %v", got, memory)
	}
}

// TestRestore_otherRules has a state of which the rules have a part only.
func TestRestore_otherRules(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 } { b, slow, new=1/1m }")
	d := b.set.Restore(b.now, State{
		Names:        []KnownName{{b.address("192.0.2.1"), "x.mx.example", time.Minute}},
		Destinations: []KnownDestination{{"d\n", "fast\n", time.Minute, time.Minute}},
		Begun:        []KnownBegun{{Receiver: "a"}, {Receiver: "gone"}},
		Holds:        []KnownHold{{Receiver: "gone", PID: 7}, {Receiver: "a", PID: 0}},
		Totals:       []RuleTotals{{Receiver: "gone", Counts: Totals{New: 9}}},
	})
	if !reflect.DeepEqual(d, Decisions{}) {
		t.Errorf("got %+v, want nothing to do", d)
	}
	for _, s := range b.set.Stats(b.now) {
		if s.Receivers+s.Open != 0 || s.New != 0 {
			t.Errorf("got %+v, want nothing", s)
		}
	}
	state := b.set.Export(b.now)
	if len(state.Names)+len(state.Destinations)+len(state.Begun)+len(state.Holds) > 0 {
		t.Errorf("got %+v, want nothing", state)
	}

	// A connection that no client has any more counts where new ones are limited, only.
	c := b.client()
	b.ask(c, label("192.0.2.1"))
	b.wantAnswers("room", b.count(), Answer{Client: c})
	b.set.Gone(c, b.now)
	if got := b.set.Export(b.now).Begun; len(got) > 0 {
		t.Errorf("got %+v, want none", got)
	}
}

// TestRestore_adds has counters of two processes.
func TestRestore_adds(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, slow }")
	var waited histogram.Histogram
	waited.Observe(time.Second)
	once := Totals{New: 1, Given: 2, Overflows: 3, Refused: 4, Closed: 5}
	for range 2 {
		b.set.Restore(b.now, State{Totals: []RuleTotals{{"a", once, waited.Values()}}})
	}
	got := b.set.Stats(b.now)[0]
	if want := (Totals{2, 4, 6, 8, 10}); got.Totals != want || got.Waited.Sum != 2*time.Second {
		t.Errorf("got %+v and %v, want %+v and 2 s", got.Totals, got.Waited.Sum, want)
	}
}

// TestRestore_begunInOrder has connections that have begun, in any order: clients have their
// turns in the order of their times.
func TestRestore_begunInOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, new=2/1m }", never)
	b.set.Restore(b.now, State{Begun: []KnownBegun{
		{Receiver: "a", Age: 10 * time.Second}, {Receiver: "a", Age: 40 * time.Second},
	}})
	c := b.client()
	b.wantVerdict("full", b.ask(c, label("192.0.2.1")), Wait)
	end := b.now + 20*time.Second + newMargin
	b.wantWake("full", b.last, end)
	b.wantNothingBefore("the older one", end)
	b.wantAnswers("the older one", b.set.Tick(b.now), Answer{Client: c})
}

// TestExportClient has clients in each state, and resumes them in another process.
func TestExportClient(t *testing.T) {
	t.Parallel()
	const rules = "{ a, 192.0.2.0/24, connections=1 } { free, 198.51.100.1, idle=3 }"
	l, destination, free := label("192.0.2.1"), "smtp\nd\n", "smtp\nfree\n"
	for _, test := range []struct {
		name string
		do   func(b *bench, c *Client)
		want ClientState
		ok   bool
		v    Verdict
		wake time.Duration // after now
	}{
		{name: "nothing", do: func(b *bench, c *Client) {}},
		{name: "next delivery", do: func(b *bench, c *Client) { b.ask(c, l); b.set.Begin(c, b.now) }},
		{
			name: "waits", do: func(b *bench, c *Client) { b.ask(c, l); b.pass(time.Second) },
			want: ClientState{
				Waiting: true, Label: l, Place: 1, Waited: time.Second, Remaining: wait - time.Second,
				Asked: []string{l},
			},
			ok: true, v: Wait, wake: wait - time.Second,
		},
		{
			name: "waits by destination", do: func(b *bench, c *Client) {
				b.askDestination(c, destination)
				b.pass(wait + time.Second) // its answer is late
			},
			want: ClientState{
				Destination: destination, Waiting: true, Label: destination, Place: 1,
				Waited: wait + time.Second,
			},
			ok: true, v: Wait,
		},
		{
			name: "is given a session", do: func(b *bench, c *Client) {
				b.ask(c, l)
				b.wantAnswers("given", b.set.Saved(nil, b.now, l), Answer{c, l})
			},
			want: ClientState{
				Waiting: true, Label: l, Place: 1, Remaining: wait, Asked: []string{l},
			},
			ok: true, v: Wait, wake: wait,
		},
		{
			name: "did not have to wait",
			do:   func(b *bench, c *Client) { b.askDestination(c, free) },
			want: ClientState{Destination: free}, ok: true, v: NotFound,
		},
		{
			name: "is promised a connection", do: func(b *bench, c *Client) {
				b.ask(c, l)
				b.wantAnswers("promised", b.count(), Answer{Client: c})
				b.pass(time.Second / 4)
			},
			want: ClientState{
				Settled: true, Place: 1, Waited: time.Second/4 + time.Millisecond,
				Remaining: wait - time.Second/4 - time.Millisecond,
				Asked:     []string{l}, Promised: l, PromiseAge: time.Second / 4,
			},
			ok: true, v: NotFound,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b, other := newBench(t, rules), newBench(t, rules)
			for _, b := range []*bench{b, other} {
				b.set.SaveDestination(nil, b.now, 0, []byte(destination), nil, []byte(l))
				b.set.SaveDestination(nil, b.now, 0, []byte(free), nil, []byte(label("198.51.100.1")))
			}
			c := b.client()
			test.do(b, c)
			state, ok := b.set.ExportClient(c, b.now)
			if len(state.Asked) == 0 {
				state.Asked = nil
			}
			if ok != test.ok || !reflect.DeepEqual(state, test.want) {
				t.Fatalf("got %+v, %t, want %+v, %t", state, ok, test.want, test.ok)
			}
			if !ok {
				return
			}
			other.now = 9 * time.Hour
			other.set.SaveDestination(nil, other.now, 0, []byte(destination), nil, []byte(l))
			other.set.SaveDestination(nil, other.now, 0, []byte(free), nil,
				[]byte(label("198.51.100.1")))
			resumed := &Client{PID: 7}
			v, d := other.set.RestoreClient(resumed, other.now, state)
			other.wantVerdict("resumed", v, test.v)
			if v == Wait {
				other.wantWake("resumed", d, other.now+test.wake)
			}
			if again, ok := other.set.ExportClient(resumed, other.now); test.v == Wait &&
				(!ok || again.Waited != state.Waited || again.Remaining != state.Remaining) {
				t.Errorf("resumed: got %+v, %t, want %+v", again, ok, state)
			}
		})
	}
}

// TestRestoreClient_promiseIsOver has a promise that ends during the handover: it is no promise.
func TestRestoreClient_promiseIsOver(t *testing.T) {
	t.Parallel()
	l := label("192.0.2.1")
	for age, want := range map[time.Duration]int{promiseTime - 1: 1, promiseTime: 0} {
		b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }", never,
			func(c *Config) { c.Shared = true })
		state := ClientState{Settled: true, Place: 3, Promised: l, PromiseAge: age, Asked: []string{l}}
		v, _ := b.set.RestoreClient(b.client(), b.now, state)
		b.wantVerdict(age.String(), v, NotFound)
		promised := 0
		for _, s := range b.set.Shared(b.now) {
			promised += s.Promised
		}
		if got := b.set.Stats(b.now)[0]; promised != want || got.Refused != 0 {
			t.Errorf("%v: got %d promised, %d refused, want %d, 0", age, promised, got.Refused, want)
		}
	}
}

// TestRestoreClient_withoutAPlace has a client that did not wait so far. It waits for its whole
// time, behind those that wait already.
func TestRestoreClient_withoutAPlace(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	l := label("192.0.2.1")
	b.set.SaveDestination(nil, b.now, 0, []byte("d\n"), nil, []byte(l))
	first, second := b.client(), b.client()
	b.set.RestoreClient(first, b.now, ClientState{Waiting: true, Label: l, Place: 9,
		Remaining: time.Hour,
		Asked:     []string{l}})
	b.set.RestoreClient(second, b.now, ClientState{Destination: "d\n"})
	b.wantVerdict("second", b.ask(second, l), Wait)
	b.wantWake("no time but that of the configuration", b.set.Tick(b.now), b.now+wait)
	state, _ := b.set.ExportClient(second, b.now)
	if state.Place != 10 || state.Remaining != wait {
		t.Errorf("got %+v, want place 10, and %v left", state, wait)
	}
	b.wantAnswers("in order", b.count(), Answer{Client: first})
}

// TestExportClient_bound has a client ask for many endpoints.
func TestExportClient_bound(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, idle=1 }")
	c := b.client()
	for i := range 2 * maxPerDestination {
		b.ask(c, label(fmt.Sprint("192.0.2.", i)))
	}
	if state, _ := b.set.ExportClient(c, b.now); len(state.Asked) != maxPerDestination {
		t.Errorf("got %d endpoints, want %d", len(state.Asked), maxPerDestination)
	}
}

// TestRestoreClient_noBinding has clients ask by a destination that names its host, and has led to
// no session yet.
func TestRestoreClient_noBinding(t *testing.T) {
	t.Parallel()
	const rules, destination = "{ a, relay.example, connections=1 }", "smtp\n[relay.example]:25\n"
	b := newBench(t, rules, never)
	first, second := b.client(), b.client()
	b.wantVerdict("first", b.askDestination(first, destination), Wait)
	b.wantAnswers("room", b.count(), Answer{Client: first})
	b.wantVerdict("second", b.askDestination(second, destination), Wait)
	other := newBench(t, rules, never)
	other.set.Restore(other.now, b.set.Export(b.now))
	for c, want := range map[*Client]Verdict{first: NotFound, second: Wait} {
		state, _ := b.set.ExportClient(c, b.now)
		v, _ := other.set.RestoreClient(other.client(), other.now, state)
		other.wantVerdict("in the next process", v, want)
	}
	other.wantAnswers("full", other.count())
}
