// SPDX-License-Identifier: EPL-2.0

// Survivors of "make mutants PKG=internal/receivers" that are equal in behaviour:
//
//   - In serve, the number of sessions that are idle, and what is tested by it: it only saves
//     looking for one. The same for room or tokens below zero, in the test that saves going on.
//   - A comparison with zero, or with the end, where nothing is to be done with nothing: addIdle,
//     prune, the index of an oldest session. missed without a session. A process 0, which has no
//     hold. The slots of Stats: each one has the number of the next one, or is cleared once more.
//   - Limits of none that are tested again where they are used: begin, schedule.
//   - Receivers without state that are forgotten earlier.
//   - In match.go: what is worth parsing as an address, when parsing fails; a closing bracket in
//     place of the opening one; other characters counted down instead of up.
//   - Labels that are remembered by a line of the receiver that the address has anyway. When a
//     destination is forgotten that names its host: it is known again with the next question.
//   - The number of holds, which saves a lock. Which one of two equals comes first.

package receivers

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const wait = 4 * time.Second

// A bench is a Set with a clock and a kernel, for tests that say what happens.
type bench struct {
	*testing.T
	set     *Set
	now     time.Duration
	kernel  map[uint64]netip.AddrPort
	cookie  uint64
	last    Decisions
	clients int
}

func newBench(t *testing.T, rules string, change ...func(*Config)) *bench {
	t.Helper()
	parsed, err := Parse(rules)
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Rules: parsed, Wait: wait}
	for _, f := range change {
		f(&config)
	}
	return &bench{T: t, set: New(config), now: time.Hour, kernel: map[uint64]netip.AddrPort{}}
}

func (b *bench) client() *Client {
	b.clients++
	return &Client{PID: 1000 + b.clients}
}

// open has the kernel show more connections to an address.
func (b *bench) open(address string, n int) {
	for range n {
		b.cookie++
		b.kernel[b.cookie] = netip.MustParseAddrPort(address + ":25")
	}
}

// shut has the kernel forget a connection to an address.
func (b *bench) shut(address string) {
	for cookie, remote := range b.kernel {
		if remote == netip.MustParseAddrPort(address+":25") {
			delete(b.kernel, cookie)
			return
		}
	}
	b.Fatalf("no connection to %s", address)
}

func (b *bench) address(a string) netip.Addr { return netip.MustParseAddr(a) }

// count applies a snapshot.
func (b *bench) count() Decisions {
	n := b.set.NewSnapshot(b.now)
	for cookie, remote := range b.kernel {
		n.Add(remote, cookie)
	}
	b.now += time.Millisecond
	b.last = b.set.Apply(n, b.now)
	return b.last
}

func (b *bench) pass(d time.Duration) { b.now += d }

// ask has a client ask for an endpoint.
func (b *bench) ask(c *Client, label string) Verdict {
	v, d := b.set.FindEndpoint(c, b.now, []byte(label))
	b.last = d
	return v
}

func (b *bench) askDestination(c *Client, label string) Verdict {
	b.set.Begin(c, b.now)
	v, d := b.set.FindDestination(c, b.now, []byte(label))
	b.last = d
	return v
}

func (b *bench) wantVerdict(what string, got, want Verdict) {
	b.Helper()
	if got != want {
		b.Errorf("%s: got verdict %d, want %d", what, got, want)
	}
}

// wantAnswers compares the answers of decisions.
func (b *bench) wantAnswers(what string, d Decisions, want ...Answer) {
	b.Helper()
	if !slices.Equal(d.Answers, want) {
		b.Errorf("%s: got answers %v, want %v", what, d.Answers, want)
	}
}

func (b *bench) wantClose(what string, d Decisions, want ...string) {
	b.Helper()
	if !slices.Equal(d.Close, want) {
		b.Errorf("%s: got %q to be closed, want %q", what, d.Close, want)
	}
}

func label(address string) string { return "smtp\n" + address + "\n25\n0\n" }

func TestFindEndpoint_waitsForRoom(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }")
	first, second, third := b.client(), b.client(), b.client()
	b.wantVerdict("before a count", b.ask(first, label("192.0.2.1")), Wait)
	if !b.last.Count {
		t.Error("got no wish to count, want one")
	}
	b.wantVerdict("during a count", b.ask(second, label("192.0.2.2")), Wait)
	if b.last.Count {
		t.Error("got a wish for a second count, want one at a time")
	}
	b.ask(third, label("192.0.2.1"))
	b.wantAnswers("after a count", b.count(), Answer{Client: first}, Answer{Client: second})
	b.wantAnswers("not connected yet", b.count())
	b.open("192.0.2.1", 1)
	b.open("192.0.2.2", 1)
	b.wantAnswers("connected", b.count())
	b.shut("192.0.2.1")
	b.wantAnswers("one less", b.count(), Answer{Client: third})
	if got := b.set.Stats(b.now)[0]; got.New != 3 || got.Waiting != 0 || got.Open != 1 {
		t.Errorf("got %+v, want 3 new, none waiting, 1 open", got)
	}
}

func TestFindEndpoint_otherEndpoints(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 } { exempt, 198.51.100.1 } { *, idle=1 }")
	for _, l := range []string{label("203.0.113.1"), label("198.51.100.1"), "lmtp\n/private/lmtp\n"} {
		c := b.client()
		b.wantVerdict(l, b.ask(c, l), NotFound)
		if !reflect.DeepEqual(b.last, Decisions{}) {
			t.Errorf("%q: got %+v, want nothing to do", l, b.last)
		}
	}
}

func TestFindEndpoint_deliveryWaitsOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	b.open("192.0.2.9", 1)
	c := b.client()
	b.wantVerdict("first question", b.ask(c, label("192.0.2.1")), Wait)
	b.count()
	b.pass(wait)
	b.wantAnswers("time over", b.set.Tick(b.now), Answer{Client: c})
	b.wantVerdict("next question", b.ask(c, label("192.0.2.2")), NotFound)
	b.set.Begin(c, b.now)
	b.wantVerdict("next delivery", b.ask(c, label("192.0.2.1")), Wait)
	if got := b.set.Stats(b.now)[0].Totals; got.Overflows != 1 || got.New != 1 {
		t.Errorf("got %+v, want 1 overflow", got)
	}
}

func TestSaved_goesToTheFirstThatCanUseIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	b.open("192.0.2.1", 1)
	saver, first, second := b.client(), b.client(), b.client()
	b.ask(first, label("192.0.2.2"))
	b.count()
	b.ask(second, label("192.0.2.1"))
	d := b.set.Saved(saver, b.now, label("192.0.2.1"))
	b.wantAnswers("early", d, Answer{second, label("192.0.2.1")})
	b.set.Served(second, b.now, true)

	// The first one has waited for more than half of its time.
	b.pass(wait/2 + time.Second)
	b.ask(second, label("192.0.2.1")) // of the same delivery: no wait
	b.set.Begin(second, b.now)
	b.wantVerdict("second again", b.ask(second, label("192.0.2.1")), Wait)
	b.count()
	d = b.set.Saved(saver, b.now, label("192.0.2.1"))
	b.wantAnswers("late", d)
	b.wantClose("late", d, label("192.0.2.1"))
	b.wantAnswers("closed", b.set.Dropped(b.now, label("192.0.2.1")))
	b.shut("192.0.2.1")
	b.wantAnswers("room", b.count(), Answer{Client: first})
}

func TestServed_failed(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	b.open("192.0.2.1", 1)
	saver, first, second := b.client(), b.client(), b.client()
	b.ask(first, label("192.0.2.1"))
	b.count()
	b.ask(second, label("192.0.2.1"))
	d := b.set.Saved(saver, b.now, label("192.0.2.1"))
	b.wantAnswers("saved", d, Answer{first, label("192.0.2.1")})
	b.set.Found(b.client(), b.now, label("192.0.2.1")) // another client was faster
	v, d := b.set.Served(first, b.now, false)
	b.wantVerdict("not there", v, Wait)
	b.wantAnswers("not there", d)
	if line := b.set.receivers[key{rule: 0}].waiters; !slices.Equal(line, []*Client{first, second}) {
		t.Errorf("got another line, want the first one in its place")
	}
	// A session that the cache does not have is given once only.
	d = b.set.Saved(saver, b.now, label("192.0.2.1"))
	b.wantAnswers("saved again", d, Answer{first, label("192.0.2.1")})
	v, d = b.set.Served(first, b.now, false)
	b.wantVerdict("lost", v, Wait)
	b.wantAnswers("lost", d)
}

func TestFindEndpoint_raceWithASave(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	b.set.Saved(b.client(), b.now, label("192.0.2.1"))
	c := b.client()
	b.wantVerdict("there is one now", b.ask(c, label("192.0.2.1")), Take)
	v, _ := b.set.Served(c, b.now, true)
	b.wantVerdict("served", v, Take)
	if got := b.set.Stats(b.now)[0].Idle; got != 0 {
		t.Errorf("got %d idle sessions, want 0", got)
	}
}

// TestPrompt has agents that ask for two addresses of a receiver. Once that is known, who
// waits for the one goes on to the other.
func TestPrompt(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	destination := "smtp\nexample.com\n"
	b.set.SaveDestination(b.client(), b.now, 0, []byte(destination), nil, []byte(label("192.0.2.1")))
	b.open("192.0.2.2", 1)
	learn := b.client()
	b.askDestination(learn, destination)
	b.pass(wait)
	b.set.Tick(b.now)
	for _, l := range []string{label("192.0.2.1"), label("192.0.2.2")} {
		b.wantVerdict("teaching", b.ask(learn, l), NotFound)
	}
	b.set.Gone(learn, b.now)

	waiter := func() *Client {
		c := b.client()
		b.set.Begin(c, b.now)
		to, _ := b.set.known.destination([]byte(destination), b.now)
		c.destination = to // it has asked by destination, and did not wait
		b.wantVerdict("waiter", b.ask(c, label("192.0.2.1")), Wait)
		b.count()
		return c
	}
	c := waiter()
	d := b.set.Saved(b.client(), b.now, label("192.0.2.2"))
	b.wantAnswers("prompt", d, Answer{Client: c})
	b.wantClose("prompt", d)
	d = b.set.Found(c, b.now, label("192.0.2.2"))
	b.wantAnswers("found", d)

	// The session is gone meanwhile: it waits on, in its place.
	c = waiter()
	b.pass(time.Second)
	late := b.client()
	b.ask(late, label("192.0.2.1"))
	b.set.Saved(b.client(), b.now, label("192.0.2.2"))
	b.set.Found(b.client(), b.now, label("192.0.2.2"))
	b.wantVerdict("stolen", b.ask(c, label("192.0.2.2")), Wait)
	if got := b.set.receivers[key{rule: 0}].waiters[0]; got != c {
		t.Error("got another one first, want the one that has waited longest")
	}
	b.set.Gone(c, b.now)
	b.set.Gone(late, b.now)

	// It connects instead: that is counted, and not expected again.
	c = waiter()
	d = b.set.Saved(b.client(), b.now, label("192.0.2.2"))
	b.wantAnswers("prompt", d, Answer{Client: c})
	if want := b.now + promptTime; d.Wake != want {
		t.Errorf("got wake %v, want %v", d.Wake, want)
	}
	r := b.set.receivers[key{rule: 0}]
	before := len(r.promises)
	b.pass(promptTime - 1)
	if b.set.Tick(b.now); len(r.promises) != before {
		t.Error("got a promise before the time to ask is over")
	}
	b.pass(1)
	b.set.Tick(b.now)
	if !slices.ContainsFunc(r.promises, func(p *promise) bool { return p.client == c }) {
		t.Errorf("got no promise, want one, as it is likely to connect")
	}
	if got := c.destination.next[label("192.0.2.2")]; got != askedUnknown {
		t.Errorf("got question %d, want %d", got, askedUnknown)
	}
}

func TestSaved_closesWhatIsOfNoUse(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }")
	b.open("192.0.2.1", 2)
	c := b.client()
	b.ask(c, label("192.0.2.2"))
	b.count()
	d := b.set.Saved(b.client(), b.now, label("192.0.2.1"))
	b.wantClose("one waits", d, label("192.0.2.1"))
	d = b.set.Saved(b.client(), b.now, label("192.0.2.1"))
	b.wantClose("one has been closed for it", d)
	d = b.set.NotClosed(b.now, label("192.0.2.1"))
	b.wantClose("not there", d)
	b.pass(closeTime)
	b.count()
	if r := b.set.receivers[key{rule: 0}]; len(r.waiters) != 1 {
		t.Errorf("got %d waiters, want 1", len(r.waiters))
	}
}

func TestSave_limits(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.1, messages=3, time=5s, idle=2 } "+
		"{ b, 192.0.2.2, idle=0 } { *, time=7s }")
	for _, test := range []struct {
		address, reused string
		keep            bool
		ttl             time.Duration
	}{
		{"192.0.2.1", "1", true, 5 * time.Second},
		{"192.0.2.1", "2", false, 0},
		{"192.0.2.1", "9", false, 0},
		{"192.0.2.1", "x", true, 5 * time.Second},
		{"192.0.2.2", "0", false, 0},
		{"192.0.2.3", "99", true, 7 * time.Second},
	} {
		text := "tls_level=0\nreuse_count=" + test.reused + "\nexpire_time=1\n\n"
		keep, ttl, _ := b.set.Save(b.client(), b.now, []byte(label(test.address)), []byte(text))
		if keep != test.keep || ttl != test.ttl {
			t.Errorf("%s, reused %s times: got %t, %v, want %t, %v",
				test.address, test.reused, keep, ttl, test.keep, test.ttl)
		}
	}
	other := "relay\n192.0.2.1\n25\n2\n"
	b.set.Saved(b.client(), b.now, label("192.0.2.1"))
	b.pass(time.Second)
	b.wantClose("2 idle", b.set.Saved(b.client(), b.now, other))
	b.wantClose("3 idle", b.set.Saved(b.client(), b.now, other), label("192.0.2.1"))
	b.set.Dropped(b.now, label("192.0.2.1"))
	if got := b.set.Stats(b.now)[0].Idle; got != 2 {
		t.Errorf("got %d idle sessions, want 2", got)
	}
}

func TestNew_perTime(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, new=2/10s }", func(c *Config) { c.Wait = time.Minute })
	b.count() // later ones tell what is new since
	b.wantVerdict("first", b.ask(b.client(), label("192.0.2.1")), NotFound)
	b.pass(3 * time.Second)
	b.wantVerdict("second", b.ask(b.client(), label("192.0.2.1")), NotFound)
	third, fourth := b.client(), b.client()
	b.wantVerdict("third", b.ask(third, label("192.0.2.1")), Wait)
	if !b.last.Count {
		t.Error("nothing is counted, although it is unknown whether the second has connected")
	}
	b.wantVerdict("fourth", b.ask(fourth, label("192.0.2.1")), Wait)
	b.open("192.0.2.1", 1)
	d := b.count()
	b.wantAnswers("full", d)
	// The first one may have connected a second later, and is counted since then.
	left := promiseTime + b.set.receivers[key{}].newTime() - 3*time.Second - time.Millisecond
	if want := b.now + left; d.Wake != want || d.Count {
		t.Errorf("got wake %v, count %t, want %v without a count", d.Wake, d.Count, want)
	}
	b.pass(left - 1)
	b.wantAnswers("too early", b.set.Tick(b.now))
	b.pass(1)
	b.wantAnswers("ten seconds after the first", b.set.Tick(b.now), Answer{Client: third})
	// The third finds a session after all: its turn goes to the fourth.
	b.set.Saved(b.client(), b.now, label("192.0.2.9"))
	d = b.set.Found(third, b.now, label("192.0.2.9"))
	b.wantAnswers("turn not used", d, Answer{Client: fourth})
	if got := b.set.Stats(b.now)[0].NewPerMinute; got != 4 {
		t.Errorf("got %d new connections per minute, want 4", got)
	}
	b.pass(70 * time.Second)
	if got := b.set.Stats(b.now)[0].NewPerMinute; got != 0 {
		t.Errorf("got %d new connections per minute, want 0", got)
	}
}

// TestNew_ofOtherPrograms has connections begin that no client was told to open. One that may
// have begun long ago does not count.
func TestNew_ofOtherPrograms(t *testing.T) {
	t.Parallel()
	const longAgo, justNow = time.Minute, 10 * time.Millisecond
	for _, test := range []struct {
		since time.Duration
		want  Verdict
	}{{longAgo, NotFound}, {justNow, Wait}} {
		b := newBench(t, "{ a, 192.0.2.0/24, new=3/10s }")
		b.count()
		b.ask(b.client(), label("192.0.2.1"))
		b.open("192.0.2.1", 1)
		b.count()
		b.pass(test.since)
		b.open("192.0.2.1", 2)
		b.count()
		b.wantVerdict(test.since.String(), b.ask(b.client(), label("192.0.2.1")), test.want)
	}
}

// TestNew_wakesInTime has a connection that has begun, and another one that was promised, so
// that a client waits for the time of the first.
func TestNew_wakesInTime(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, new=2/10s }", func(c *Config) { c.Wait = time.Minute })
	b.count()
	b.ask(b.client(), label("192.0.2.1"))
	b.open("192.0.2.1", 1)
	b.count()
	begun := b.now
	b.pass(10 * time.Second)
	b.ask(b.client(), label("192.0.2.1"))
	third := b.client()
	b.wantVerdict("third", b.ask(third, label("192.0.2.1")), Wait)
	if want := begun + b.set.receivers[key{}].newTime(); b.last.Wake != want {
		t.Errorf("got wake %v, want %v", b.last.Wake, want)
	}
}

// TestCount_morePorts has a count with more ports than the one before: its connections may be
// old, and keep no promise.
func TestCount_morePorts(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=4 }")
	first, second := b.client(), b.client()
	b.count()
	b.ask(first, label("192.0.2.1"))
	b.open("192.0.2.1", 2)
	b.ask(second, "smtp\n192.0.2.2\n587\n0\n")
	b.wantAnswers("other port", b.count(), Answer{Client: second})
	if r := b.set.receivers[key{}]; len(r.promises) != 2 {
		t.Errorf("got %d promises left, want 2", len(r.promises))
	}
}

func TestWaiters_bound(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }", func(c *Config) { c.Waiters = 1 })
	b.open("192.0.2.1", 1)
	b.wantVerdict("first", b.ask(b.client(), label("192.0.2.1")), Wait)
	b.wantVerdict("second", b.ask(b.client(), label("192.0.2.1")), NotFound)
	if got := b.set.Stats(b.now)[0].Overflows; got != 1 {
		t.Errorf("got %d overflows, want 1", got)
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	first, second, third := b.client(), b.client(), b.client()
	for _, c := range []*Client{first, second, third} {
		b.ask(c, label("192.0.2.1"))
	}
	b.set.Gone(second, b.now)
	b.wantAnswers("room for one", b.count(), Answer{Client: first})
	// It hangs up, and no connection of it shows: the next one has the room.
	b.set.Gone(first, b.now)
	b.pass(time.Millisecond)
	b.wantAnswers("the next one", b.count(), Answer{Client: third})
	// A session that was given to a client that has hung up goes to another one.
	b.set.Begin(third, b.now)
	fourth := b.client()
	b.open("192.0.2.1", 1)
	b.count()
	b.ask(third, label("192.0.2.1"))
	b.ask(fourth, label("192.0.2.1"))
	b.wantAnswers("given", b.set.Saved(b.client(), b.now, label("192.0.2.1")),
		Answer{third, label("192.0.2.1")})
	b.wantAnswers("given to the next", b.set.Gone(third, b.now), Answer{fourth, label("192.0.2.1")})
}

func TestPromise_refused(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	first, second := b.client(), b.client()
	b.ask(first, label("192.0.2.1"))
	b.ask(second, label("192.0.2.1"))
	b.count()
	b.pass(promiseTime)
	b.wantAnswers("it never connected", b.count(), Answer{Client: second})
	if got := b.set.Stats(b.now)[0].Refused; got != 1 {
		t.Errorf("got %d refused promises, want 1", got)
	}
}

func TestFindDestination(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, [192.0.2.7], mx.example, connections=1 }")
	b.open("192.0.2.1", 1)
	unknown := "smtp\nexample.com\nuser\n"
	b.wantVerdict("unknown destination", b.askDestination(b.client(), unknown), NotFound)
	b.wantVerdict("address", b.askDestination(b.client(), "smtp\n[192.0.2.7]:587\n"), Wait)
	b.wantVerdict("odd lines", b.askDestination(b.client(), "smtp\n[x\n\n[192.0.2.7]:587\n"), Wait)
	b.wantVerdict("host", b.askDestination(b.client(), "smtp\n[MX.example]:587\n"), Wait)
	b.wantVerdict("other host", b.askDestination(b.client(), "smtp\n[mx2.example]:587\n"), NotFound)

	saver := b.client()
	l := []byte(label("192.0.2.1"))
	b.set.SaveDestination(saver, b.now, 2*time.Second, []byte(unknown), nil, l)
	c := b.client()
	b.wantVerdict("bound to the receiver", b.askDestination(c, unknown), Wait)
	b.count()
	d := b.set.Saved(saver, b.now, label("192.0.2.1"))
	b.wantAnswers("saved", d, Answer{c, label("192.0.2.1")})
	b.set.Served(c, b.now, true)

	// The binding has ended: a session would not be found by destination.
	b.pass(3 * time.Second)
	b.wantVerdict("still known", b.askDestination(c, unknown), Wait)
	b.count()
	b.wantAnswers("saved later", b.set.Saved(saver, b.now, label("192.0.2.1")))
	b.set.Gone(c, b.now)
	b.pass(memory)
	b.wantVerdict("forgotten", b.askDestination(c, unknown), NotFound)
}

func TestNames(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, .mx.example, connections=1 }")
	text := "destination=example.com\nhost_name=b.MX.example\nhost_addr=192.0.2.1\nhost_port=25\n\n"
	name := func() string {
		name, _ := b.set.Receiver(b.now, []byte(label("192.0.2.1")))
		return name
	}
	if got := name(); got != "" {
		t.Errorf("before a save: got %q, want none", got)
	}
	l := []byte(label("192.0.2.1"))
	b.set.SaveDestination(b.client(), b.now, time.Second, []byte("d"), []byte(text), l)
	if got := name(); got != "a" {
		t.Errorf("after a save: got %q, want a", got)
	}
	b.open("192.0.2.1", 1)
	c := b.client()
	b.wantVerdict("full", b.ask(c, label("192.0.2.1")), Wait)
	b.wantAnswers("full", b.count())
	b.set.Gone(c, b.now)

	// It goes over to another process, whose clock is another one.
	other := newBench(t, "{ new, .mx.example, connections=1 }")
	other.now = 5 * time.Hour
	other.set.Restore(other.now, b.set.Export(b.now))
	if got, _ := other.set.Receiver(other.now, []byte(label("192.0.2.1"))); got != "new" {
		t.Errorf("in another process: got %q, want new", got)
	}
	if v := other.askDestination(other.client(), "d"); v != Wait {
		t.Errorf("in another process: got verdict %d for the destination, want %d", v, Wait)
	}
	b.pass(memory)
	if got := name(); got != "" {
		t.Errorf("after an hour: got %q, want none", got)
	}
}

func TestNames_bound(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, .mx.example, connections=1 }")
	for i := range capacity + 100 {
		text := fmt.Sprintf("host_name=x.mx.example\nhost_addr=10.0.%d.%d\n", i/256, i%256)
		d := fmt.Sprintf("smtp\nd%d\n", i)
		l := fmt.Sprintf("smtp\n10.0.%d.%d\n25\n", i/256, i%256)
		b.set.SaveDestination(b.client(), b.now, time.Second, []byte(d), []byte(text), []byte(l))
	}
	k := &b.set.known
	if len(k.names) > capacity || len(k.destinations) > capacity {
		t.Errorf("got %d names, %d destinations, want at most %d",
			len(k.names), len(k.destinations), capacity)
	}
}

// TestLines has a receiver that is a service: the kernel shows its addresses, once labels
// have had them. A socket in the file system is estimated.
func TestLines(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ slow, relay, /private/lmtp, connections=1 } { *, connections=1 }")
	b.open("192.0.2.1", 1)
	relay := "relay\n192.0.2.1\n25\n0\n"
	first := b.client()
	b.wantVerdict("service", b.ask(first, relay), Wait)
	b.wantAnswers("full", b.count())
	b.set.Gone(first, b.now)
	b.shut("192.0.2.1")

	local := "lmtp\n/private/lmtp\n"
	b.ask(first, local)
	b.wantAnswers("socket", b.count(), Answer{Client: first})
	second := b.client()
	b.wantVerdict("socket in use", b.ask(second, local), Wait)
	b.count()
	d := b.set.Saved(first, b.now, local)
	b.wantAnswers("saved", d, Answer{second, local})
	b.set.Served(second, b.now, true)
	third := b.client()
	b.ask(third, relay)
	b.wantAnswers("one is in use by the second", b.count())
	b.wantAnswers("the second ends", b.set.ProcessEnded(b.now, second.PID), Answer{Client: third})
}

func TestAny_eachAddressByItself(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ *, connections=1 }")
	b.open("192.0.2.1", 1)
	first, second := b.client(), b.client()
	b.ask(first, label("192.0.2.1"))
	b.ask(second, label("2001:db8::1"))
	b.wantAnswers("one has room", b.count(), Answer{Client: second})
	for i := range 2*capacity + 10 {
		b.ask(b.client(), label(fmt.Sprintf("10.1.%d.%d", i/256, i%256)))
		if i%1000 == 0 {
			b.count()
			b.pass(2 * promiseTime)
			b.set.Tick(b.now)
			b.count()
			b.pass(2 * promiseTime)
		}
	}
	if got := len(b.set.receivers); got > 2*capacity {
		t.Errorf("got %d receivers, want at most %d", got, 2*capacity)
	}
}

func TestEstimate(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	first, second, third := b.client(), b.client(), b.client()
	b.ask(first, label("192.0.2.1"))
	b.ask(second, label("192.0.2.1"))
	d := b.set.Estimate(b.now)
	b.wantAnswers("no count", d, Answer{Client: first})
	if !slices.Equal(d.Watch, []int{first.PID}) {
		t.Errorf("got processes %d to be watched, want %d", d.Watch, first.PID)
	}
	if d.Count {
		t.Error("got a wish to count, want none")
	}
	b.pass(2 * time.Second)
	b.wantAnswers("it is still connected", b.set.Tick(b.now))
	b.ask(third, label("192.0.2.1"))
	b.wantAnswers("its process ends", b.set.ProcessEnded(b.now, first.PID), Answer{Client: second})
	b.wantAnswers("it begins another delivery", b.set.Begin(second, b.now), Answer{Client: third})
	// It hangs up and connects to the cache again: it is the same process.
	b.set.Gone(third, b.now)
	again := &Client{PID: third.PID}
	b.set.Begin(first, b.now)
	b.wantVerdict("other", b.ask(first, label("192.0.2.1")), Wait)
	d = b.set.Saved(again, b.now, label("192.0.2.1"))
	b.wantAnswers("saved", d, Answer{first, label("192.0.2.1")})
}

// TestEstimate_hangUpDuringADelivery has a client whose process goes on: its next delivery,
// by another connection to the cache, tells that the last one has ended.
func TestEstimate_hangUpDuringADelivery(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }", func(c *Config) { c.Estimate = true })
	first, second := b.client(), b.client()
	b.wantVerdict("first", b.ask(first, label("192.0.2.1")), NotFound)
	b.set.Gone(first, b.now)
	b.wantVerdict("second", b.ask(second, label("192.0.2.1")), Wait)
	again := &Client{PID: first.PID}
	b.wantAnswers("next delivery", b.set.Begin(again, b.now), Answer{Client: second})
}

func TestCountFailed(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, connections=1 }")
	c := b.client()
	b.ask(c, label("192.0.2.1"))
	for range 3 {
		d := b.set.CountFailed(b.now)
		if d.Count || d.Wake != b.now+slowCountInterval {
			t.Errorf("got %+v, want another count in %v", d, slowCountInterval)
		}
		b.pass(slowCountInterval)
		if d := b.set.Tick(b.now); !d.Count {
			t.Error("got no wish to count, want one")
		}
	}
	b.wantAnswers("success", b.count(), Answer{Client: c})
}

// TestRestoreClient has the queue go over to a new process, with the places and times of all, and
// with a promise.
func TestRestoreClient(t *testing.T) {
	t.Parallel()
	old := newBench(t, "{ a, 192.0.2.0/24, connections=2 }")
	old.open("192.0.2.1", 1)
	promised, first, second, idle := old.client(), old.client(), old.client(), old.client()
	old.ask(promised, label("192.0.2.1"))
	old.ask(first, label("192.0.2.1"))
	old.wantAnswers("count", old.count(), Answer{Client: promised})
	old.pass(time.Second / 2)
	old.ask(second, label("192.0.2.2"))

	b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }")
	b.open("192.0.2.1", 1)
	b.now = 9 * time.Hour
	b.set.Restore(b.now, old.set.Export(old.now))
	if _, ok := old.set.ExportClient(idle, old.now); ok {
		t.Error("got a state of a client that has none")
	}
	resume := func(c *Client, want Verdict) *Client {
		state, ok := old.set.ExportClient(c, old.now)
		if !ok {
			t.Fatal("got no state")
		}
		resumed := &Client{PID: c.PID}
		v, _ := b.set.RestoreClient(resumed, b.now, state)
		b.wantVerdict("resumed", v, want)
		return resumed
	}
	newSecond := resume(second, Wait)
	newFirst := resume(first, Wait)
	resume(promised, NotFound)
	if got := newFirst.until - b.now; got != first.until-old.now {
		t.Errorf("got %v left, want %v", got, first.until-old.now)
	}
	b.wantAnswers("full by the promise", b.count())
	b.pass(promiseTime / 2)
	b.wantAnswers("in the old order", b.count(), Answer{Client: newFirst})
	b.shut("192.0.2.1")
	b.wantAnswers("then the second", b.count(), Answer{Client: newSecond})

	// With another configuration, there is nothing to wait for.
	other := newBench(t, "{ b, 198.51.100.1, connections=2 }")
	state, _ := old.set.ExportClient(second, old.now)
	v, _ := other.set.RestoreClient(&Client{}, other.now, state)
	other.wantVerdict("no such receiver", v, NotFound)
}

func TestExport_begun(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, new=1/1m }")
	b.ask(b.client(), label("192.0.2.1"))
	b.pass(promiseTime)
	other := newBench(t, "{ a, 192.0.2.0/24, new=1/1m }")
	other.set.Restore(other.now, b.set.Export(b.now))
	other.wantVerdict("second", other.ask(other.client(), label("192.0.2.1")), Wait)
	if got := other.set.Stats(other.now)[0].New; got != 1 {
		t.Errorf("got %d new connections counted, want 1", got)
	}
}

// TestExport_promiseOfAClientThatIsGone: its connection may have begun.
func TestExport_promiseOfAClientThatIsGone(t *testing.T) {
	t.Parallel()
	b := newBench(t, "{ a, 192.0.2.0/24, new=1/1m }")
	c := b.client()
	b.wantVerdict("first", b.ask(c, label("192.0.2.1")), NotFound)
	b.set.Gone(c, b.now)
	other := newBench(t, "{ a, 192.0.2.0/24, new=1/1m }")
	other.set.Restore(other.now, b.set.Export(b.now))
	other.wantVerdict("in the next process", other.ask(other.client(), label("192.0.2.1")), Wait)
}

// TestExport_holds has a process with a connection that the kernel does not show.
func TestExport_holds(t *testing.T) {
	t.Parallel()
	const rules = "{ slow, /private/lmtp, connections=1 }"
	const local = "lmtp\n/private/lmtp\n"
	b := newBench(t, rules)
	c := b.client()
	b.ask(c, local)
	b.wantAnswers("first", b.count(), Answer{Client: c})
	other := newBench(t, rules)
	d := other.set.Restore(other.now, b.set.Export(b.now))
	if !slices.Equal(d.Watch, []int{c.PID}) {
		t.Errorf("got processes %v to be watched, want %d", d.Watch, c.PID)
	}
	second := other.client()
	other.ask(second, local)
	other.wantAnswers("in use", other.count())
	other.wantAnswers("the process ends", other.set.ProcessEnded(other.now, c.PID),
		Answer{Client: second})
}

// TestStopPromising has the state of another process arrive: until all of it is there, no client
// is told to connect.
func TestStopPromising(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]string{"new": "new=2/1m", "connections": "connections=2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "{ a, 192.0.2.0/24, "+limit+" }")
			b.set.StopPromising()
			first, second, third := b.client(), b.client(), b.client()
			b.wantVerdict("first", b.ask(first, label("192.0.2.1")), Wait)
			b.wantVerdict("second", b.ask(second, label("192.0.2.1")), Wait)
			b.wantAnswers("on hold", b.count())
			promise := ClientState{
				Settled: true, Promised: label("192.0.2.1"), Asked: []string{label("192.0.2.1")},
			}
			verdict, d := b.set.RestoreClient(third, b.now, promise)
			b.wantVerdict("third", verdict, NotFound)
			b.wantAnswers("third", d)
			b.wantAnswers("released", b.set.StartPromising(b.now), Answer{Client: first})
		})
	}
}

// TestFound_beforeTheFirstCount has a client find a session before it is known whether the kernel
// counts: while the state of another process arrives, or after it. It is in use, and counts once
// either way.
func TestFound_beforeTheFirstCount(t *testing.T) {
	t.Parallel()
	for name, count := range map[string]func(b *bench) Decisions{
		"estimate": func(b *bench) Decisions { return b.set.Estimate(b.now) },
		"kernel":   func(b *bench) Decisions { b.open("192.0.2.1", 1); return b.count() },
	} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after the state: %t", name, after), func(t *testing.T) {
				t.Parallel()
				b := newBench(t, "{ a, 192.0.2.0/24, connections=2 }")
				b.set.StopPromising()
				b.set.Saved(nil, b.now, label("192.0.2.1"))
				if after {
					b.set.StartPromising(b.now)
				}
				b.set.Found(b.client(), b.now, label("192.0.2.1"))
				first, second := b.client(), b.client()
				b.ask(first, label("192.0.2.1"))
				b.ask(second, label("192.0.2.1"))
				b.set.StartPromising(b.now)
				b.wantAnswers("one is in use", count(b), Answer{Client: first})
			})
		}
	}
}

func TestSet_nil(t *testing.T) {
	t.Parallel()
	set := New(Config{})
	if set != nil {
		t.Fatalf("got %v, want nil without rules", set)
	}
	c := &Client{}
	v, d := set.FindEndpoint(c, 0, nil)
	keep, _, d2 := set.Save(c, 0, nil, nil)
	set.SaveDestination(c, 0, 0, nil, nil, nil)
	set.Restore(0, set.Export(0))
	all := []Decisions{
		d, d2, set.Begin(c, 0), set.Found(c, 0, ""), set.Saved(c, 0, ""), set.Dropped(0, ""),
		set.NotClosed(0, ""), set.Gone(c, 0), set.ProcessEnded(0, 1), set.Tick(0), set.CountFailed(0),
		set.Estimate(0),
	}
	for _, d := range all {
		if !reflect.DeepEqual(d, Decisions{}) {
			t.Errorf("got %+v, want nothing", d)
		}
	}
	if v != NotFound || !keep || set.Stats(0) != nil || set.Ports() != nil {
		t.Errorf("got %d, %t, want %d, true, and no state", v, keep, NotFound)
	}
}

// TestSet_concurrent is for the race detector.
func TestSet_concurrent(t *testing.T) {
	t.Parallel()
	rules, err := Parse("{ a, 192.0.2.0/24, .mx.example, connections=2, new=50/1s } { *, idle=1 }")
	if err != nil {
		t.Fatal(err)
	}
	set := New(Config{Rules: rules, Wait: time.Second})
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			c := &Client{PID: g + 1}
			for i := range 500 {
				now := time.Duration(i) * time.Millisecond
				l := []byte(label(fmt.Sprintf("192.0.2.%d", i%3)))
				set.Begin(c, now)
				set.FindDestination(c, now, []byte("smtp\nexample.com\n"))
				set.FindEndpoint(c, now, l)
				set.Gone(c, now)
				set.SaveDestination(c, now, time.Second, []byte("smtp\nexample.com\n"),
					[]byte("host_name=x.mx.example\nhost_addr=198.51.100.1\n"), l)
				set.Save(c, now, l, nil)
				set.Saved(c, now, string(l))
				set.Dropped(now, string(l))
				set.Tick(now)
				set.Stats(now)
				n := set.NewSnapshot(now)
				n.Add(netip.MustParseAddrPort("192.0.2.1:25"), uint64(i))
				set.Apply(n, now)
				set.Export(now)
			}
		})
	}
	group.Wait()
}

func TestEndpointAddress(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ label, want string }{
		{"smtp\n127.0.0.1\n2525\n0\n", "127.0.0.1:2525"},
		{"lmtp\n127.0.0.1\n2525\n0\n0\n0\n", "127.0.0.1:2525"},
		{"smtp\n[127.0.0.1]:2526\n2\n0\n", "127.0.0.1:2526"},
		{"smtp\n[2001:db8::1]:25\n", "[2001:db8::1]:25"},
		{"smtp\n[IPv6:2001:db8::1]:25\n", "[2001:db8::1]:25"},
		{"smtp\n2001:db8::1\n25\n0\n", "[2001:db8::1]:25"},
		{"smtp\n::ffff:192.0.2.1\n25\n0\n", "192.0.2.1:25"},
		{"smtp\nfe80::1%eth0\n25\n0\n", "[fe80::1]:25"},
		{"smtp\nuser@example.com\n192.0.2.1\n25\n0\n", "192.0.2.1:25"},
		{"smtp\n192.0.2.1\n", "192.0.2.1:0"},
		{"smtp\n192.0.2.1\nx\n", "192.0.2.1:0"},
		{"smtp\n192.0.2.1\n99999\n", "192.0.2.1:0"},
		{"smtp\n192.0.2.1\n65536\n", "192.0.2.1:0"},
		{"smtp\n192.0.2.1\n65535\n", "192.0.2.1:65535"},
		{"smtp\n192.0.2.1\n09090\n", "192.0.2.1:9090"},
		{"smtp\n192.0.2.1\n000025\n", "192.0.2.1:0"},
		{"smtp\n192.0.2.1", "192.0.2.1:0"},
		{"smtp\n::", "[::]:0"},
		{"smtp\nfe80::1%" + strings.Repeat("z", 56) + "\n25\n", "[fe80::1]:25"},
		{"smtp\nfe80::1%" + strings.Repeat("z", 57) + "\n25\n", ""},
		{"smtp\n192.0.2.1\n2:\n", "192.0.2.1:0"},
		{"smtp\n192.0.2.1\n2/\n", "192.0.2.1:0"},
		{"smtp\n::\n25\n", "[::]:25"},
		{"smtp\na:b\n1.2.3.4x\n25\n", ""},
		{"smtp\n[192.0.2.1\n25\n", ""},
		{"smtp\nexample.com\n", ""},
		{"lmtp\n/private/lmtp\n0\n", ""},
		{"smtp\n1.2.3\n25\n", ""},
		{"smtp\n1.2.3.400\n25\n", ""},
		{"", ""},
		{"\n\n", ""},
	} {
		got := ""
		if a, ok := endpointAddress([]byte(test.label)); ok {
			got = a.String()
		}
		if got != test.want {
			t.Errorf("%q: got %q, want %q", test.label, got, test.want)
		}
	}
}

func TestReceiver_firstMatch(t *testing.T) {
	t.Parallel()
	rules, err := Parse(`{ first, 192.0.2.128/25 } { second, 192.0.2.0/24, relay, 2001:db8::/32 }
		{ third, 192.0.2.200, 198.51.100.0/24, smtp.example } { all, 0.0.0.0/0, 255.255.255.255 } { * }`)
	if err != nil {
		t.Fatal(err)
	}
	set := New(Config{Rules: rules})
	for label, want := range map[string]string{
		label("192.0.2.127"):                  "second",
		label("192.0.2.128"):                  "first",
		label("192.0.2.200"):                  "first",
		label("192.0.3.0"):                    "all",
		label("255.255.255.255"):              "all",
		label("0.0.0.0"):                      "all",
		label("2001:db7:ffff::1"):             "*",
		label("2001:db8::1"):                  "second",
		label("2001:db9::"):                   "*",
		label("::ffff:198.51.100.7"):          "third",
		"relay\n198.51.100.7\n25\n":           "second",
		"relay\n192.0.2.200\n25\n":            "first",
		"lmtp\n/x\n":                          "",
		strings.Repeat("x\n", 50) + "relay\n": "second",
	} {
		if got, _ := set.Receiver(0, []byte(label)); got != want {
			t.Errorf("%q: got %q, want %q", label, got, want)
		}
	}
}

// TestMatcher_model compares with a search through all networks.
func TestMatcher_model(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		address := rapid.Custom(func(r *rapid.T) netip.Addr {
			low := rapid.SampledFrom([]byte{0, 1, 2, 127, 128, 254, 255})
			if rapid.Bool().Draw(r, "v4") {
				return netip.AddrFrom4([4]byte{low.Draw(r, "a"), 0, low.Draw(r, "b"), low.Draw(r, "c")})
			}
			return netip.AddrFrom16([16]byte{0: low.Draw(r, "a"), 2: 7, 15: low.Draw(r, "b")})
		})
		rules := make(Rules, rapid.IntRange(1, 4).Draw(r, "rules"))
		for i := range rules {
			for range rapid.IntRange(0, 4).Draw(r, "networks") {
				a := address.Draw(r, "address")
				n, err := a.Prefix(rapid.IntRange(0, a.BitLen()).Draw(r, "bits"))
				if err != nil {
					r.Fatal(err)
				}
				rules[i].Networks = append(rules[i].Networks, n)
			}
		}
		m := newMatcher(rules)
		for range 20 {
			a, want := address.Draw(r, "address"), none
			for i := len(rules) - 1; i >= 0; i-- {
				for _, n := range rules[i].Networks {
					if n.Contains(a) {
						want = i
					}
				}
			}
			if got := m.address(a); got != want {
				r.Fatalf("%v in %v: got rule %d, want %d", a, rules, got, want)
			}
		}
	})
}
