// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestFreeze_movesEverything(t *testing.T) {
	t.Parallel()
	from, to := newWorld(0), newWorld(0)
	from.binding(time.Minute, "d", "first", "e")
	from.binding(time.Hour, "d", "second", "e")
	a, b := from.session(time.Minute, "e"), from.session(30*time.Second, "e")
	from.endpoint(t, "unknown")
	from.sleep(20 * time.Second)
	var all Snapshot
	from.Freeze(func(s Snapshot) (moved bool) {
		all = s
		return false
	})
	from.wantSize(t, 1, 1, 2)
	if again := from.takeAll(); !reflect.DeepEqual(again, all) {
		t.Errorf("after a Freeze without a move: got %+v, want %+v", again, all)
	}
	from.wantEmpty(t)
	if from.sleep(time.Hour); len(from.told) > 0 {
		t.Errorf("got %v released, want nothing: it was taken", from.told)
	}

	if got, want := all.Totals, (Totals{Endpoint: Lookups{0, 1}, Saved: 2,
		Peak: Size{1, 1, 2}}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, b := range all.Bindings {
		to.RestoreBinding(b)
	}
	for _, s := range all.Sessions {
		to.RestoreSession(s)
	}
	want := Totals{TakenOver: 2, Peak: Size{1, 1, 2}}
	if got := to.Totals(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	to.sleep(5 * time.Second)
	wantBindings := []ListedBinding{
		{"d", "first", "e", 25 * time.Second, 35 * time.Second},
		{"d", "second", "e", 25 * time.Second, time.Hour - 25*time.Second},
	}
	if got := to.bindings("d"); !slices.Equal(got, wantBindings) {
		t.Errorf("got %+v, want %+v", got, wantBindings)
	}
	wantSessions := []ListedSession{
		{"e", "property 1", 25 * time.Second, 35 * time.Second, fmt.Sprint("fd ", a)},
		{"e", "property 2", 25 * time.Second, 5 * time.Second, fmt.Sprint("fd ", b)},
	}
	if got := to.sessions("e"); !slices.Equal(got, wantSessions) {
		t.Errorf("got %+v, want %+v", got, wantSessions)
	}
	to.sleep(5*time.Second - 1)
	to.wantSize(t, 1, 1, 2)
	to.sleep(1 + precision)
	to.wantClosed(t, b)
	if got := found(t, to.FindDestination, "d"); got.FD != a || got.DestinationProperty != "first" {
		t.Errorf("got %+v, want %d", got, a)
	}
	to.sleep(time.Hour)
	to.wantSize(t, 0, 0, 0)
}

func TestRestore_dropsWhatHasEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.RestoreSession(SavedSession{TTL: 0, Label: "e", FD: 7})
	w.RestoreBinding(SavedBinding{TTL: 0, Label: "d", Endpoint: "e"})
	w.RestoreBinding(SavedBinding{TTL: -1, Label: "d", Endpoint: "e"})
	w.wantSize(t, 0, 0, 0)
	w.wantClosed(t, 7)
	if w.ends[7] != Expired {
		t.Errorf("got reason %d, want %d", w.ends[7], Expired)
	}
}

// TestRestoreBinding_doesNotShortenANewerOne restores a binding that has been saved
// meanwhile: the later of the two ends counts.
func TestRestoreBinding_doesNotShortenANewerOne(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		ttl           time.Duration // of the restored one
		lifetime, age time.Duration
	}{
		{"earlier", 100 * time.Millisecond, 2 * time.Second, 0},
		{"the same", 2 * time.Second, 2 * time.Second, 0},
		{"later", 5 * time.Second, 5 * time.Second, time.Second},
	} {
		w := newWorld(0)
		fd := w.session(10*time.Second, "e")
		w.binding(2*time.Second, "d", "p", "e")
		w.RestoreBinding(SavedBinding{
			Age: time.Second, TTL: test.ttl, Label: "d", Property: "p", Endpoint: "e",
		})
		if got := w.bindings("d"); len(got) != 1 || got[0].Age != test.age {
			t.Errorf("%s: got %+v, want one of age %v", test.name, got, test.age)
		}
		w.sleep(test.lifetime - 1)
		if got := w.destination(t, "d"); got != fd {
			t.Errorf("%s: before its end: got %d, want %d", test.name, got, fd)
		}
		w.session(10*time.Second, "e")
		w.sleep(1)
		if got := w.destination(t, "d"); got != 0 {
			t.Errorf("%s: at its end: got %d, want 0", test.name, got)
		}
	}
}
