// SPDX-License-Identifier: EPL-2.0

// Survivors of "make mutants PKG=internal/cache" that are equal in behaviour:
//
//   - Bounds of what is kept for reuse, and of tables that are made anew: one entry more or less.
//   - A binding without sessions in the heap of its destination: a lookup moves it.
//   - Comparisons of sequence numbers, which are never equal; the same alarm once more.
//   - A step of a flush that looks at one more slot, of which it then drops nothing.

package cache

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"scache/internal/fdpass"
)

// world is a cache under test and what it gets from outside: a clock that the test
// moves, an alarm, and descriptors that are just numbers.
type world struct {
	*Cache
	now    time.Duration
	alarm  time.Duration // 0 if not set
	closed []int
	ends   map[int]Reason // of those that were closed
	told   []Dropped      // all that was released
	dead   map[int]bool
	fd     int
}

func newWorld(limit time.Duration) *world {
	return newWorldWith(Config{TTLLimit: limit})
}

func newWorldWith(config Config) *world {
	w := &world{now: time.Hour, ends: map[int]Reason{}, dead: map[int]bool{}}
	config.Now = func() time.Duration { return w.now }
	config.Alarm = func(d time.Duration) { w.alarm = w.now + d }
	config.Alive = func(fd int) bool { return !w.dead[fd] }
	config.Release = func(all []Dropped) {
		w.told = append(w.told, all...)
		for _, e := range all {
			if e.FD != fdpass.None {
				w.closed = append(w.closed, e.FD)
				w.ends[e.FD] = e.Why
			}
		}
	}
	w.Cache = New(config)
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

// findBound returns FindBound for one endpoint.
func (w *world) findBound(endpoint string) func(label []byte) (Session, bool) {
	return func(label []byte) (Session, bool) { return w.FindBound(label, endpoint) }
}

func found(t *testing.T, find func([]byte) (Session, bool), label string) Session {
	t.Helper()
	s, ok := find([]byte(label))
	if want := fmt.Sprint("property ", s.FD); ok && s.Property != want {
		t.Errorf("session %d: got property %q, want %q", s.FD, s.Property, want)
	}
	if ok != (s.FD != 0) {
		t.Errorf("got found %v with %+v", ok, s)
	}
	return s
}

// bindings and sessions return what the cache lists under a label.
func (w *world) bindings(label string) (list []ListedBinding) {
	var at BindingCursor
	for more := true; more; {
		var some []ListedBinding
		some, more = w.Bindings(&at, 7)
		list = append(list, some...)
	}
	return slices.DeleteFunc(list, func(b ListedBinding) bool { return b.Destination != label })
}

func (w *world) sessions(label string) (list []ListedSession) {
	var at SessionCursor
	for more := true; more; {
		var some []ListedSession
		some, more = w.Sessions(&at, 7, remote)
		list = append(list, some...)
	}
	return slices.DeleteFunc(list, func(s ListedSession) bool { return s.Endpoint != label })
}

// takeAll moves everything out of the cache.
func (w *world) takeAll() (all Snapshot) {
	w.Freeze(func(s Snapshot) (moved bool) {
		all = s
		return true
	})
	return all
}

func (w *world) wantSize(t *testing.T, destinations, endpoints, sessions int) {
	t.Helper()
	if got, want := w.Size(), (Size{destinations, endpoints, sessions}); got != want {
		t.Errorf("got size %+v, want %+v", got, want)
	}
}

func (w *world) wantClosed(t *testing.T, fds ...int) {
	t.Helper()
	slices.Sort(w.closed)
	if !slices.Equal(w.closed, fds) {
		t.Errorf("got %v closed, want %v", w.closed, fds)
	}
}

func TestFindEndpoint_takesTheOldestSession(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	a, b := w.session(time.Second, "e"), w.session(time.Second, "e")
	other := w.session(time.Second, "f")
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

func TestFindDestination_takesTheOldestBinding(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Minute, "d", "without sessions", "none")
	w.binding(time.Minute, "d", "first", "e")
	w.binding(time.Minute, "d", "second", "f")
	f := w.session(time.Minute, "f")
	e1, e2 := w.session(time.Minute, "e"), w.session(time.Minute, "e")
	for _, want := range []Session{
		{FD: e1, DestinationProperty: "first", Endpoint: "e"},
		{FD: e2, DestinationProperty: "first", Endpoint: "e"},
		{FD: f, DestinationProperty: "second", Endpoint: "f"},
		{},
	} {
		got := found(t, w.FindDestination, "d")
		got.Property = ""
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	w.wantSize(t, 1, 0, 0) // the bindings stay
	f = w.session(time.Minute, "f")
	e := w.session(time.Minute, "e")
	for _, want := range []int{e, f, 0} {
		if got := w.destination(t, "d"); got != want {
			t.Errorf("with sessions saved later: got %d, want %d", got, want)
		}
	}
}

func TestFind_returnsNothingAfterItsTTL(t *testing.T) {
	t.Parallel()
	for _, find := range []func(*world) int{
		func(w *world) int { return w.endpoint(t, "e") },
		func(w *world) int { return w.destination(t, "d") },
		func(w *world) int { return found(t, w.findBound("e"), "d").FD },
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
		t.Errorf("by a binding that has ended: got %d, want 0", got)
	}
	w.binding(time.Second, "d", "p", "e")
	w.now += time.Second
	if got := found(t, w.findBound("e"), "d").FD; got != 0 {
		t.Errorf("by a binding to this endpoint that has ended: got %d, want 0", got)
	}
}

func TestFind_skipsDeadSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Minute, "d", "first", "e")
	w.binding(time.Minute, "d", "second", "f")
	a, b := w.session(time.Minute, "e"), w.session(time.Minute, "e")
	c, d := w.session(time.Minute, "f"), w.session(time.Minute, "f")
	w.dead[a], w.dead[b], w.dead[c] = true, true, true
	if got := found(t, w.FindDestination, "d"); got.FD != d || got.DestinationProperty != "second" {
		t.Errorf("got %+v, want %d", got, d)
	}
	w.wantClosed(t, a, b, c)
	e := w.session(time.Minute, "e")
	w.dead[e] = true
	if got := w.endpoint(t, "e"); got != 0 {
		t.Errorf("got %d, want none: it is dead", got)
	}
	stats, totals := w.ResetStats(), w.Totals()
	if want := (Lookups{1, 0}); stats.Destination != want {
		t.Errorf("by destination: got %+v, want %+v", stats.Destination, want)
	}
	if want := (Lookups{0, 1}); stats.Endpoint != want {
		t.Errorf("by endpoint: got %+v, want %+v", stats.Endpoint, want)
	}
	if got := totals.Dropped[Dead]; got != 4 {
		t.Errorf("got %d dead, want 4", got)
	}
}

// TestFindEndpoint_afterReuseOfMemory saves and finds more sessions than a pool keeps.
func TestFindEndpoint_afterReuseOfMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	for round := range 3 {
		for i := range 2 * poolSize {
			w.session(time.Minute, fmt.Sprint("e", i%7))
		}
		for i := range 2 * poolSize {
			want := round*2*poolSize + i + 1
			if got := w.endpoint(t, fmt.Sprint("e", i%7)); got != want {
				t.Fatalf("round %d: got %d, want %d", round, got, want)
			}
		}
		w.wantSize(t, 0, 0, 0)
	}
	w.sleep(time.Hour)
	w.wantClosed(t)
}

func TestSaveBinding_restartsInPlace(t *testing.T) {
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
		t.Errorf("got property %q of the first binding", got)
	}
	w.sleep(time.Second) // the refreshed binding ends before the others
	w.session(time.Minute, "e")
	if got := found(t, w.FindDestination, "d").DestinationProperty; got != "q" {
		t.Errorf("after its end: got property %q, want q", got)
	}
}

func TestSaveBinding_appendsWhereTheOldOneHasEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Second, "d", "p", "e")
	w.binding(time.Minute, "d", "q", "e")
	w.now += time.Second // without an alarm, between two ticks of the wheel
	w.binding(time.Minute, "d", "p", "e")
	w.session(time.Minute, "e")
	if got := found(t, w.FindDestination, "d").DestinationProperty; got != "q" {
		t.Errorf("got property %q of the first binding", got)
	}
}

// TestSaveBinding_manyOfOneDestination saves each of many bindings twice: each is found
// by its whole key and keeps its place.
func TestSaveBinding_manyOfOneDestination(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	const n = 20_000
	for range 2 {
		for i := range n {
			w.binding(time.Minute, "d", fmt.Sprint("p", i%2), fmt.Sprint("e", i/2))
		}
	}
	list := w.bindings("d")
	if len(list) != n {
		t.Fatalf("got %d bindings, want %d", len(list), n)
	}
	for i, b := range list {
		if b.Property != fmt.Sprint("p", i%2) || b.Endpoint != fmt.Sprint("e", i/2) {
			t.Fatalf("got %+v as binding %d", b, i)
		}
	}
}

// TestSaveBinding_knowsTheOthersWhenManyEnd drops one of many bindings. If none was left, the
// cache would give their memory back.
func TestSaveBinding_knowsTheOthersWhenManyEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	const n = 2 * largeTable
	for range 2 {
		for i := range n {
			w.binding(time.Minute, "d", "p", fmt.Sprint("e", i))
		}
		w.binding(time.Minute, "other", "p", "e0")
		w.Flush([]string{"other"})
		if got := len(w.bindings("d")); got != n {
			t.Errorf("got %d bindings, want %d", got, n)
		}
	}
}

func TestTTLLimit_shortens(t *testing.T) {
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

func TestExpire_isInTimeByTheAlarmAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	ttls := []time.Duration{
		time.Hour, 1, time.Second, 100 * time.Second, 63 * precision, 65 * precision, time.Second,
	}
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
				t.Errorf("ttl %v: got closed %v late, want at most %v", ttls[fd-1], late, precision)
			}
		}
	}
	if w.alarm != 0 {
		t.Errorf("empty cache: got an alarm at %v, want none", w.alarm)
	}
}

func TestStats_countsAndResets(t *testing.T) {
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
	want := Stats{
		Destination: Lookups{1, 3}, Endpoint: Lookups{2, 1},
		Destinations: 2, Endpoints: 2, Sessions: 3,
	}
	if got := w.ResetStats(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := w.ResetStats(); got != (Stats{}) {
		t.Errorf("after the reset: got %+v, want zero", got)
	}
}

func TestTotals_surviveResetStats(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	for range 2 {
		w.session(time.Minute, "e")
		w.session(time.Minute, "e")
		w.binding(time.Minute, "d", "p", "e")
		w.destination(t, "d")
		w.endpoint(t, "e")
		w.endpoint(t, "e")
		w.ResetStats()
	}
	w.destination(t, "d")
	want := Totals{Destination: Lookups{2, 1}, Endpoint: Lookups{2, 2}, Saved: 4, Peak: Size{1, 1, 2}}
	want.Waited.Counts[0] = 4
	if got := w.Totals(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRelease_hearsReasonsAndLabels(t *testing.T) {
	t.Parallel()
	w := newWorldWith(Config{BindingLimit: 1})
	w.SetLimit(func() int { return 2 })
	want := func(step string, want ...Dropped) {
		t.Helper()
		if !slices.Equal(w.told, want) {
			t.Errorf("%s: got %v, want %v", step, w.told, want)
		}
		w.told = nil
	}
	w.binding(time.Minute, "d", "p", "e")
	w.sleep(2 * time.Minute)
	want("binding's time", Dropped{fdpass.None, Expired, "", "d"})
	w.binding(time.Minute, "d", "p", "e")
	w.Clear()
	want("clear", Dropped{fdpass.None, Flushed, "", "d"})
	w.binding(time.Minute, "d1", "p", "e")
	w.binding(time.Minute, "d", "p", "e")
	want("binding limit", Dropped{fdpass.None, Evicted, "", "d1"})
	dead, live := w.session(time.Minute, "e"), w.session(time.Minute, "e")
	w.dead[dead] = true
	if got := found(t, w.FindDestination, "d"); got.FD != live || got.Endpoint != "e" {
		t.Errorf("got %+v, want %d of e", got, live)
	}
	want("dead", Dropped{dead, Dead, "e", "d"})
	fd := w.session(time.Second, "e")
	w.sleep(2 * time.Second)
	want("session's time", Dropped{fd, Expired, "e", ""})
	fd = w.session(time.Second, "e")
	w.Flush([]string{"e"})
	want("flush", Dropped{fd, Flushed, "e", ""})
	fd = w.session(time.Second, "e")
	w.Evict(1)
	want("evict", Dropped{fd, Evicted, "e", ""})
	w.takeAll()
	want("take all")
	w.ReleaseSessions([]SavedSession{{FD: 7}, {FD: 8}})
	want("release", Dropped{7, Flushed, "", ""}, Dropped{8, Flushed, "", ""})
}

// TestExpire_dropsBindingsByTheAlarmAlone has no other call that would make time pass.
func TestExpire_dropsBindingsByTheAlarmAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(2*time.Second, "d", "p", "e")
	w.binding(time.Minute, "d", "q", "e")
	w.sleep(2*time.Second + precision)
	if want := (Dropped{fdpass.None, Expired, "", "d"}); len(w.told) != 1 || w.told[0] != want {
		t.Errorf("got %v, want %v", w.told, want)
	}
	w.sleep(time.Minute)
	if len(w.told) != 2 {
		t.Errorf("got %v, want two bindings", w.told)
	}
	if w.alarm != 0 {
		t.Errorf("empty cache: got an alarm at %v, want none", w.alarm)
	}
}

// TestFindDestination_followsEndpoints lets endpoints lose and gain sessions: the order
// of the bindings stays.
func TestFindDestination_followsEndpoints(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	const n = 50
	for i := range n {
		w.binding(time.Hour, "d", fmt.Sprint(i), fmt.Sprint("e", i))
		w.binding(time.Hour, "other", fmt.Sprint(i), fmt.Sprint("e", i))
	}
	for range 3 {
		for i := range n { // in an order of their own
			w.session(time.Hour, fmt.Sprint("e", i*7%n))
		}
		for i := range n {
			label := []string{"d", "other"}[i%2]
			want := fmt.Sprint(i)
			if got := found(t, w.FindDestination, label).DestinationProperty; got != want {
				t.Fatalf("got binding %q, want %q", got, want)
			}
		}
		if got := w.destination(t, "d"); got != 0 {
			t.Fatalf("got %d, want 0", got)
		}
	}
	w.Clear()
	w.wantEmpty(t)
}

// wantEmpty reports what the cache still counts or keeps.
func (w *world) wantEmpty(t *testing.T) {
	t.Helper()
	w.wantSize(t, 0, 0, 0)
	if got := w.Memory().Used; got != 0 {
		t.Errorf("got %d bytes in use, want 0", got)
	}
	if n := len(w.endpoints.byLabel) + len(w.Cache.bindings); n != 0 {
		t.Errorf("got %d endpoints and bindings, want none", n)
	}
}
