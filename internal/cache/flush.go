// SPDX-License-Identifier: EPL-2.0

package cache

import "time"

// flushStep bounds how many entries are dropped while the cache is locked: other
// clients are served between two steps.
const flushStep = 500

// Clear drops everything that is in the cache when it begins.
func (c *Cache) Clear() (sessions, bindings int) {
	last := c.lastSequence()
	slot := 0
	c.inSteps(func(_ time.Duration, room int) (done bool) {
		for ; slot < len(c.endpoints.slots); slot++ {
			n := c.endpoints.slots[slot].flush(last, room)
			sessions += n
			if room -= n + 1; room <= 0 {
				return false
			}
		}
		return true
	})
	slot = 0
	c.inSteps(func(_ time.Duration, room int) (done bool) {
		for ; slot < len(c.destinations.slots); slot++ {
			n := c.destinations.slots[slot].flush(last, room)
			bindings += n
			if room -= n + 1; room <= 0 {
				return false
			}
		}
		return true
	})
	return sessions, bindings
}

// Flush drops the entries with one of these labels: the sessions of an endpoint, and
// the bindings of a destination with the sessions that they lead to. It drops only
// what is in the cache when it begins.
func (c *Cache) Flush(labels []string) (sessions, bindings int) {
	last := c.lastSequence()
	for _, label := range labels {
		c.inSteps(func(now time.Duration, room int) (done bool) {
			s, b, done := c.destinations.byLabel[label].flushBound(now, last, room)
			sessions, bindings = sessions+s, bindings+b
			return done
		})
		c.inSteps(func(_ time.Duration, room int) (done bool) {
			n := c.endpoints.byLabel[label].flush(last, room)
			sessions += n
			return n < room
		})
	}
	return sessions, bindings
}

// lastSequence returns the number of the newest entry.
func (c *Cache) lastSequence() uint64 {
	c.lock()
	defer c.unlock()
	return c.sequence
}

// inSteps calls step with the cache locked until it is done. Room is how many entries
// one call may look at.
func (c *Cache) inSteps(step func(now time.Duration, room int) (done bool)) {
	for done := false; !done; {
		now := c.lock()
		done = step(now, flushStep)
		c.unlock()
	}
}

// flush drops up to room sessions that are not newer than last. An endpoint that does
// not exist has none.
func (ep *endpoint) flush(last uint64, room int) (n int) {
	for ; ep != nil && n < room; n++ {
		first := ep.sessions.first
		if first == nil || first.sequence > last {
			return n
		}
		first.entry.drop(Flushed)
	}
	return n
}

// flush drops up to room bindings that are not newer than last.
func (d *destination) flush(last uint64, room int) (n int) {
	for ; d != nil && n < room; n++ {
		first := d.bindings.first
		if first == nil || first.sequence > last {
			return n
		}
		first.entry.drop(Flushed)
	}
	return n
}

// flushBound drops bindings and the sessions that they lead to, up to room of both.
func (d *destination) flushBound(
	now time.Duration, last uint64, room int,
) (sessions, bindings int, done bool) {
	for d != nil && sessions+bindings < room {
		first := d.bindings.first
		if first == nil || first.sequence > last {
			return sessions, bindings, true
		}
		b := first.entry
		if b.deadline > now { // as in a lookup
			n := b.endpoint.flush(last, room-sessions-bindings)
			if sessions += n; sessions+bindings >= room {
				break
			}
		}
		b.drop(Flushed)
		bindings++
	}
	return sessions, bindings, d == nil
}
