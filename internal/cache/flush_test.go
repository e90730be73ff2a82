// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"fmt"
	"testing"
	"time"
)

func TestClear_dropsEverything(t *testing.T) {
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

func TestFlush_byLabel(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	e1, e2 := w.session(time.Minute, "e"), w.session(time.Minute, "e")
	f, g := w.session(time.Minute, "f"), w.session(time.Minute, "g")
	w.binding(time.Minute, "d", "p", "e")
	w.binding(time.Minute, "d", "q", "g")
	w.binding(time.Minute, "d", "r", "nothing")
	w.binding(time.Minute, "other", "p", "e")
	for _, step := range []struct {
		label              string
		sessions, bindings int
	}{{"f", 1, 0}, {"unknown", 0, 0}, {"d", 3, 3}, {"d", 0, 0}, {"e", 0, 0}} {
		if s, b := w.Flush([]string{step.label}); s != step.sessions || b != step.bindings {
			t.Errorf("got %d sessions and %d bindings, want %+v", s, b, step)
		}
	}
	w.wantSize(t, 1, 0, 0)
	w.wantClosed(t, e1, e2, f, g)
	if got := w.Totals().Dropped[Flushed]; got != 4 {
		t.Errorf("got %d flushed, want 4", got)
	}
}

// TestClear_inSteps drops more than one step does, and nothing that is saved meanwhile.
func TestClear_inSteps(t *testing.T) {
	t.Parallel()
	const n = 3*flushStep + 7
	for name, clear := range map[string]func(*world) (int, int){
		"all":      func(w *world) (int, int) { return w.Clear() },
		"by label": func(w *world) (int, int) { return w.Flush([]string{"d"}) },
	} {
		w := newWorld(0)
		for i := range n {
			endpoint := fmt.Sprint("e", min(i, n/2)) // one session of each, and then many of one
			w.session(time.Minute, endpoint)
			w.binding(time.Minute, "d", "p", endpoint)
			w.binding(time.Minute, "d", "q", endpoint)
		}
		bindings := len(w.bindings("d"))
		steps, release := 0, w.config.Release
		w.config.Release = func(all []Dropped) {
			if release(all); len(all) > flushStep {
				t.Errorf("%s: got %d in one step, want at most %d", name, len(all), flushStep)
			}
			steps++
			w.session(time.Minute, "new")
			w.binding(time.Minute, "d", fmt.Sprint("new ", steps), "new")
		}
		if s, b := clear(w); s != n || b != bindings {
			t.Errorf("%s: got %d and %d, want %d and %d", name, s, b, n, bindings)
		}
		w.wantSize(t, 1, 1, steps)
		if got := len(w.bindings("d")); got != steps {
			t.Errorf("%s: got %d bindings, want %d saved meanwhile", name, got, steps)
		}
	}
}

// TestFlush_allSessionsOfAnEndpoint has as many as one step drops, one less and many more.
func TestFlush_allSessionsOfAnEndpoint(t *testing.T) {
	t.Parallel()
	for _, n := range []int{flushStep - 1, flushStep, 3*flushStep + 1} {
		w := newWorld(0)
		for range n {
			w.session(time.Minute, "e")
		}
		if s, b := w.Flush([]string{"e"}); s != n || b != 0 {
			t.Errorf("got %d sessions and %d bindings, want %d and none", s, b, n)
		}
	}
}

// TestFlush_atTheEndOfBindings flushes a destination whose bindings have just ended: their
// sessions stay, as no lookup would find them, and a step is bounded as ever.
func TestFlush_atTheEndOfBindings(t *testing.T) {
	t.Parallel()
	w := newWorld(0)
	const n = 3 * flushStep
	for i := range n {
		w.binding(time.Second, "d", "p", fmt.Sprint("e", i))
		w.session(time.Minute, fmt.Sprint("e", i))
	}
	w.now += time.Second // without an alarm, between two ticks of the wheel
	release := w.config.Release
	w.config.Release = func(all []Dropped) {
		if release(all); len(all) > flushStep {
			t.Errorf("got %d in one step, want at most %d", len(all), flushStep)
		}
	}
	if s, b := w.Flush([]string{"d"}); s != 0 || b != n {
		t.Errorf("got %d sessions and %d bindings, want none and %d", s, b, n)
	}
	w.wantSize(t, 0, n, n)
}
