// SPDX-License-Identifier: EPL-2.0

package timerwheel

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A timed owner knows whether its timer has ended.
type timed struct {
	timer Timer
	end   time.Duration // when the timer must end, or 0 if it does not run
	ended int
}

func (o *timed) TimerEnded() { o.ended++ }

// TestWheel_asList makes random calls and compares with a list of ends: no timer ends
// early, more than a tick late, or twice.
func TestWheel_asList(t *testing.T) {
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
			// Short and long times, for all levels of the wheel.
			longest := int64(1) << rapid.IntRange(0, 42).Draw(r, "bits")
			length := time.Duration(rapid.Int64Range(0, longest).Draw(r, "time"))
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
					r.Fatalf("timer %d: got %d ends, want at most one", i, o.ended)
				case o.ended > 0 && o.end > now:
					r.Fatalf("timer %d: got its end %v early", i, o.end-now)
				case o.ended == 0 && o.end > 0 && now-o.end > tick:
					r.Fatalf("timer %d: got no end %v late", i, now-o.end)
				case o.ended > 0:
					o.ended, o.end = 0, 0
				}
				if o.timer.Running() != (o.end > 0) {
					r.Fatalf("timer %d: got running %v", i, o.timer.Running())
				}
				if o.end > 0 && (earliest < 0 || o.end < earliest) {
					earliest = o.end
				}
			}
			// Next is in time for the earliest, and not before the next tick.
			next, found := w.Next()
			if found != (earliest >= 0) || found && next > max(earliest, now)+2*tick {
				r.Fatalf("got next %v, %v, want it for %v", next, found, earliest)
			}
			if found && next < now-now%tick {
				r.Fatalf("got next %v, want it after %v", next, now)
			}
			// Nearest is precise to a tick, and to what has passed of it.
			nearest := w.Nearest()
			if (nearest != nil) != (earliest >= 0) {
				r.Fatalf("got nearest %v, want one for %v", nearest, earliest)
			}
			if nearest != nil {
				end := nearest.Owner.(*timed).end
				if end > max(earliest, now)+2*tick {
					r.Fatalf("got nearest %v, want %v", end, earliest)
				}
			}
		}
	})
}
