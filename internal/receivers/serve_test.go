// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestServe_closesAsMuchAsIsNeeded has idle sessions that clients cannot use, and more
// connections than are allowed: what is above the limit is closed, and one more for each client,
// the oldest first.
func TestServe_closesAsMuchAsIsNeeded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limit, open, idle, waiters int
		want                       int
		more, after                int // sessions that are saved later, and what is closed then
	}{
		{2, 2, 2, 1, 1, 0, 0},
		{2, 4, 3, 1, 3, 0, 0},
		{4, 4, 3, 2, 2, 0, 0},
		{4, 6, 2, 1, 2, 1, 1},
		{9, 9, 9, 3, 3, 0, 0},
		{2, 2, 1, 3, 1, 1, 1},
	} {
		b := newBench(t, fmt.Sprintf("{ a, 192.0.2.0/24, connections=%d }", test.limit))
		b.open("192.0.2.1", test.open)
		b.count()
		for range test.idle {
			b.set.Saved(b.client(), b.now, label("192.0.2.1"))
			b.pass(time.Millisecond)
		}
		var waiting []*Client
		got := 0
		for range test.waiters {
			c := b.client()
			waiting = append(waiting, c)
			b.ask(c, label("192.0.2.2"))
			got += len(b.last.Close)
		}
		d := b.count()
		if got += len(d.Close); got != test.want || len(d.Answers) > 0 {
			t.Errorf("%+v: got %d closed, %d answers", test, got, len(d.Answers))
		}
		for range test.more {
			d := b.set.Saved(b.client(), b.now, label("192.0.2.1"))
			if len(d.Close) != test.after {
				t.Errorf("%+v: got %d closed after one more is saved", test, len(d.Close))
			}
		}
		closed := test.want + test.more*test.after
		if got := b.set.Stats(b.now)[0]; got.Closed != int64(closed) || got.Waiting != test.waiters {
			t.Errorf("%+v: got %+v, %d waiting, want %d closed", test, got.Counts, got.Waiting, closed)
		}
		// The kernel does not show them any more: as many clients connect as there is room for.
		for range closed {
			b.set.Ended(b.now, label("192.0.2.1"))
			b.shut("192.0.2.1")
		}
		room := max(0, test.limit-(test.open-closed))
		want := min(room, test.waiters)
		var answered []*Client
		for _, a := range b.count().Answers {
			answered = append(answered, a.Client)
		}
		if !slices.Equal(answered, waiting[:want]) {
			t.Errorf("%+v: got %d answers, want the first %d", test, len(answered), want)
		}
	}
}

// TestServe_countsWhatClientsGet has a client get a session at once, and another one after a
// wait.
func TestServe_countsWhatClientsGet(t *testing.T) {
	t.Parallel()
	const waits = 3 * time.Second
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }", func(c *Config) { c.Wait = time.Minute })
	b.open("192.0.2.1", 1)
	b.count()
	c := b.client()
	b.set.Begin(c, b.now)
	b.wantVerdict("full", b.ask(c, label("192.0.2.1")), Wait)
	b.count()
	begun := b.now
	b.pass(waits)
	d := b.set.Saved(b.client(), b.now, label("192.0.2.1"))
	b.wantAnswers("saved", d, Answer{c, label("192.0.2.1")})
	b.set.Served(c, b.now, true)
	got := b.set.Stats(b.now)[0]
	if got.Given != 1 || got.New != 0 || got.Closed != 0 || got.Idle != 0 {
		t.Errorf("got %+v, %d idle, want one given", got.Counts, got.Idle)
	}
	if took := b.now - begun; got.Waited.Count() != 1 || got.Waited.Sum < took ||
		got.Waited.Sum > took+time.Second {
		t.Errorf("got %d waits of %v, want one of %v", got.Waited.Count(), got.Waited.Sum, took)
	}
}
