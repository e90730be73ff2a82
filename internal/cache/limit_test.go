// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"scache/internal/fdpass"
)

func TestSetLimit_evictsNearestToItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.SetLimit(func() int { return 3 })
	long, short := w.session(time.Hour, "e"), w.session(time.Second, "f")
	middle := w.session(time.Minute, "e")
	w.session(2*time.Hour, "g")
	w.wantClosed(t, short)
	w.session(2*time.Hour, "g")
	w.wantClosed(t, short, middle)
	shorter := w.session(time.Second, "g")
	w.wantClosed(t, long, short, middle) // and not the one just saved
	w.SetLimit(func() int { return 0 })  // is one
	w.wantSize(t, 0, 1, 1)
	if w.ends[shorter] != Evicted {
		t.Errorf("got reason %v, want %v", w.ends[shorter], Evicted)
	}
	if got := w.Totals().Dropped[Evicted]; got != 5 {
		t.Errorf("got %d evicted, want 5", got)
	}
	if got := w.Limit(); got != 1 {
		t.Errorf("got limit %d, want 1", got)
	}
}

func TestSetLimit_keepsTheSessionJustSaved(t *testing.T) {
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

func TestBindingLimit_evictsNearestToItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorldWith(Config{BindingLimit: 3})
	for i, ttl := range []time.Duration{3, 1, 2} {
		w.binding(ttl*time.Hour, "d", fmt.Sprint("p", i), "e")
	}
	w.binding(time.Minute, "d", "p1", "e") // one that is there takes no room
	w.binding(time.Second, "other", "p", "e")
	var left []string
	for _, b := range append(w.bindings("d"), w.bindings("other")...) {
		left = append(left, b.Property)
	}
	if want := []string{"p0", "p2", "p"}; !slices.Equal(left, want) {
		t.Errorf("got %q, want %q", left, want)
	}
	if n := w.Totals().EvictedBindings; n != 1 {
		t.Errorf("got %d evicted, want 1", n)
	}
}

func TestEvictOldest(t *testing.T) {
	t.Parallel()
	w := newWorldWith(Config{})
	a, b := w.session(time.Second, "e"), w.session(time.Hour, "e")
	if !w.EvictOldest("e") || w.EvictOldest("none") {
		t.Error("got another answer than whether there was a session")
	}
	w.wantClosed(t, a)
	if w.ends[a] != Evicted {
		t.Errorf("got reason %v, want %v", w.ends[a], Evicted)
	}
	if !w.EvictOldest("e") || w.EvictOldest("e") {
		t.Error("got another answer than whether there was a session")
	}
	w.wantClosed(t, a, b)
	w.wantSize(t, 0, 0, 0)
}

func TestFindBound(t *testing.T) {
	t.Parallel()
	w := newWorldWith(Config{})
	w.binding(time.Second, "d", "p1", "e1")
	w.binding(time.Hour, "d", "p2", "e2")
	a, b, c := w.session(time.Hour, "e1"), w.session(time.Hour, "e2"), w.session(time.Hour, "e3")
	for _, no := range [][2]string{{"d", "e3"}, {"d", "none"}, {"none", "e1"}} {
		if s, ok := w.FindBound([]byte(no[0]), no[1]); ok {
			t.Errorf("%q: got %v, want nothing", no, s)
		}
	}
	s, ok := w.FindBound([]byte("d"), "e2")
	if !ok || s.FD != b || s.DestinationProperty != "p2" || s.Endpoint != "e2" {
		t.Errorf("got %v, %t, want %d", s, ok, b)
	}
	if s, ok = w.FindBound([]byte("d"), "e2"); ok {
		t.Errorf("got %v, want nothing", s)
	}
	w.sleep(2 * time.Second)
	if s, ok = w.FindBound([]byte("d"), "e1"); ok {
		t.Errorf("got %v by a binding that has ended, want nothing", s)
	}
	if got := w.Totals().Destination.Hits; got != 1 {
		t.Errorf("got %d hits, want 1", got)
	}
	w.Clear()
	w.wantClosed(t, a, c)
}

func TestMemoryLimit_evictsNearestToItsEndOfBothKinds(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	const entry = 3000 // at least what a binding with two labels takes
	w := newWorldWith(Config{MemoryLimit: 3 * entry})
	w.binding(3*time.Second, "d1", long, "e1")
	w.binding(time.Second, "d2", long, "e2")
	fd := w.session(2*time.Second, long)
	for i := 0; len(w.told) < 3; i++ {
		w.binding(time.Minute, fmt.Sprint("more ", i), long, "e")
	}
	want := []Dropped{
		{fdpass.None, Evicted, "", "d2"}, {fd, Evicted, long, ""}, {fdpass.None, Evicted, "", "d1"},
	}
	if !slices.Equal(w.told, want) {
		t.Errorf("got %v, want %v", w.told, want)
	}
	memory, totals := w.Memory(), w.Totals()
	if memory.Used > memory.Limit || memory.Used < memory.Limit/2 {
		t.Errorf("got %+v, want the limit nearly used", memory)
	}
	if totals.EvictedForMemory != 3 || totals.EvictedBindings != 2 || totals.Dropped[Evicted] != 1 {
		t.Errorf("got %+v, %+v, want 2 bindings and a session evicted", memory, totals)
	}
	w.Clear()
	w.wantEmpty(t)
}

// TestMemoryLimit_keepsTheEntryJustSaved saves entries that exceed the limit alone.
func TestMemoryLimit_keepsTheEntryJustSaved(t *testing.T) {
	t.Parallel()
	w := newWorldWith(Config{MemoryLimit: 1})
	a := w.session(time.Hour, "e")
	w.binding(time.Second, "d", "p", "f")
	w.wantClosed(t, a)
	w.wantSize(t, 1, 0, 0)
	b := w.session(time.Second, "f")
	w.wantSize(t, 0, 1, 1)
	w.binding(time.Second, "d", "p", "f")
	w.wantClosed(t, a, b)
	w.wantSize(t, 1, 0, 0)
	w.binding(time.Hour, "d", "p", "f") // a restart takes no room
	if got := w.Totals().EvictedForMemory; got != 3 {
		t.Errorf("got %d evicted, want 3", got)
	}
}

// TestMemoryLimit_isExact saves entries that need exactly the limit, or one byte more: then the
// last one takes the place of another.
func TestMemoryLimit_isExact(t *testing.T) {
	t.Parallel()
	long := func(s string) []byte { return []byte(strings.Repeat(s, 1000)) }
	for name, save := range map[string]func(w *world){
		"sessions": func(w *world) {
			w.SaveSession(time.Minute, []byte("e"), nil, 1)
			w.SaveSession(time.Hour, long("f"), long("p"), 2)
			w.SaveSession(time.Hour, long("e"), []byte("p"), 3)
		},
		"bindings": func(w *world) {
			w.SaveBinding(time.Minute, []byte("d"), nil, []byte("e"))
			w.SaveBinding(time.Hour, long("d"), nil, []byte("f"))
			w.SaveBinding(time.Hour, []byte("c"), nil, long("g"))
			w.SaveBinding(time.Hour, []byte("b"), long("p"), long("h"))
		},
	} {
		free := newWorld(0)
		save(free)
		total := free.Memory().Used
		for limit, want := range map[int64]int64{total: 0, total - 1: 1} {
			w := newWorldWith(Config{MemoryLimit: limit})
			save(w)
			evicted, memory := w.Totals().EvictedForMemory, w.Memory()
			if evicted != want || memory.Used > limit {
				t.Errorf("%s that need %d: got %+v, %d evicted, want %d",
					name, total, memory, evicted, want)
			}
		}
	}
}

// TestMemory_countsAllStrings has strings that are long beside the fixed cost of entries.
func TestMemory_countsAllStrings(t *testing.T) {
	t.Parallel()
	const n = 10_000
	long := []byte(strings.Repeat("x", n))
	for name, test := range map[string]struct {
		save func(w *world)
		want int64
	}{
		"binding":    {func(w *world) { w.SaveBinding(time.Hour, long, long, long) }, 3 * n},
		"session":    {func(w *world) { w.SaveSession(time.Hour, long, long, 1) }, 2 * n},
		"one string": {func(w *world) { w.SaveSession(time.Hour, []byte("e"), long[:n+1-16], 1) }, n},
	} {
		w := newWorld(0)
		test.save(w)
		if got := w.Memory().Used; got < test.want || got > test.want+1000 {
			t.Errorf("%s: got %d bytes, want %d and at most 1000 more", name, got, test.want)
		}
	}
	for length, want := range map[int]int64{0: 0, 1: 16, 16: 16, 17: 32} {
		if got := stringCost(length); got != want {
			t.Errorf("string of %d: got %d, want %d", length, got, want)
		}
	}
}

// TestMemory_isWhatTheHeapTakes compares the estimates with the heap.
func TestMemory_isWhatTheHeapTakes(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	const n = 20_000
	property := []byte(strings.Repeat("p", 100))
	for name, save := range map[string]func(w *world, i int){
		"sessions of one endpoint": func(w *world, i int) {
			w.SaveSession(time.Hour, []byte("e"), property, i)
		},
		"sessions": func(w *world, i int) {
			w.SaveSession(time.Hour, fmt.Append(nil, "endpoint ", i), property, i)
		},
		"bindings of one destination": func(w *world, i int) {
			w.SaveBinding(time.Hour, []byte("d"), property, fmt.Append(nil, "endpoint ", i))
		},
		"bindings to one endpoint": func(w *world, i int) {
			w.SaveBinding(time.Hour, fmt.Append(nil, "destination ", i), property, []byte("e"))
		},
	} {
		before, w := heap(), newWorld(0)
		for i := range n {
			save(w, i)
		}
		took := float64(heap() - before)
		if counted := float64(w.Memory().Used); counted < 0.7*took || counted > 1.4*took {
			t.Errorf("%s: got %.0f bytes an entry, the heap has %.0f", name, counted/n, took/n)
		}
		w.Clear()
		w.wantEmpty(t)
		w.told, w.closed, w.ends = nil, nil, nil
		if kept := heap() - before; kept > 100*n/10 {
			t.Errorf("%s: got %d bytes kept after Clear, want nearly none", name, kept)
		}
		runtime.KeepAlive(w)
	}
}

// TestFreed_isCalledWhenMostIsGone drops most of much memory, less than half of it, or most of
// little: by a flush, or by the end of its time.
func TestFreed_isCalledWhenMostIsGone(t *testing.T) {
	t.Parallel()
	const entry = 60_000
	for _, test := range []struct{ before, after, want int }{
		{freedAtLeast - 1<<20, 0, 0},
		{freedAtLeast + 1<<20, 0, 1},
		{3 * freedAtLeast, freedAtLeast, 1},
		{3 * freedAtLeast, 2*freedAtLeast - 1<<20, 0},
		{freedAtLeast * 3 / 2, freedAtLeast * 5 / 8, 0},
	} {
		for name, end := range map[string]func(*world){
			"flushed": func(w *world) { w.Flush([]string{"d"}) },
			"expired": func(w *world) { w.sleep(2 * time.Minute) },
		} {
			freed := 0
			w := newWorldWith(Config{Freed: func() { freed++ }})
			for i := range test.before / entry {
				label, ttl := "d", time.Minute
				if i < test.after/entry {
					label, ttl = "stays", time.Hour
				}
				property := []byte(strings.Repeat("x", entry))
				w.SaveBinding(ttl, []byte(label), property, fmt.Append(nil, "e", i))
			}
			end(w)
			if freed != test.want {
				t.Errorf("%s: got %d calls, want %+v", name, freed, test)
			}
			w.Expire()
			w.takeAll()
			if freed != test.want {
				t.Errorf("%s: got %d calls later, want %+v", name, freed, test)
			}
		}
	}
}
