// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"slices"
	"strings"
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
			t.Errorf("%+v: got %+v, %d waiting, want %d closed", test, got.Totals, got.Waiting, closed)
		}
		// The kernel does not show them any more: as many clients connect as there is room for.
		for range closed {
			b.set.Dropped(b.now, label("192.0.2.1"))
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
		t.Errorf("got %+v, %d idle, want one given", got.Totals, got.Idle)
	}
	if took := b.now - begun; got.Waited.Count() != 1 || got.Waited.Sum < took ||
		got.Waited.Sum > took+time.Second {
		t.Errorf("got %d waits of %v, want one of %v", got.Waited.Count(), got.Waited.Sum, took)
	}
}

// TestServe_halfOfTheTime has a session that the first client cannot use, and the second one can.
// It is closed for the first one after half of its time, if a new connection may begin then.
func TestServe_halfOfTheTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limits string
		waited time.Duration
		closes bool
	}{
		{"connections=1", wait / 2, false},
		{"connections=1", wait/2 + 1, true},
		{"connections=2, new=1/1m", wait/2 + 1, false},
	} {
		b := newBench(t, "{ a, slow, relay, "+test.limits+" }",
			func(c *Config) { c.Estimate = true })
		b.wantVerdict("room", b.ask(b.client(), "other slow\nslow\n"), NotFound)
		first, second := b.client(), b.client()
		b.wantVerdict("first", b.ask(first, "relay\n"), Wait)
		b.wantVerdict("second", b.ask(second, "slow\n"), Wait)
		b.pass(test.waited)
		d := b.set.Saved(nil, b.now, "slow\n")
		if test.closes {
			b.wantAnswers(test.limits, d)
			b.wantClose(test.limits, d, "slow\n")
		} else {
			b.wantAnswers(test.limits, d, Answer{second, "slow\n"})
			b.wantClose(test.limits, d)
		}
		if got := b.set.Stats(b.now)[0].Waited.Count(); (got == 0) != test.closes {
			t.Errorf("%+v: got %d waits", test, got)
		}
	}
}

// TestServe_noConnectionMayBegin has a session that a client cannot use, and room, but too many
// connections have begun.
func TestServe_noConnectionMayBegin(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, slow, relay, connections=9, new=1/1m }", never,
		func(c *Config) { c.Estimate = true })
	b.set.Saved(nil, b.now, "slow\n")
	b.wantVerdict("first", b.ask(b.client(), "relay\n"), NotFound)
	b.wantVerdict("second", b.ask(b.client(), "relay\n"), Wait)
	b.wantClose("second", b.last)
	if got := b.set.Stats(b.now)[0]; got.Waited.Count() != 0 || got.Waiting != 1 || got.Open != 2 {
		t.Errorf("got %d waits, %d waiting, %d open, want 0, 1, 2", got.Waited.Count(), got.Waiting,
			got.Open)
	}
}

// TestServe_oldestFirst has sessions of several endpoints: the oldest one is closed, and of those
// of the same age, the first by its label.
func TestServe_oldestFirst(t *testing.T) {
	t.Parallel()
	for range 20 { // as maps have any order
		b := newBench(t, "{ a, 192.0.2.0/24, idle=3 }")
		for _, last := range []string{"7", "3", "5"} {
			b.set.Saved(nil, b.now, label("192.0.2."+last))
		}
		b.pass(1)
		for _, want := range []string{"3", "5", "7", "1"} {
			d := b.set.Saved(nil, b.now, label("192.0.2.1"))
			b.wantClose("one more", d, label("192.0.2."+want))
			if got := b.set.Stats(b.now)[0].Idle; got != 3 {
				t.Errorf("got %d idle, want 3", got)
			}
		}
	}
}

// TestServe_oldestIsFound has an endpoint with the oldest session and with a young one. A client
// finds the first of them: then the oldest one is another endpoint's.
func TestServe_oldestIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, idle=3 }")
	one, two, three := label("192.0.2.1"), label("192.0.2.2"), label("192.0.2.3")
	for _, l := range []string{one, two, one} {
		b.set.Saved(nil, b.now, l)
		b.pass(1)
	}
	b.set.Found(b.client(), b.now, one)
	b.wantClose("no more than before", b.set.Saved(nil, b.now, three))
	b.wantClose("one more", b.set.Saved(nil, b.now, three), two)
}

// TestNotClosed_isNotGiven has a session that the cache does not have. No client is given it until
// another one is saved.
func TestNotClosed_isNotGiven(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }", never)
	l := label("192.0.2.1")
	b.set.Saved(nil, b.now, l)
	b.set.NotClosed(b.now, l)
	c := b.client()
	b.wantVerdict("not there", b.ask(c, l), Wait)
	b.wantAnswers("saved", b.set.Saved(nil, b.now, l), Answer{c, l})
}

// TestSaved_idleNone has a session that is kept as a client waits, and that the client cannot use.
func TestSaved_idleNone(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1, idle=0 }")
	b.ask(b.client(), label("192.0.2.2"))
	c, l := b.client(), label("192.0.2.1")
	if keep, _, _ := b.set.Save(c, b.now, []byte(l), []byte("reuse_count\n")); !keep {
		t.Error("got a session not to be kept, although a client waits")
	}
	b.wantClose("not usable", b.set.Saved(c, b.now, l), l)
}

// TestServed_inUse has a session that a client was given: it is a connection all the time, until
// the process of the client ends, even if that is unknown.
func TestServed_inUse(t *testing.T) {
	t.Parallel()
	for _, isKnown := range []bool{true, false} {
		b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }", never,
			func(c *Config) { c.Estimate = true })
		l := label("192.0.2.1")
		var users []*Client
		for range 2 {
			b.set.Saved(nil, b.now, l)
			c := &Client{}
			if isKnown {
				c = b.client()
			}
			b.wantVerdict("there is one", b.ask(c, l), Take)
			users = append(users, c)
		}
		waiting := []*Client{b.client(), b.client(), b.client()}
		for _, c := range waiting {
			b.wantVerdict("given", b.ask(c, l), Wait)
		}
		for _, c := range users {
			_, d := b.set.Served(c, b.now, true)
			b.wantAnswers("served", d)
			b.wantVerdict("of the same delivery", b.ask(c, l), NotFound)
		}
		for pid := range 3 {
			b.wantAnswers("another process", b.set.ProcessEnded(b.now, pid))
		}
		if got := b.set.Stats(b.now)[0]; got.Open != 2 || got.New != 0 || got.Receivers != 1 {
			t.Errorf("got %d open, %d new, want 2, 0", got.Open, got.New)
		}
		for i, c := range users {
			d := b.set.Gone(c, b.now)
			if isKnown {
				b.wantAnswers("hung up", d)
				d = b.set.ProcessEnded(b.now, c.PID)
			}
			b.wantAnswers("ended", d, Answer{Client: waiting[i]})
		}
	}
}

// TestGone_given has a client that hangs up before it gets the session that it was given, which
// ends later.
func TestGone_given(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }", func(c *Config) { c.Estimate = true })
	b.set.Saved(nil, b.now, label("192.0.2.1"))
	c := b.client()
	b.wantVerdict("there is one", b.ask(c, label("192.0.2.1")), Take)
	b.set.Gone(c, b.now)
	if got := b.set.Stats(b.now)[0]; got.Idle != 1 || got.Open != 1 {
		t.Errorf("got %d idle, %d open, want 1, 1", got.Idle, got.Open)
	}
	b.set.Dropped(b.now, label("192.0.2.1"))
	b.wantVerdict("none is left", b.ask(b.client(), label("192.0.2.1")), NotFound)
}

// TestFound_thenAnotherAttempt has a client whose session turns out to be closed, so that it
// connects after all.
func TestFound_thenAnotherAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=9 }")
	b.count()
	c := b.client()
	b.set.Saved(nil, b.now, label("192.0.2.1"))
	b.set.Found(c, b.now, label("192.0.2.1"))
	for range 2 { // it asks for two endpoints, and connects once
		b.wantVerdict("another attempt", b.ask(c, label("192.0.2.1")), NotFound)
	}
	if got := b.set.Stats(b.now)[0].New; got != 1 {
		t.Errorf("got %d new, want 1", got)
	}
}

// TestFindDestination_bindings has a destination lead to two endpoints: clients get what is there,
// once each, until the binding ends.
func TestFindDestination_bindings(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }", never)
	const destination, ttl = "smtp\nd\n", 2 * time.Second
	b.open("192.0.2.1", 1)
	one, two := label("192.0.2.1"), label("192.0.2.2")
	b.set.SaveDestination(nil, b.now, ttl, []byte(destination), nil, []byte(one))
	b.set.SaveDestination(nil, b.now, ttl+1, []byte(destination), nil, []byte(two))
	end := b.now + ttl
	first, second := b.client(), b.client()
	b.wantVerdict("first", b.askDestination(first, destination), Wait)
	b.count()
	b.wantVerdict("second", b.askDestination(second, destination), Wait)
	b.wantAnswers("one is saved", b.set.Saved(nil, b.now, one), Answer{first, one})
	b.set.Served(first, b.now, true)
	b.now = end
	b.wantAnswers("the binding has ended", b.set.Saved(nil, b.now, one))
	b.wantAnswers("the other one has not", b.set.Saved(nil, b.now, two), Answer{second, two})
}

// TestPrompt_eachSessionOnce has clients that ask for a second endpoint next. One of them is told
// to go on, as there is one session.
func TestPrompt_eachSessionOnce(t *testing.T) {
	t.Parallel()
	for _, next := range []time.Duration{nextTime, nextTime + 1} {
		b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }", never)
		const destination = "smtp\nd\n"
		one, two := label("192.0.2.1"), label("192.0.2.2")
		b.set.SaveDestination(nil, b.now, 0, []byte(destination), nil, []byte(one))
		teacher := b.client()
		b.askDestination(teacher, destination)
		b.wantAnswers("room", b.count(), Answer{Client: teacher})
		b.ask(teacher, one)
		b.pass(next)
		b.ask(teacher, two)
		b.set.Gone(teacher, b.now)
		b.open("192.0.2.3", 1)
		b.pass(promiseTime)
		b.count()
		var all []*Client
		for range 3 {
			c := b.client()
			b.wantVerdict("by destination", b.askDestination(c, destination), Wait)
			all = append(all, c)
			b.set.FindEndpoint(c, b.now, []byte(one))
		}
		d := b.set.Saved(nil, b.now, two)
		if next > nextTime {
			b.wantAnswers("never asked right after", d)
			continue
		}
		b.wantAnswers("the first is told to go on", d, Answer{Client: all[0]})
		b.pass(promptTime / 2)
		d = b.set.Saved(nil, b.now, two)
		b.wantAnswers("the second as well", d, Answer{Client: all[1]})

		// The first one asks for something else before. That takes no time of the second one.
		end := b.now + promptTime
		b.pass(time.Millisecond)
		b.wantVerdict("goes on", b.ask(all[0], label("192.0.2.9")), NotFound)
		b.wantWake("the second one", b.last, end)
		b.wantWake("the second one still", b.set.Found(all[0], b.now, two), end)
		d = b.set.Gone(all[1], b.now)
		b.wantAnswers("the second hangs up", d, Answer{Client: all[2]})
		if got := b.set.Stats(b.now)[0]; got.Idle != 1 || got.New != 1 {
			t.Errorf("got %d idle, %d new, want 1, 1", got.Idle, got.New)
		}
	}
}

// expect has agents known to ask for two endpoints on behalf of a destination, one after the other.
func (b *bench) expect(destination, first, next string) {
	k, _, _ := b.set.classify([]byte(first), b.now)
	d := b.set.known.addDestination([]byte(destination), k, b.now+memory, b.now)
	d.ask(first, askedFirst)
	d.ask(next, askedNext)
}

// TestPrompt_sessionOfAnother has a client that will ask for an endpoint next, whose session
// another client is about to get: it is not told to go on.
func TestPrompt_sessionOfAnother(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }", never)
	one, two, three := label("192.0.2.1"), label("192.0.2.2"), label("192.0.2.3")
	b.expect("d\n", one, two)
	b.open("192.0.2.9", 2)
	other, c := b.client(), b.client()
	b.wantVerdict("other", b.ask(other, two), Wait)
	b.wantAnswers("full", b.count())
	b.wantAnswers("saved", b.set.Saved(nil, b.now, two), Answer{other, two})
	b.wantVerdict("by destination", b.askDestination(c, "d\n"), Wait)
	d := b.set.Saved(nil, b.now, three)
	b.wantAnswers("not usable", d)
	b.wantClose("not usable", d, three)
}

// TestPrompt_isSpared has a client that is expected to ask for a session: it is not closed to make
// room for another client, but it is where too many are idle.
func TestPrompt_isSpared(t *testing.T) {
	t.Parallel()
	one, two, three := label("192.0.2.1"), label("192.0.2.2"), label("192.0.2.3")
	for _, test := range []struct {
		limits  string
		waiters int
		want    []string
	}{
		{"connections=2", 1, []string{three}},
		{"connections=2, idle=1", 0, []string{two}},
		{"connections=2, idle=0", 0, []string{two, three}},
	} {
		b := newBench(t, "{ a, 192.0.2.0/24, "+test.limits+" }", never)
		b.expect("d\n", one, two)
		b.open("192.0.2.9", 2)
		c := b.client()
		b.wantVerdict("by destination", b.askDestination(c, "d\n"), Wait)
		b.wantAnswers("full", b.count())
		d := b.set.Saved(nil, b.now, two)
		b.wantAnswers("told to go on", d, Answer{Client: c})
		closed := d.Close
		b.pass(1)
		for range test.waiters {
			b.wantVerdict("another one", b.ask(b.client(), label("192.0.2.8")), Wait)
			closed = append(closed, b.last.Close...)
		}
		closed = append(closed, b.set.Saved(nil, b.now, three).Close...)
		if !slices.Equal(closed, test.want) {
			t.Errorf("%s: got %q closed, want %q", test.limits, closed, test.want)
		}
	}
}

// TestShared has receivers of which other servers know: they are claimed while clients wait or
// connect.
func TestShared(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=2 } { b, 198.51.100.1, new=1/1m } "+
		"{ *, connections=3 }", never, func(c *Config) { c.Shared = true })
	want := func(what string, want ...Shared) {
		t.Helper()
		got := b.set.Shared(b.now)
		slices.SortFunc(got, func(a, b Shared) int { return strings.Compare(a.Name, b.Name) })
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	want("nothing")
	c, other := b.client(), b.client()
	b.ask(c, label("192.0.2.1"))
	b.ask(other, label("203.0.113.1"))
	b.wantVerdict("not counted", b.ask(b.client(), label("198.51.100.1")), NotFound)
	want("two wait", Shared{"*203.0.113.1", 3, 0}, Shared{"a", 2, 0})
	b.wantAnswers("not claimed", b.count())
	n := b.set.NewSnapshot(b.now)
	n.Claimed = map[string]bool{"a": true}
	d := b.set.Apply(n, b.now)
	b.wantAnswers("claimed", d, Answer{Client: c})
	want("promised", Shared{"*203.0.113.1", 3, 0}, Shared{"a", 2, 1})
	b.wantVerdict("after the count", b.ask(b.client(), label("192.0.2.1")), Wait)
	b.set.Gone(other, b.now)
	want("both", Shared{"a", 2, 1})
	b.pass(promiseTime)
	want("one waits still", Shared{"a", 2, 0})
}

// TestBegin_connectionOfAnother has the kernel show the connection of one of two clients, which
// is taken for the connection of the other one. When the first one goes on, the other one has yet
// to connect.
func TestBegin_connectionOfAnother(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }", never)
	first, other, third := b.client(), b.client(), b.client()
	b.wantVerdict("other", b.ask(other, label("192.0.2.1")), Wait)
	b.wantAnswers("room for both", b.count(), Answer{Client: other})
	b.pass(time.Millisecond)
	b.wantVerdict("first", b.ask(first, label("192.0.2.1")), NotFound)
	b.open("192.0.2.1", 1)
	b.count()
	b.set.Begin(first, b.now)
	b.wantVerdict("third", b.ask(third, label("192.0.2.1")), Wait)
	for range 3 {
		b.pass(10 * time.Millisecond)
		b.wantAnswers("full", b.count())
	}
}

// TestFindDestination_sessionOfAnother has two sessions. The older one is given to a client that
// has not got it yet, so the other one is closed for a client that cannot use it.
func TestFindDestination_sessionOfAnother(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }", never)
	used, idle := label("192.0.2.1"), label("192.0.2.2")
	b.set.SaveDestination(b.client(), b.now, time.Hour, []byte("d\n"), nil, []byte(used))
	b.open("192.0.2.1", 1)
	b.open("192.0.2.2", 1)
	first, second := b.client(), b.client()
	b.wantVerdict("full", b.ask(first, used), Wait)
	b.wantAnswers("full", b.count())
	b.wantAnswers("saved", b.set.Saved(nil, b.now, used), Answer{Client: first, Give: used})
	b.pass(time.Millisecond)
	b.set.Saved(nil, b.now, idle)
	b.wantVerdict("not its own", b.askDestination(second, "d\n"), Wait)
	b.wantClose("not its own", b.last, idle)
}
