// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"testing"
	"time"
)

// TestStats_newPerMinute has clients connect at odd times. They count for a minute, by
// intervals of ten seconds.
func TestStats_newPerMinute(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, slow, new=1000/1s }", func(c *Config) { c.Estimate = true })
	var begun []time.Duration
	for i, pass := range []time.Duration{
		0, 1, slotTime - 2, 1, 0, slotTime, 3 * slotTime, slotTime - 1, 1, 6 * slotTime, 5 * slotTime,
		7 * slotTime, 1, 20 * slotTime, slotTime / 2, slotTime / 2, 5*slotTime - 1, 1, slotTime,
	} {
		b.pass(pass)
		want := 0
		for _, at := range begun {
			if at/slotTime > b.now/slotTime-6 {
				want++
			}
		}
		for range 2 { // looking changes nothing
			if got := b.set.Stats(b.now)[0].NewPerMinute; got != want {
				t.Errorf("step %d, at %v: got %d, want %d", i, b.now, got, want)
			}
		}
		b.wantVerdict("new", b.ask(b.client(), "slow\n"), NotFound)
		begun = append(begun, b.now)
	}
}

// TestSet_forgetsWhatIsUnused has more receivers than are remembered: those without state are
// forgotten. One of which anything is known stays.
func TestSet_forgetsWhatIsUnused(t *testing.T) {
	t.Parallel()
	const address = "192.0.2.1"
	l, other := label(address), "relay\n"+address+"\n25\n0\n"
	for name, test := range map[string]struct {
		change func(*Config)
		rule   string
		do     func(b *bench)
	}{
		"client waits": {
			change: func(c *Config) { c.Estimate = true }, rule: "connections=1",
			do: func(b *bench) { b.wantVerdict("full", b.ask(b.client(), other), Wait) },
		},
		"connection is promised": {
			rule: "connections=9",
			do: func(b *bench) {
				b.count()
				b.pass(closeTime)
				b.count()
				b.wantVerdict("room", b.ask(b.client(), other), NotFound)
			},
		},
		"client is still at it": {
			rule: "connections=9",
			do: func(b *bench) {
				b.count()
				b.wantVerdict("room", b.ask(b.client(), other), NotFound)
				b.open(address, 1)
				b.count()
				b.shut(address)
				b.count()
			},
		},
		"connection has begun": {
			change: func(c *Config) { c.Estimate = true }, rule: "new=9/1m",
			do: func(b *bench) {
				c := b.client()
				b.wantVerdict("room", b.ask(c, other), NotFound)
				b.set.ProcessEnded(b.now, c.PID)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "{ *, "+test.rule+" }", never, func(c *Config) {
				if test.change != nil {
					test.change(c)
				}
			})
			b.set.Saved(nil, b.now, l)
			test.do(b)
			if name == "client waits" {
				b.pass(closeTime) // the session was to be closed, in vain
			}
			for i := range 2 * capacity {
				b.set.NotClosed(b.now, label(fmt.Sprintf("10.1.%d.%d", i/256, i%256)))
			}
			if got := b.set.Stats(b.now)[0]; got.Idle != 1 || got.Receivers > capacity {
				t.Errorf("got %d idle, %d receivers, want 1 idle", got.Idle, got.Receivers)
			}
		})
	}
}

// TestSet_forgetsManyLater has more receivers in use than are remembered otherwise. All of them
// stay until they are unused.
func TestSet_forgetsManyLater(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ *, connections=1 }")
	address := func(i int) string { return label(fmt.Sprintf("10.1.%d.%d", i/256, i%256)) }
	for i := range capacity + 1 {
		b.set.Saved(nil, b.now, address(i))
	}
	if got := b.set.Stats(b.now)[0]; got.Idle != capacity+1 {
		t.Errorf("got %d idle, want all", got.Idle)
	}
	for i := range capacity + 1 {
		b.set.Dropped(b.now, address(i))
	}
	for i := range capacity {
		b.set.NotClosed(b.now, address(capacity+1+i))
	}
	if got := b.set.Stats(b.now)[0]; got.Receivers != 1 {
		t.Errorf("got %d receivers, want the last one", got.Receivers)
	}
}

// TestSet_linesEndInTime has an address belong to a receiver by a line of its labels: for an
// hour, which begins anew with a question when less than a half of it is left.
func TestSet_linesEndInTime(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, relay, connections=9 } { *, connections=9 }")
	b.open("192.0.2.1", 1)
	ask := func() { b.set.NotClosed(b.now, "relay\n192.0.2.1\n25\n0\n") }
	want := func(when string, lines, others int) {
		t.Helper()
		b.set.NotClosed(b.now, label("192.0.2.1"))
		b.count()
		all := b.set.Stats(b.now)
		if all[0].Open != lines || all[1].Open != others {
			t.Errorf("%s: got %d by the line, %d others, want %d, %d", when, all[0].Open, all[1].Open,
				lines, others)
		}
	}
	want("before", 0, 1)
	ask()
	want("asked", 1, 0)
	b.pass(memory / 3)
	ask() // too early
	b.pass(memory/3*2 + time.Second)
	want("after an hour", 0, 1)
	ask()
	want("asked again", 1, 0)
	b.pass(memory * 2 / 3)
	ask()
	b.pass(memory * 2 / 3)
	want("an hour after it began", 1, 0)
}
