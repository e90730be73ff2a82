// SPDX-License-Identifier: EPL-2.0

package timerwheel

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A timed owner knows when it ended.
type timed struct {
	timer Timer
	end   time.Duration // when it is to, or 0 if it does not run
	ended int
}

func (o *timed) TimerEnded() { o.ended++ }

// TestWheelAsAList has any sequence of calls, and compares with a list of ends: nothing
// ends early, or more than a tick late, or twice.
func TestWheelAsAList(t *testing.T) {
	t.Parallel()
	const tick = 10 * time.Millisecond
	rapid.Check(t, func(r *rapid.T) {
		w, now := New(tick), time.Duration(0)
		owners := make([]timed, rapid.IntRange(1, 6).Draw(r, "timers"))
		for i := range owners {
			owners[i].timer.Owner = &owners[i]
		}
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			o := &owners[rapid.IntRange(0, len(owners)-1).Draw(r, "timer")]
			// Short and long times, as each level of the wheel is one of its own.
			length := time.Duration(rapid.Int64Range(0, 1<<rapid.IntRange(0, 42).Draw(r, "bits")).Draw(r, "time"))
			switch rapid.IntRange(0, 3).Draw(r, "step") {
			case 0:
				o.end = now + length
				w.Start(&o.timer, o.end)
				if o.end == 0 {
					o.end = 1 // it runs
				}
			case 1:
				w.Stop(&o.timer)
				o.end = 0
			default:
				now += length
				w.Advance(now)
			}
			earliest := time.Duration(-1)
			for i := range owners {
				o := &owners[i]
				switch {
				case o.ended > 1 || o.ended > 0 && o.end == 0:
					r.Fatalf("timer %d ended %d times", i, o.ended)
				case o.ended > 0 && o.end > now:
					r.Fatalf("timer %d ended %v early", i, o.end-now)
				case o.ended == 0 && o.end > 0 && now-o.end > tick:
					r.Fatalf("timer %d is %v late", i, now-o.end)
				case o.ended > 0:
					o.ended, o.end = 0, 0
				}
				if o.timer.Running() != (o.end > 0) {
					r.Fatalf("timer %d runs: %v", i, o.timer.Running())
				}
				if o.end > 0 && (earliest < 0 || o.end < earliest) {
					earliest = o.end
				}
			}
			// To come back at Next is in time for the earliest.
			if next, any := w.Next(); any != (earliest >= 0) || any && next > max(earliest, now)+2*tick {
				r.Fatalf("next at %v, %v; the earliest ends at %v", next, any, earliest)
			}
			if nearest := w.Nearest(); (nearest != nil) != (earliest >= 0) {
				r.Fatalf("nearest is %v", nearest)
			}
		}
	})
}
