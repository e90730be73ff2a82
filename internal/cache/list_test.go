// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
)

func TestListTellsWhatWouldBeFound(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	w.binding(time.Minute, "d2", "p", "e")
	w.session(time.Minute, "f")
	w.sleep(10 * time.Second)
	w.binding(time.Minute, "d1", "p", "f")
	w.session(time.Hour, "e")
	w.session(time.Minute, "e")
	w.sleep(20 * time.Second)
	destinations, endpoints := w.Labels()
	slices.Sort(destinations)
	slices.Sort(endpoints)
	var bindings []ListedBinding
	for _, label := range append(destinations, "unknown") {
		bindings = append(bindings, w.Bindings(label, 0, 9)...)
	}
	var sessions []ListedSession
	for _, label := range append(endpoints, "unknown") {
		sessions = append(sessions, w.Sessions(label, 0, 9, func(fd int) string { return fmt.Sprint("fd ", fd) })...)
	}
	wantBindings := []ListedBinding{
		{"d1", "p", "f", 20 * time.Second, 40 * time.Second},
		{"d2", "p", "e", 30 * time.Second, 30 * time.Second},
	}
	wantSessions := []ListedSession{
		{"e", "property 2", 20 * time.Second, 3580 * time.Second, "fd 2"},
		{"e", "property 3", 20 * time.Second, 40 * time.Second, "fd 3"},
		{"f", "property 1", 30 * time.Second, 30 * time.Second, "fd 1"},
	}
	if !reflect.DeepEqual(bindings, wantBindings) || !reflect.DeepEqual(sessions, wantSessions) {
		t.Errorf("got %+v\n%+v", bindings, sessions)
	}
}

func TestFlushByLabel(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	e1, e2, f, g := w.session(time.Minute, "e"), w.session(time.Minute, "e"), w.session(time.Minute, "f"), w.session(time.Minute, "g")
	w.binding(time.Minute, "d", "p", "e")
	w.binding(time.Minute, "d", "q", "g")
	w.binding(time.Minute, "d", "r", "nothing")
	w.binding(time.Minute, "other", "p", "e")
	for _, step := range []struct {
		label              string
		sessions, bindings int
	}{{"f", 1, 0}, {"unknown", 0, 0}, {"d", 3, 3}, {"d", 0, 0}, {"e", 0, 0}} {
		if s, b := w.Flush([]string{step.label}); s != step.sessions || b != step.bindings {
			t.Errorf("flush %s: %d sessions and %d bindings", step.label, s, b)
		}
	}
	w.wantSize(t, 1, 0, 0)
	w.wantClosed(t, e1, e2, f, g)
	if w.Totals().Ended[Flushed] != 4 {
		t.Errorf("%+v", w.Totals())
	}
}

// TestWhatIsReusedIsEmpty has more sessions come and go than a pool keeps.
func TestWhatIsReusedIsEmpty(t *testing.T) {
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

func TestTotalsGoOnWhenStatisticsBeginAnew(t *testing.T) {
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
