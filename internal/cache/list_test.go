// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestList_inOrderOfLookups(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Minute, "d2", "p", "e")
	w.session(time.Minute, "f")
	w.sleep(10 * time.Second)
	w.binding(time.Minute, "d1", "p", "f")
	w.session(time.Hour, "e")
	w.session(time.Minute, "e")
	w.sleep(20 * time.Second)
	wantBindings := []ListedBinding{
		{"d2", "p", "e", 30 * time.Second, 30 * time.Second},
		{"d1", "p", "f", 20 * time.Second, 40 * time.Second},
	}
	bindings, more := w.Bindings(&BindingCursor{}, 9)
	if !slices.Equal(bindings, wantBindings) || more {
		t.Errorf("got %+v, more %v, want %+v", bindings, more, wantBindings)
	}
	wantSessions := []ListedSession{
		{"e", "property 2", 20 * time.Second, 3580 * time.Second, "fd 2"},
		{"e", "property 3", 20 * time.Second, 40 * time.Second, "fd 3"},
		{"f", "property 1", 30 * time.Second, 30 * time.Second, "fd 1"},
	}
	sessions, more := w.Sessions(&SessionCursor{}, 9, remote)
	if !slices.Equal(sessions, wantSessions) || more {
		t.Errorf("got %+v, more %v, want %+v", sessions, more, wantSessions)
	}
	if got, more := w.Bindings(&BindingCursor{}, 1); len(got) != 1 || !more {
		t.Errorf("one of two: got %+v, more %v", got, more)
	}
}

// TestList_isBounded has entries of one label, whose strings take a part of the bytes of one
// step. It is asked for more or for fewer of them.
func TestList_isBounded(t *testing.T) {
	t.Parallel()
	const many, few, size = 8, 3, listBytes / 8
	for _, lengths := range [][3]int{{size - 2, 1, 1}, {1, size - 2, 1}, {1, 1, size - 2}} {
		w := newWorld(0)
		text := func(i, n int) []byte { return bytes.Repeat([]byte{byte(i)}, n) }
		for i := range 2 * many {
			w.SaveBinding(time.Hour, text(1, lengths[0]), text(i, lengths[1]), text(1, lengths[2]))
			w.SaveSession(time.Hour, text(2, lengths[0]), text(i, lengths[1]+lengths[2]), i)
		}
		for max, want := range map[int]int{few: few, 2*many + 1: many} {
			bindings, more := w.Bindings(&BindingCursor{}, max)
			if len(bindings) != want || !more {
				t.Errorf("%v: got %d bindings, more %v, want %d", lengths, len(bindings), more, want)
			}
			var at SessionCursor
			var sessions []ListedSession
			for len(sessions) == 0 { // the first endpoint has bindings only
				sessions, more = w.Sessions(&at, max, remote)
			}
			if len(sessions) != want || !more {
				t.Errorf("%v: got %d sessions, more %v, want %d", lengths, len(sessions), more, want)
			}
		}
	}
}

// TestList_whileEntriesComeAndGo lists in steps and changes the cache between them: what
// stays is listed once and in order.
func TestList_whileEntriesComeAndGo(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		w := newWorld(0)
		for i := range 300 {
			ttl := time.Hour
			if r.IntN(2) == 0 {
				ttl = time.Second * time.Duration(1+r.IntN(20))
			}
			label := fmt.Sprint(r.IntN(40) * r.IntN(2)) // one has many
			w.binding(ttl, label, fmt.Sprint(i), fmt.Sprint("e", i%5))
			w.session(ttl, label)
		}
		type key struct{ label, property string }
		listed, listedSessions := map[key]int{}, map[string]int{}
		var bindingsAt BindingCursor
		var sessionsAt SessionCursor
		last := map[string]int{}
		for more, moreSessions := true, true; more || moreSessions; {
			var bindings []ListedBinding
			bindings, more = w.Bindings(&bindingsAt, 1+r.IntN(9))
			for _, b := range bindings {
				listed[key{b.Destination, b.Property}]++
				n, _ := strconv.Atoi(b.Property)
				if n < last[b.Destination] {
					t.Fatalf("seed %d: got %d of %s after %d",
						seed, n, b.Destination, last[b.Destination])
				}
				last[b.Destination] = n
			}
			var sessions []ListedSession
			sessions, moreSessions = w.Sessions(&sessionsAt, 1+r.IntN(9), remote)
			for _, s := range sessions {
				listedSessions[s.Description]++
			}
			w.sleep(time.Second)
			n := 1000 + r.IntN(1000)
			w.binding(time.Second, fmt.Sprint(r.IntN(60)), fmt.Sprint(n), "e")
			w.session(time.Second, fmt.Sprint(r.IntN(60)))
		}
		for i := range 60 {
			for _, b := range w.bindings(fmt.Sprint(i)) {
				if n := listed[key{b.Destination, b.Property}]; b.Remaining > time.Minute && n != 1 {
					t.Fatalf("seed %d: got %+v %d times, want once", seed, b, n)
				}
			}
			for _, s := range w.sessions(fmt.Sprint(i)) {
				if n := listedSessions[s.Description]; s.Remaining > time.Minute && n != 1 {
					t.Fatalf("seed %d: got %+v %d times, want once", seed, s, n)
				}
			}
		}
		for what, n := range listed {
			if n != 1 {
				t.Fatalf("seed %d: got %+v %d times, want once", seed, what, n)
			}
		}
	}
}

// TestList_looksAtABoundedNumberOfEntries has slots without entries, which a step must
// pass without an end.
func TestList_looksAtABoundedNumberOfEntries(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	const n = 5 * listRoom
	for i := range n {
		w.binding(time.Second+time.Duration(i/(n-1))*time.Hour, fmt.Sprint("d", i), "p", "e0")
		w.session(time.Second+time.Duration(i/(n-1))*time.Hour, fmt.Sprint("e", i))
	}
	w.sleep(2 * time.Second)
	var bindingsAt BindingCursor
	var sessionsAt SessionCursor
	listed := 0
	for step := 1; ; step++ {
		bindings, more := w.Bindings(&bindingsAt, 9)
		sessions, moreSessions := w.Sessions(&sessionsAt, 9, remote)
		if more != moreSessions || len(bindings) != len(sessions) {
			t.Fatalf("step %d: got %v, more %v; %v, more %v",
				step, bindings, more, sessions, moreSessions)
		}
		if listed += len(bindings); more {
			continue
		}
		if listed != 1 || step < n/listRoom {
			t.Errorf("got %d listed in %d steps, want 1 in at least %d",
				listed, step, n/listRoom)
		}
		return
	}
}

func remote(fd int) string { return fmt.Sprint("fd ", fd) }
