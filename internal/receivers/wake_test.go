// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// wantWake compares the time of the last decisions, or of none.
func (b *bench) wantWake(what string, d Decisions, want time.Duration) {
	b.Helper()
	if d.Wake != want {
		b.Errorf("%s: got wake %v, want %v", what, d.Wake-b.now, want-b.now)
	}
}

// wantNothingBefore has ticks up to a time do nothing, and lets time pass until then.
func (b *bench) wantNothingBefore(what string, at time.Duration) {
	b.Helper()
	b.now = at - 1
	d := b.set.Tick(b.now)
	if len(d.Answers)+len(d.Close) > 0 {
		b.Errorf("%s: got %+v too early", what, d)
	}
	b.wantWake(what, d, at)
	b.now = at
}

// never is longer than all other times, for clients that wait until something else happens.
func never(c *Config) { c.Wait = 1000 * time.Hour }

// TestWake_timeIsOver has a client whose time ends: no earlier, no later.
func TestWake_timeIsOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, slow, connections=1 }", func(c *Config) { c.Estimate = true })
	b.ask(b.client(), "slow\n")
	first, second := b.client(), b.client()
	end := b.now + wait
	b.wantVerdict("first", b.ask(first, "slow\n"), Wait)
	b.wantWake("first", b.last, end)
	b.pass(time.Second)
	b.wantVerdict("second", b.ask(second, "slow\n"), Wait)
	b.wantWake("second", b.last, end)
	b.wantNothingBefore("first", end)
	d := b.set.Tick(b.now)
	b.wantAnswers("first", d, Answer{Client: first})
	b.wantWake("then", d, end+time.Second)
	d = b.set.Gone(second, b.now)
	b.wantWake("no client waits", d, 0)
}

// TestWake_promise has promises that no client keeps: each ends after its time, and its
// connection may have begun as late as then.
func TestWake_promise(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, new=1/10s }", never)
	b.count()
	b.wantVerdict("promised", b.ask(b.client(), label("192.0.2.1")), NotFound)
	told := b.now
	c := b.client()
	b.wantVerdict("waits", b.ask(c, label("192.0.2.1")), Wait)
	b.count()
	b.now = told + promiseTime
	end := told + promiseTime + 10*time.Second + newMargin
	d := b.set.Tick(b.now)
	b.wantAnswers("refused", d)
	b.wantWake("refused", d, end)
	if got := b.set.Stats(b.now)[0].Refused; got != 1 || d.Count {
		t.Errorf("got %d refused, count %t, want 1 and none", got, d.Count)
	}
	b.wantNothingBefore("time of the connection", end)
	b.wantAnswers("time of the connection", b.set.Tick(b.now), Answer{Client: c})
}

// TestWake_promiseWhileAnotherWaits has a client wait behind a promise for a connection, when
// counts take long: it wakes when the promise ends.
func TestWake_promiseWhileAnotherWaits(t *testing.T) {
	t.Parallel()
	for _, elapsed := range []time.Duration{promiseTime - 1, promiseTime} {
		b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }", never)
		first, second := b.client(), b.client()
		b.ask(first, label("192.0.2.1"))
		b.wantAnswers("first", b.count(), Answer{Client: first})
		told := b.now
		b.ask(second, label("192.0.2.1"))
		for !b.last.Count {
			b.now = b.last.Wake
			b.last = b.set.Tick(b.now)
		}
		// The count is under way until the end.
		b.wantWake("behind a promise", b.set.Tick(b.now), told+promiseTime)
		b.now = told + elapsed
		want := int64(0)
		if elapsed == promiseTime {
			want = 1
		}
		if got := b.set.Stats(b.now)[0].Refused; got != want {
			t.Errorf("after %v: got %d refused, want %d", elapsed, got, want)
		}
	}
}

// TestWake_close has a session that is to be closed, and nothing comes of it. After its time,
// it goes to a client that can use it, or is closed again.
func TestWake_close(t *testing.T) {
	t.Parallel()
	for _, isUsable := range []bool{false, true} {
		b := newBench(t, "{ a, slow, relay, connections=1 }", never,
			func(c *Config) { c.Estimate = true })
		b.set.Saved(nil, b.now, "slow\n")
		b.wantVerdict("other endpoint", b.ask(b.client(), "relay\n"), Wait)
		again := b.now + closeTime
		b.wantClose("full", b.last, "slow\n")
		b.wantWake("full", b.last, again)
		if got := b.set.Stats(b.now)[0]; got.Idle != 0 || got.Open != 1 || got.Closed != 1 {
			t.Errorf("got %d idle, %d open, %d closed, want 0, 1, 1", got.Idle, got.Open, got.Closed)
		}
		c := b.client()
		if isUsable {
			b.wantVerdict("what is to be closed", b.ask(c, "slow\n"), Wait)
			b.wantClose("what is to be closed", b.last)
		}
		b.wantNothingBefore("to be closed", again)
		if d := b.set.Tick(b.now); isUsable {
			b.wantAnswers("usable", d, Answer{c, "slow\n"})
			b.wantClose("usable", d)
		} else {
			b.wantAnswers("not usable", d)
			b.wantClose("not usable", d, "slow\n")
		}
	}
}

// TestWake_counts has counts one after another while a client waits: soon after a change, and
// less and less often without one. The costlier a count is, the longer is the time until the
// next one.
func TestWake_counts(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }", never)
	b.open("192.0.2.1", 2)
	b.wantVerdict("full", b.ask(b.client(), label("192.0.2.1")), Wait)
	for i, step := range []struct {
		change func()
		takes  time.Duration
		want   time.Duration
	}{
		{nil, 0, 5 * time.Millisecond}, // the first one is a change
		{nil, 0, 10 * time.Millisecond},
		{nil, 0, 20 * time.Millisecond},
		{nil, 0, 40 * time.Millisecond},
		{nil, 0, 40 * time.Millisecond},
		{nil, 4 * time.Millisecond, 40 * time.Millisecond},
		{nil, 10 * time.Millisecond, 80 * time.Millisecond},
		{func() { b.open("192.0.2.1", 1) }, 0, 5 * time.Millisecond},
		{nil, 0, 10 * time.Millisecond},
		{func() { b.shut("192.0.2.1"); b.open("192.0.2.1", 1) }, 0, 5 * time.Millisecond},
		{func() { b.open("192.0.2.1", 1) }, 2 * time.Millisecond, 16 * time.Millisecond},
		{func() { b.set.Dropped(b.now, label("192.0.2.1")) }, 0, 10 * time.Millisecond},
	} {
		if d := b.set.Tick(b.now); d.Count == (i == 0) { // then, one is under way
			t.Fatalf("step %d: got count %t, want %t", i, d.Count, i != 0)
		}
		if step.change != nil {
			step.change()
		}
		n := b.set.NewSnapshot(b.now)
		for cookie, remote := range b.kernel {
			n.Add(remote, cookie)
		}
		b.pass(step.takes)
		d := b.set.Apply(n, b.now)
		at := b.now + step.want
		b.wantWake(fmt.Sprint("step ", i), d, at)
		b.now = at - 1
		if d := b.set.Tick(b.now); d.Count {
			t.Errorf("step %d: got a count too early", i)
		}
		b.now = at
	}
}

// TestWake_count has counts of several ages: how many clients connect without another one, and
// what is closed for a client.
func TestWake_count(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		age  time.Duration
		room Verdict // if the count shows room
	}{{0, NotFound}, {countInterval, NotFound}, {countInterval + 1, Wait}} {
		b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
		b.count()
		b.pass(test.age)
		b.wantVerdict(test.age.String(), b.ask(b.client(), label("192.0.2.1")), test.room)
	}
	for _, test := range []struct {
		open   int
		age    time.Duration
		closes bool
	}{
		{2, 0, true}, {2, recentCount, true}, {2, recentCount + 1, false},
		{3, recentCount, true}, {1, recentCount, false},
	} {
		b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }")
		b.open("192.0.2.1", test.open)
		b.count()
		b.pass(test.age)
		b.set.Saved(nil, b.now, label("192.0.2.1"))
		b.wantVerdict("other endpoint", b.ask(b.client(), label("192.0.2.2")), Wait)
		if got := len(b.last.Close) > 0; got != test.closes {
			t.Errorf("%+v: got %q to be closed", test, b.last.Close)
		}
	}
}

// TestCount_ofAnotherPort has a question about a port that was not counted so far: nothing is
// known then, and the next count comes at once. Ports are bounded.
func TestCount_ofAnotherPort(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=9 }")
	b.count()
	c := b.client()
	b.wantVerdict("other port", b.ask(c, "smtp\n192.0.2.1\n587\n0\n"), Wait)
	if !b.last.Count {
		t.Error("got no count at once")
	}
	b.wantAnswers("counted", b.count(), Answer{Client: c})
	b.set.FindDestination(b.client(), b.now, []byte("smtp\n[192.0.2.1]:2525\n"))
	if got := b.set.Ports(); !slices.Equal(got, []uint16{25, 587, 2525}) {
		t.Errorf("got ports %d", got)
	}
	for i := range maxPorts {
		b.set.Saved(nil, b.now, fmt.Sprintf("smtp\n192.0.2.1\n%d\n0\n", 3000+i))
	}
	if got := b.set.Ports(); len(got) != maxPorts {
		t.Errorf("got %d ports, want %d", len(got), maxPorts)
	}
}

// TestApply_order has snapshots that are applied in another order than they began.
func TestApply_order(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=9 }")
	b.set.Saved(nil, b.now, label("192.0.2.1"))
	snapshot := func(open int) *Snapshot {
		n := b.set.NewSnapshot(b.now)
		for i := range open {
			n.Add(netip.MustParseAddrPort("192.0.2.1:25"), uint64(i))
		}
		return n
	}
	first := snapshot(1)
	b.pass(1)
	for _, step := range []struct {
		n    *Snapshot
		want int
	}{{snapshot(2), 2}, {first, 2}, {snapshot(3), 3}, {snapshot(0), 0}} {
		b.set.Apply(step.n, b.now)
		if got := b.set.Stats(b.now)[0].Open; got != step.want {
			t.Errorf("got %d open, want %d", got, step.want)
		}
	}
}

// TestNew_ofOtherPrograms_bound has another program connect between two counts: that counts as
// new if it is not longer than recentCount ago.
func TestNew_ofOtherPrograms_bound(t *testing.T) {
	t.Parallel()
	for since, want := range map[time.Duration]Verdict{recentCount: Wait, recentCount + 1: NotFound} {
		b := newBench(t, "{ a, 192.0.2.0/24, new=1/10s }")
		b.set.NotClosed(b.now, label("192.0.2.1"))
		b.set.Apply(b.set.NewSnapshot(b.now), b.now)
		b.pass(since)
		b.open("192.0.2.1", 1)
		b.count()
		b.wantVerdict(since.String(), b.ask(b.client(), label("192.0.2.1")), want)
	}
}

// TestGone_sameTimeAsACount has a client that may have connected go, at the very time when a
// count begins: the next count tells.
func TestGone_sameTimeAsACount(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }", never)
	first, second := b.client(), b.client()
	b.ask(first, label("192.0.2.1"))
	b.ask(second, label("192.0.2.1"))
	b.wantAnswers("first", b.count(), Answer{Client: first})
	b.set.Gone(first, b.now)
	b.wantAnswers("at the same time", b.count())
	b.wantAnswers("later", b.count(), Answer{Client: second})
}
