// SPDX-License-Identifier: EPL-2.0

package timerwheel

import (
	"math/rand/v2"
	"testing"
	"time"
)

const tick = 10 * time.Millisecond

// item is a timer's owner that remembers when it was told.
type item struct {
	Timer
	clock *time.Duration
	due   time.Duration // when it should end, by the model
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

// TestAgainstModel starts, stops and restarts timers at random, near and far,
// and compares each with what a map of ends would say.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		w := New(tick)
		var now time.Duration
		items := make([]*item, 200)
		for i := range items {
			items[i] = newItem(&now)
		}
		running := map[*item]bool{}
		for range 5000 {
			it := items[r.IntN(len(items))]
			switch r.IntN(4) {
			case 0, 1:
				it.due = now + time.Duration(r.Int64N(1<<(10+r.IntN(38))))
				w.Start(&it.Timer, it.due)
				running[it] = true
			case 2:
				w.Stop(&it.Timer)
				delete(running, it)
			case 3:
				if r.IntN(2) == 0 {
					now += time.Duration(r.Int64N(1 << (10 + r.IntN(36))))
				} else if next, found := w.Next(); found {
					now = max(now, next)
				}
				w.Advance(now)
				for it := range running {
					if late := now - it.due; late >= tick && it.Running() {
						t.Fatalf("seed %d: a timer runs %v after its end", seed, late)
					}
					if !it.Running() {
						if now < it.due || len(it.ended) != 1 {
							t.Fatalf("seed %d: due %v, ended %v", seed, it.due, it.ended)
						}
						it.ended = nil
						delete(running, it)
					}
				}
			}
			for _, it := range items {
				if it.Running() != running[it] || len(it.ended) > 0 {
					t.Fatalf("seed %d: running %v, model says %v; ended %v", seed, it.Running(), running[it], it.ended)
				}
			}
			if _, found := w.Next(); found != (len(running) > 0) {
				t.Fatalf("seed %d: Next finds %v with %d timers", seed, found, len(running))
			}
		}
	}
}

func TestFollowingNextIsNeverEarlyAndAtMostATickLate(t *testing.T) {
	t.Parallel()
	for _, end := range []time.Duration{1, tick, tick + 1, 64 * tick, 65*tick - 1, 2 * time.Second, time.Hour, 1 << 31 * time.Second} {
		w := New(tick)
		var now time.Duration
		it := newItem(&now)
		w.Start(&it.Timer, end)
		wakeups := 0
		for it.Running() {
			next, found := w.Next()
			if !found || next <= now {
				t.Fatalf("end %v: next %v, %v", end, next, found)
			}
			now = next
			w.Advance(now)
			wakeups++
		}
		if now < end || now >= end+tick {
			t.Errorf("end %v: ended at %v", end, now)
		}
		if wakeups > levels {
			t.Errorf("end %v: %d wake-ups", end, wakeups)
		}
	}
}

func TestOwnersMayStartAndStopTimers(t *testing.T) {
	t.Parallel()
	w := New(tick)
	var now time.Duration
	a, b, c := newItem(&now), newItem(&now), newItem(&now)
	// All end with the same tick: whichever comes first stops the other.
	a.then = func() { w.Stop(&b.Timer); w.Start(&c.Timer, now) }
	b.then = func() { w.Stop(&a.Timer); w.Start(&c.Timer, now) }
	w.Start(&a.Timer, time.Second)
	w.Start(&b.Timer, time.Second)
	now = time.Second
	w.Advance(now)
	if len(a.ended)+len(b.ended) != 1 || !c.Running() {
		t.Errorf("ended: a %v, b %v; c runs: %v", a.ended, b.ended, c.Running())
	}
	now += tick
	w.Advance(now)
	if len(c.ended) != 1 {
		t.Errorf("ended: c %v", c.ended)
	}
}

func TestTimeThatGoesBackChangesNothing(t *testing.T) {
	t.Parallel()
	w := New(tick)
	var now time.Duration
	it := newItem(&now)
	w.Advance(time.Minute)
	w.Advance(-time.Minute)
	w.Start(&it.Timer, time.Second)
	if next, _ := w.Next(); next != time.Minute+tick {
		t.Errorf("a timer that ended before now ends at %v", next)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	w := New(tick)
	if got := w.Nearest(); got != nil {
		t.Errorf("an empty wheel has %v", got)
	}
	timers := make([]Timer, 10)
	for i, seconds := range []int{50, 3000, 7, 9, 20, 8, 1000, 6, 400, 10} {
		w.Start(&timers[i], time.Duration(seconds)*time.Second)
	}
	for _, want := range []int{7, 2, 5, 3, 9, 4, 0, 8, 6, 1} {
		got := w.Nearest()
		if got != &timers[want] {
			t.Errorf("timer %d is not the nearest", want)
		}
		w.Stop(got)
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
