// SPDX-License-Identifier: EPL-2.0

// "make mutants PKG=internal/timerwheel" has no survivors.

package timerwheel

import (
	"slices"
	"testing"
	"time"
)

const tick = 10 * time.Millisecond

// item is a timer's owner that records when the timer ended.
type item struct {
	Timer
	clock *time.Duration
	ended []time.Duration
	then  func()
}

func newItem(clock *time.Duration) *item {
	it := &item{clock: clock}
	it.Owner = it
	return it
}

func (it *item) TimerEnded() {
	it.ended = append(it.ended, *it.clock)
	if it.then != nil {
		it.then()
	}
}

// TestNext_isInTime advances to each Next: the timer ends never early, at most one tick
// late, and after few steps.
func TestNext_isInTime(t *testing.T) {
	t.Parallel()
	for _, end := range []time.Duration{
		1, tick, tick + 1, 63 * tick, 64 * tick, 65*tick - 1, 64 * 64 * tick, 2 * time.Second,
		time.Hour, 1 << 31 * time.Second,
	} {
		w := New(tick)
		var now time.Duration
		it := newItem(&now)
		w.Start(&it.Timer, end)
		wakeups := 0
		for it.Running() {
			next, found := w.Next()
			if !found || next <= now {
				t.Fatalf("end %v: got next %v, %v", end, next, found)
			}
			now = next
			w.Advance(now)
			wakeups++
		}
		if now < end || now >= end+tick {
			t.Errorf("end %v: got %v", end, now)
		}
		if wakeups > levels {
			t.Errorf("end %v: got %d steps, want at most %d", end, wakeups, levels)
		}
	}
}

func TestAdvance_ownersStartAndStopTimers(t *testing.T) {
	t.Parallel()
	w := New(tick)
	var now time.Duration
	a, b, c := newItem(&now), newItem(&now), newItem(&now)
	// All end with the same tick: the first one stops the other.
	a.then = func() { w.Stop(&b.Timer); w.Start(&c.Timer, now) }
	b.then = func() { w.Stop(&a.Timer); w.Start(&c.Timer, now) }
	w.Start(&a.Timer, time.Second)
	w.Start(&b.Timer, time.Second)
	now = time.Second
	w.Advance(now)
	if len(a.ended)+len(b.ended) != 1 || !c.Running() {
		t.Errorf("got a ended %v, b ended %v, c running %v", a.ended, b.ended, c.Running())
	}
	now += tick
	w.Advance(now)
	if len(c.ended) != 1 {
		t.Errorf("got c ended %v, want once", c.ended)
	}
}

func TestAdvance_backwardsChangesNothing(t *testing.T) {
	t.Parallel()
	w := New(tick)
	var now time.Duration
	it := newItem(&now)
	w.Advance(time.Minute)
	w.Advance(-time.Minute)
	w.Start(&it.Timer, time.Second)
	if next, _ := w.Next(); next != time.Minute+tick {
		t.Errorf("got next %v, want the next tick", next)
	}
}

func TestNearest_inOrderOfEnds(t *testing.T) {
	t.Parallel()
	w := New(tick)
	if got := w.Nearest(); got != nil {
		t.Errorf("empty wheel: got %v, want nil", got)
	}
	timers := make([]Timer, 10)
	for i, seconds := range []int{50, 3000, 7, 9, 20, 8, 1000, 6, 400, 10} {
		w.Start(&timers[i], time.Duration(seconds)*time.Second)
	}
	for _, want := range []int{7, 2, 5, 3, 9, 4, 0, 8, 6, 1} {
		got := w.Nearest()
		if got != &timers[want] {
			t.Errorf("got another timer than %d", want)
		}
		w.Stop(got)
	}
}

// TestNearest_samplesASlot has one timer more in a slot than Nearest looks at.
func TestNearest_samplesASlot(t *testing.T) {
	t.Parallel()
	w := New(tick)
	timers := make([]Timer, sample+1)
	for i := range sample {
		w.Start(&timers[i], (2*slots-1)*tick)
	}
	last := &timers[sample]
	w.Start(last, slots*tick) // the first tick of the same slot
	if got := w.Nearest(); got != &timers[0] {
		t.Error("behind the sample: got another timer than the first one")
	}
	w.Stop(&timers[0])
	if got := w.Nearest(); got != last {
		t.Error("in the sample: got another timer than the last one, which ends first")
	}
}

// TestNew_refusesAShortTick has ticks that would overflow the levels.
func TestNew_refusesAShortTick(t *testing.T) {
	t.Parallel()
	New(time.Millisecond)
	defer func() {
		if recover() == nil {
			t.Error("got a wheel, want a panic")
		}
	}()
	New(time.Millisecond - 1)
}

// TestStart_keepsTheOrderOfEqualEnds starts timers of the same length.
func TestStart_keepsTheOrderOfEqualEnds(t *testing.T) {
	t.Parallel()
	for _, end := range []time.Duration{tick, 100 * tick, 10_000 * tick} {
		w := New(tick)
		var now time.Duration
		var order []*item
		items := make([]*item, 5)
		for i := range items {
			items[i] = newItem(&now)
			items[i].then = func() { order = append(order, items[i]) }
			w.Start(&items[i].Timer, end)
		}
		w.Stop(&items[0].Timer)
		w.Start(&items[1].Timer, end) // restarted: now the last one
		w.Advance(end)
		want := []*item{items[2], items[3], items[4], items[1]}
		if !slices.Equal(order, want) {
			t.Errorf("end %v: got %v, want %v", end, order, want)
		}
	}
}

func BenchmarkRestart(b *testing.B) {
	for name, n := range map[string]int{"1": 1, "100000": 100_000} {
		b.Run(name, func(b *testing.B) {
			w := New(tick)
			timers := make([]Timer, n)
			for i := range timers {
				w.Start(&timers[i], time.Duration(i)*time.Millisecond)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				w.Start(&timers[i%n], time.Duration(i%1000)*tick)
			}
		})
	}
}
