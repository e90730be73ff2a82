// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world is what a cache under test sees of the outside: a clock that stands
// still, an alarm, and descriptors that are numbers.
type world struct {
	*Cache
	now     time.Duration
	alarm   time.Duration // 0 if not set
	closed  []int
	ends    map[int]End // of those that were closed
	dropped []Ended     // bindings
	dead    map[int]bool
	fd      int
}

func newWorld(limit time.Duration) *world {
	w := &world{now: time.Hour, ends: map[int]End{}, dead: map[int]bool{}}
	w.Cache = New(Config{
		TTLLimit: limit,
		Now:      func() time.Duration { return w.now },
		Alarm:    func(d time.Duration) { w.alarm = w.now + d },
		Alive:    func(fd int) bool { return !w.dead[fd] },
		Close: func(all []Ended) {
			for _, e := range all {
				if e.FD == NoFD {
					w.dropped = append(w.dropped, e)
					continue
				}
				w.closed = append(w.closed, e.FD)
				w.ends[e.FD] = e.Why
			}
		},
	})
	return w
}

// sleep lets time pass, with the alarms that fall into it.
func (w *world) sleep(d time.Duration) {
	end := w.now + d
	for w.alarm > 0 && w.alarm <= end {
		w.now, w.alarm = max(w.now, w.alarm), 0
		w.Expire()
	}
	w.now = end
}

// session saves a session with a new descriptor, and returns it.
func (w *world) session(ttl time.Duration, endpoint string) int {
	w.fd++
	w.SaveSession(ttl, []byte(endpoint), fmt.Append(nil, "property ", w.fd), w.fd)
	return w.fd
}

func (w *world) binding(ttl time.Duration, destination, property, endpoint string) {
	w.SaveBinding(ttl, []byte(destination), []byte(property), []byte(endpoint))
}

// endpoint and destination return the descriptor that is found, or 0.
func (w *world) endpoint(t *testing.T, label string) int {
	t.Helper()
	return found(t, w.FindEndpoint, label).FD
}

func (w *world) destination(t *testing.T, label string) int {
	t.Helper()
	return found(t, w.FindDestination, label).FD
}

func found(t *testing.T, find func([]byte) (Session, bool), label string) Session {
	t.Helper()
	s, ok := find([]byte(label))
	if want := fmt.Sprint("property ", s.FD); ok && s.Property != want {
		t.Errorf("session %d has the property %q", s.FD, s.Property)
	}
	if ok != (s.FD != 0) {
		t.Errorf("found %v: %+v", ok, s)
	}
	return s
}

func (w *world) wantSize(t *testing.T, destinations, endpoints, sessions int) {
	t.Helper()
	if got, want := w.Size(), (Size{destinations, endpoints, sessions}); got != want {
		t.Errorf("the cache holds %+v, want %+v", got, want)
	}
}

func (w *world) wantClosed(t *testing.T, fds ...int) {
	t.Helper()
	slices.Sort(w.closed)
	if !slices.Equal(w.closed, fds) {
		t.Errorf("closed %v, want %v", w.closed, fds)
	}
}

func TestFindEndpointGivesTheOldestSessionAway(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	a, b, other := w.session(time.Second, "e"), w.session(time.Second, "e"), w.session(time.Second, "f")
	for _, want := range []int{a, b, 0} {
		if got := w.endpoint(t, "e"); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	w.wantSize(t, 0, 1, 1)
	w.sleep(2 * time.Second)
	w.wantClosed(t, other)
	w.wantSize(t, 0, 0, 0)
}

func TestFindDestinationPrefersOldestBinding(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Minute, "d", "without sessions", "none")
	w.binding(time.Minute, "d", "first", "e")
	w.binding(time.Minute, "d", "second", "f")
	f, e1, e2 := w.session(time.Minute, "f"), w.session(time.Minute, "e"), w.session(time.Minute, "e")
	for _, want := range []Session{{FD: e1, DestinationProperty: "first", Endpoint: "e"}, {FD: e2, DestinationProperty: "first", Endpoint: "e"}, {FD: f, DestinationProperty: "second", Endpoint: "f"}, {}} {
		got := found(t, w.FindDestination, "d")
		got.Property = ""
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	w.wantSize(t, 1, 0, 0) // the bindings stay
	if again := w.session(time.Minute, "e"); w.destination(t, "d") != again {
		t.Error("a binding did not find a session that was saved later")
	}
}

func TestSaveBindingRefreshesInPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(2*time.Second, "d", "p", "e")
	w.binding(5*time.Second, "d", "q", "e") // another property: another binding
	w.binding(5*time.Second, "d", "p", "f") // another endpoint: another binding
	w.sleep(time.Second)
	w.binding(3*time.Second, "d", "p", "e")
	w.sleep(2 * time.Second)
	w.session(time.Minute, "e")
	if got := found(t, w.FindDestination, "d").DestinationProperty; got != "p" {
		t.Errorf("the first binding has the property %q", got)
	}
	w.sleep(time.Second) // the refreshed binding ends before the others
	w.session(time.Minute, "e")
	if got := found(t, w.FindDestination, "d").DestinationProperty; got != "q" {
		t.Errorf("after its end: property %q", got)
	}
}

func TestABindingThatEndedIsNotRefreshed(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Second, "d", "p", "e")
	w.binding(time.Minute, "d", "q", "e")
	w.now += time.Second // no alarm: the wheel has not come around
	w.binding(time.Minute, "d", "p", "e")
	w.session(time.Minute, "e")
	if got := found(t, w.FindDestination, "d").DestinationProperty; got != "q" {
		t.Errorf("the first binding has the property %q", got)
	}
}

func TestNothingIsHandedOutAfterItsTTL(t *testing.T) {
	t.Parallel()
	for _, find := range []func(*world) int{
		func(w *world) int { return w.endpoint(t, "e") },
		func(w *world) int { return w.destination(t, "d") },
	} {
		w := newWorld(0)
		w.binding(time.Minute, "d", "p", "e")
		a, b := w.session(time.Second, "e"), w.session(time.Second+1, "e")
		w.now += time.Second
		if got := find(w); got != b {
			t.Errorf("got %d, want %d", got, b)
		}
		w.wantClosed(t, a)
	}
	w := newWorld(0)
	w.binding(time.Second, "d", "p", "e")
	w.session(time.Minute, "e")
	w.now += time.Second
	if got := w.destination(t, "d"); got != 0 {
		t.Errorf("a binding that ended leads to %d", got)
	}
}

func TestTTLLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(2 * time.Second)
	w.binding(time.Hour, "d", "p", "e")
	fd := w.session(time.Hour, "e")
	w.sleep(2*time.Second - 1)
	w.wantSize(t, 1, 1, 1)
	w.sleep(1 + precision)
	w.wantSize(t, 0, 0, 0)
	w.wantClosed(t, fd)
}

func TestSessionsAreClosedInTimeByTheAlarmAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	ttls := []time.Duration{time.Hour, 1, time.Second, 100 * time.Second, 63 * precision, 65 * precision, time.Second}
	for _, ttl := range ttls {
		w.session(ttl, "e")
	}
	start := w.now
	for len(w.closed) < len(ttls) {
		if w.alarm <= w.now {
			t.Fatalf("at %v: alarm at %v with %d sessions left", w.now, w.alarm, len(ttls)-len(w.closed))
		}
		before := len(w.closed)
		w.sleep(w.alarm - w.now)
		for _, fd := range w.closed[before:] {
			if late := w.now - start - ttls[fd-1]; late < 0 || late > precision {
				t.Errorf("ttl %v: closed %v late", ttls[fd-1], late)
			}
		}
	}
	if w.alarm != 0 {
		t.Errorf("the cache is empty, and an alarm is set at %v", w.alarm)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Minute, "d1", "p", "e")
	w.binding(time.Minute, "d2", "p", "e")
	w.session(time.Minute, "e")
	w.session(time.Minute, "f")
	w.session(time.Minute, "f")
	for _, label := range []string{"d1", "d1", "d2", "d3"} {
		w.destination(t, label)
	}
	for _, label := range []string{"f", "f", "f"} {
		w.endpoint(t, label)
	}
	want := Stats{Destination: Lookups{1, 3}, Endpoint: Lookups{2, 1}, Destinations: 2, Endpoints: 2, Sessions: 3}
	if got := w.ResetStats(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := w.ResetStats(); got != (Stats{}) {
		t.Errorf("after the reset: %+v", got)
	}
}

func TestClear(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	a, b, c := w.session(time.Minute, "e"), w.session(time.Minute, "e"), w.session(time.Minute, "f")
	w.binding(time.Minute, "d", "p", "e")
	w.binding(time.Minute, "d", "p", "f")
	w.Clear()
	w.wantSize(t, 0, 0, 0)
	w.sleep(time.Hour)
	w.wantClosed(t, a, b, c)
}

func TestDeadSessionsAreNotGivenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Minute, "d", "first", "e")
	w.binding(time.Minute, "d", "second", "f")
	a, b, c, d := w.session(time.Minute, "e"), w.session(time.Minute, "e"), w.session(time.Minute, "f"), w.session(time.Minute, "f")
	w.dead[a], w.dead[b], w.dead[c] = true, true, true
	if got := found(t, w.FindDestination, "d"); got.FD != d || got.DestinationProperty != "second" {
		t.Errorf("got %+v, want %d", got, d)
	}
	w.wantClosed(t, a, b, c)
	e := w.session(time.Minute, "e")
	w.dead[e] = true
	if got := w.endpoint(t, "e"); got != 0 {
		t.Errorf("got %d, which is dead", got)
	}
	stats, totals := w.ResetStats(), w.Totals()
	if stats.Destination != (Lookups{1, 0}) || stats.Endpoint != (Lookups{0, 1}) || totals.Ended[Dead] != 4 {
		t.Errorf("%+v, %+v", stats, totals)
	}
}

func TestAtTheLimitTheSessionNearestToItsEndMakesRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.SetLimit(func() int { return 3 })
	long, short, middle := w.session(time.Hour, "e"), w.session(time.Second, "f"), w.session(time.Minute, "e")
	w.session(2*time.Hour, "g")
	w.wantClosed(t, short)
	w.session(2*time.Hour, "g")
	w.wantClosed(t, short, middle)
	shorter := w.session(time.Second, "g")
	w.wantClosed(t, long, short, middle) // and not the one just saved
	w.SetLimit(func() int { return 0 })  // is one
	w.wantSize(t, 0, 1, 1)
	if w.ends[shorter] != Evicted || w.Totals().Ended[Evicted] != 5 {
		t.Errorf("ended: %v, %+v", w.ends, w.Totals())
	}
}

// takeAll moves everything out of the cache.
func (w *world) takeAll() (all Snapshot) {
	w.Freeze(func(s Snapshot) bool {
		all = s
		return true
	})
	return all
}

func TestTakeAllAndRestore(t *testing.T) {
	t.Parallel()
	w, next := newWorld(0), newWorld(0)
	w.binding(time.Minute, "d", "first", "e")
	w.binding(time.Hour, "d", "second", "e")
	a, b := w.session(time.Minute, "e"), w.session(time.Second, "e")
	w.sleep(time.Second / 2)
	all := w.takeAll()
	w.wantSize(t, 0, 0, 0)
	w.wantClosed(t)
	if w.sleep(time.Hour); len(w.closed) > 0 {
		t.Errorf("closed %v, which were taken", w.closed)
	}
	for _, s := range all.Bindings {
		next.RestoreBinding(s)
	}
	for _, s := range all.Sessions {
		next.RestoreSession(s)
	}
	if got := found(t, next.FindDestination, "d"); got.FD != a || got.DestinationProperty != "first" {
		t.Errorf("got %+v, want %d", got, a)
	}
	next.sleep(time.Second/2 - 1)
	next.wantSize(t, 1, 1, 1)
	next.sleep(1 + precision)
	next.wantSize(t, 1, 0, 0)
	next.wantClosed(t, b)
	next.sleep(time.Hour)
	next.wantSize(t, 0, 0, 0)
}

// TestDescriptorsAreGivenAwayOrClosedOnce does random things, and looks where
// every descriptor went.
func TestDescriptorsAreGivenAwayOrClosedOnce(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(10 * time.Second)
		given := map[int]int{}
		label := func() string { return string(rune('a' + r.IntN(5))) }
		ttl := func() time.Duration { return time.Duration(1 + r.Int64N(int64(12*time.Second))) }
		for range 3000 {
			switch r.IntN(6) {
			case 0, 1:
				w.session(ttl(), label())
			case 2:
				w.binding(ttl(), label(), label(), label())
			case 3:
				given[w.endpoint(t, label())]++
			case 4:
				given[w.destination(t, label())]++
			case 5:
				w.sleep(time.Duration(r.Int64N(int64(300 * time.Millisecond))))
			}
		}
		w.Clear()
		for _, fd := range w.closed {
			given[fd]++
		}
		for fd := 1; fd <= w.fd; fd++ {
			if given[fd] != 1 {
				t.Fatalf("seed %d: descriptor %d left the cache %d times", seed, fd, given[fd])
			}
		}
	}
}

func BenchmarkMiss(b *testing.B) {
	w := newWorld(0)
	label := []byte("smtp\n127.0.0.1\n25\n0\n")
	b.ReportAllocs()
	for b.Loop() {
		w.FindDestination(label)
		w.FindEndpoint(label)
	}
}

func BenchmarkSaveFind(b *testing.B) {
	for _, n := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprint(n, " cached"), func(b *testing.B) {
			w := newWorld(0)
			for i := range n {
				w.session(time.Hour+time.Duration(i)*time.Millisecond, fmt.Sprint(i))
			}
			label, property := []byte("smtp\n127.0.0.1\n25\n0\n"), []byte("tls_level=0\nreuse_count=12\n")
			b.ReportAllocs()
			for b.Loop() {
				w.SaveSession(2*time.Second, label, property, 1)
				w.FindEndpoint(label)
			}
		})
	}
}

func TestTheSessionJustSavedIsTheLastToMakeRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.SetLimit(func() int { return 1 })
	long := w.session(time.Hour, "e")
	short := w.session(time.Second, "e")
	w.wantClosed(t, long)
	if got := w.endpoint(t, "e"); got != short {
		t.Errorf("got %d, want %d", got, short)
	}
}

func TestTheBindingNearestToItsEndMakesRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.BindingLimit = 3
	for i, ttl := range []time.Duration{3, 1, 2} {
		w.binding(ttl*time.Hour, "d", fmt.Sprint("p", i), "e")
	}
	w.binding(time.Minute, "d", "p1", "e") // one that is there takes no room
	w.binding(time.Second, "other", "p", "e")
	var left []string
	for _, b := range append(w.Bindings("d", 0, 9), w.Bindings("other", 0, 9)...) {
		left = append(left, b.Property)
	}
	if want := []string{"p0", "p2", "p"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
	if n := w.Totals().EvictedBindings; n != 1 {
		t.Errorf("%d bindings were evicted", n)
	}
}

// TestBindingsOfOneDestination has many with one label, as an endpoint that
// changes often would make: each is found by all of its key, in its old place.
func TestBindingsOfOneDestination(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	const n = 20_000
	for range 2 {
		for i := range n {
			w.binding(time.Minute, "d", fmt.Sprint("p", i%2), fmt.Sprint("e", i/2))
		}
	}
	list := append(w.Bindings("d", 0, 7), w.Bindings("d", 7, n)...)
	if len(list) != n {
		t.Fatalf("%d bindings", len(list))
	}
	for i, b := range list {
		if b.Property != fmt.Sprint("p", i%2) || b.Endpoint != fmt.Sprint("e", i/2) {
			t.Fatalf("binding %d is %+v", i, b)
		}
	}
}

func BenchmarkSaveBindingOfManyOfOneDestination(b *testing.B) {
	w := newWorld(0)
	for i := range 20_000 {
		w.binding(time.Hour, "d", "p", fmt.Sprint("e", i))
	}
	b.ReportAllocs()
	for b.Loop() {
		w.binding(time.Hour, "d", "p", "e19999")
	}
}

func TestASnapshotIsRestored(t *testing.T) {
	t.Parallel()
	from, to := newWorld(0), newWorld(0)
	from.binding(time.Minute, "d", "p", "e")
	from.session(time.Minute, "e")
	from.endpoint(t, "nobody")
	from.sleep(20 * time.Second)
	all := from.takeAll()
	for _, b := range all.Bindings {
		to.RestoreBinding(b)
	}
	for _, s := range all.Sessions {
		to.RestoreSession(s)
	}
	to.sleep(10 * time.Second)
	if got, want := to.Bindings("d", 0, 9), (ListedBinding{"d", "p", "e", 30 * time.Second, 30 * time.Second}); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v", got)
	}
	if got, want := to.Sessions("e", 0, 9, func(int) string { return "" }), (ListedSession{"e", "property 1", 30 * time.Second, 30 * time.Second, ""}); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v", got)
	}
	if got, want := all.Totals, (Totals{Endpoint: Lookups{0, 1}, Saved: 1, Peak: Size{1, 1, 1}}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := to.Totals(), (Totals{TakenOver: 1, Peak: Size{1, 1, 1}}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	from.wantSize(t, 0, 0, 0)
	from.wantClosed(t)
}

func TestWhatHasEndedIsNotRestored(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.RestoreSession(SavedSession{TTL: 0, Label: "e", FD: 7})
	w.RestoreBinding(SavedBinding{TTL: -1, Label: "d", Endpoint: "e"})
	w.wantSize(t, 0, 0, 0)
	w.wantClosed(t, 7)
	if w.ends[7] != Expired {
		t.Errorf("closed for reason %d", w.ends[7])
	}
}

// TestANewerBindingIsNotShortened by one that a predecessor has left.
func TestANewerBindingIsNotShortened(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.session(10*time.Second, "e")
	w.binding(2*time.Second, "d", "p", "e")
	w.RestoreBinding(SavedBinding{Age: time.Second, TTL: 100 * time.Millisecond, Label: "d", Property: "p", Endpoint: "e"})
	w.sleep(time.Second)
	w.destination(t, "d")
}

// TestWhatEndsIsTold with the labels, for whoever counts.
func TestWhatEndsIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Minute, "d", "p", "e")
	w.sleep(2 * time.Minute)
	w.binding(time.Minute, "d", "p", "e")
	w.Clear()
	w.binding(time.Minute, "d", "p", "e")
	w.takeAll()
	want := []Ended{{NoFD, Expired, "", "d"}, {NoFD, Flushed, "", "d"}}
	if !slices.Equal(w.dropped, want) {
		t.Errorf("%v, want %v", w.dropped, want)
	}
	var told []Ended
	w.Close = func(all []Ended) { told = append(told, all...) }
	w.binding(time.Minute, "d", "p", "e")
	dead, expired := w.session(time.Minute, "e"), w.session(time.Minute, "e")
	w.Alive = func(fd int) bool { return fd != dead }
	if got := found(t, w.FindDestination, "d"); got.FD != expired || got.Endpoint != "e" {
		t.Errorf("%+v", got)
	}
	again := w.session(time.Second, "e")
	w.sleep(2 * time.Second)
	want = []Ended{{dead, Dead, "e", "d"}, {again, Expired, "e", ""}}
	if !slices.Equal(told, want) {
		t.Errorf("%v, want %v", told, want)
	}
}

func TestEndpointLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.EndpointLimit = func(label string) (int, time.Duration) {
		return map[string]int{"one": 1, "two": 2}[label], map[string]time.Duration{"two": time.Minute}[label]
	}
	a, b := w.session(time.Hour, "one"), w.session(time.Hour, "one")
	w.wantClosed(t, a)
	c, d, e := w.session(time.Hour, "two"), w.session(time.Second, "two"), w.session(time.Hour, "two")
	w.wantClosed(t, a, c)
	if w.ends[c] != Evicted {
		t.Errorf("%v", w.ends[c])
	}
	for range 5 {
		w.session(time.Hour, "any")
	}
	w.sleep(2 * time.Second)
	w.wantClosed(t, a, c, d)
	w.sleep(time.Minute) // the limit of time shortens, and does not lengthen
	w.wantClosed(t, a, c, d, e)
	if got := w.endpoint(t, "one"); got != b {
		t.Errorf("got %d, want %d", got, b)
	}
	w.wantSize(t, 0, 1, 5)
}
