// SPDX-License-Identifier: EPL-2.0

// Package timerwheel keeps any number of timers. The cost to start, stop or restart one
// does not depend on how many there are.
//
// The wheel is hierarchical. Level 0 has a slot for each of the next 64 ticks,
// level 1 one for each of the next 64 spans of 64 ticks, and so on. The
// nearer the end of a timer, the finer its slot. When time reaches a slot of a
// higher level, its timers move to lower ones. A bitmap for each level has the
// slots that are in use, so that passing empty ones costs nothing.
//
// The wheel reads no clock and does not sleep. Its owner passes the time in, as a
// duration since some fixed moment, and Next returns when to call Advance. The
// methods are not safe for concurrent use.
package timerwheel

import (
	"math/bits"
	"time"
)

const (
	slotBits = 6
	slots    = 1 << slotBits
	slotMask = slots - 1
	levels   = 8 // 48 bits of ticks: any time.Duration, in milliseconds
)

// A Timer ends at some time. The zero Timer with an Owner is ready to be started;
// most often it is a field of its owner.
type Timer struct {
	Owner Owner

	end        uint64 // tick
	level      uint8
	running    bool
	next, prev *Timer // in the slot, which is a ring
}

// An Owner has a timer. TimerEnded is called when the timer has ended; it may start
// and stop timers of the same wheel.
type Owner interface{ TimerEnded() }

// Running reports whether the timer has been started and has not ended.
func (t *Timer) Running() bool { return t.running }

// A Wheel is a set of running timers.
type Wheel struct {
	tick time.Duration
	now  uint64        // the last tick that passed
	next time.Duration // when the next one will have passed
	used [levels]uint64
	slot [levels][slots]*Timer
}

// New returns an empty wheel with this precision, at least a millisecond: a timer
// ends never early and at most one tick late.
func New(tick time.Duration) *Wheel {
	if tick < time.Millisecond {
		panic("timerwheel: tick below a millisecond")
	}
	return &Wheel{tick: tick, next: tick}
}

// Start makes the timer end at this time. A running timer is restarted. A time
// that has passed ends with the next tick.
func (w *Wheel) Start(t *Timer, end time.Duration) {
	w.Stop(t)
	t.end = w.now + 1
	if ticks := uint64((max(end, 0) + w.tick - 1) / w.tick); ticks > t.end {
		t.end = ticks
	}
	w.insert(t)
}

// Stop stops the timer. If the timer does not run, Stop does nothing.
func (w *Wheel) Stop(t *Timer) {
	if t.running {
		w.remove(t)
	}
}

// Next returns when Advance must be called, and false if no timer runs. At that
// time a timer ends, or some move to a lower level.
func (w *Wheel) Next() (time.Duration, bool) {
	_, _, at, found := w.first()
	return time.Duration(at) * w.tick, found
}

// Advance moves the wheel to this time, and calls the owners of all timers that have
// ended by then, in the order of their ticks.
func (w *Wheel) Advance(now time.Duration) {
	if now < w.next {
		return // the most frequent case: nothing ends between two ticks
	}
	target := uint64(max(now, 0) / w.tick)
	for {
		level, i, at, found := w.first()
		if !found || at > target {
			break
		}
		w.now = at
		for w.slot[level][i] != nil {
			t := w.slot[level][i]
			w.remove(t)
			if t.end > w.now {
				w.insert(t)
			} else {
				t.Owner.TimerEnded()
			}
		}
	}
	w.now = target
	w.next = time.Duration(target+1) * w.tick
}

// first finds the slot that time reaches first, and the tick at which it does.
// All slots in use lie ahead of now, and those of a lower level before those
// of a higher one.
func (w *Wheel) first() (level, i int, at uint64, found bool) {
	for level, used := range w.used {
		if used == 0 {
			continue
		}
		i := bits.TrailingZeros64(used)
		shift := level * slotBits
		at := w.now&^(1<<(shift+slotBits)-1) | uint64(i)<<shift
		return level, i, at, true
	}
	return 0, 0, 0, false
}

// slotOf returns the slot of a running timer.
func (w *Wheel) slotOf(t *Timer) (head **Timer, bit uint64) {
	i := t.end >> (t.level * slotBits) & slotMask
	return &w.slot[t.level][i], 1 << i
}

// insert appends the timer to its slot, so that timers of the same length stay
// in order.
func (w *Wheel) insert(t *Timer) {
	// The highest bit in which its end differs from now gives the level: above it,
	// the two share a slot.
	t.level = uint8((bits.Len64(t.end^w.now) - 1) / slotBits)
	t.running = true
	head, bit := w.slotOf(t)
	if *head == nil {
		*head, t.next, t.prev = t, t, t
	} else {
		t.next, t.prev = *head, (*head).prev
		t.next.prev, t.prev.next = t, t
	}
	w.used[t.level] |= bit
}

func (w *Wheel) remove(t *Timer) {
	head, bit := w.slotOf(t)
	switch {
	case t.next == t:
		*head = nil
		w.used[t.level] &^= bit
	case *head == t:
		*head = t.next
	}
	t.next.prev, t.prev.next = t.prev, t.next
	t.next, t.prev, t.running = nil, nil, false
}

// sample bounds what Nearest costs.
const sample = 64

// Nearest returns the timer that ends first, or nil if none runs. Where more
// than 64 timers share the first slot, and that slot lies some ticks ahead, it
// returns the best of the oldest of them.
func (w *Wheel) Nearest() *Timer {
	level, i, _, found := w.first()
	if !found {
		return nil
	}
	head := w.slot[level][i]
	best := head
	for t, n := head.next, 1; t != head && n < sample; t, n = t.next, n+1 {
		if t.end < best.end {
			best = t
		}
	}
	return best
}
