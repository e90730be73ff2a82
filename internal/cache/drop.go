// SPDX-License-Identifier: EPL-2.0

// How entries leave the cache, and when.

package cache

import (
	"container/heap"
	"time"

	"scache/internal/fdpass"
	"scache/internal/timerwheel"
)

// drop takes a session out of the cache. Its descriptor will be released.
func (s *session) drop(why Reason) {
	s.cache.release(Dropped{FD: s.fd, Why: why, Endpoint: s.endpoint.label})
	s.remove()
}

// remove takes a session out of the cache. The caller owns its descriptor.
func (s *session) remove() {
	c, ep := s.cache, s.endpoint
	c.sessionWheel.Stop(&s.timer)
	ep.sessions.remove(&s.link)
	c.sessions--
	c.memory -= sessionCost(len(s.property))
	c.freeSessions.put(s)
	if ep.number--; ep.number == 0 {
		c.connected--
		c.removeIfUnused(ep)
	}
}

// drop takes a binding out of the cache. The sessions of its endpoint stay.
func (b *binding) drop(why Reason) {
	c := b.cache
	if why == Evicted {
		c.totals.EvictedBindings++
	}
	c.dropped = append(c.dropped, Dropped{FD: fdpass.None, Why: why, Destination: b.destination.label})
	b.remove()
}

func (b *binding) remove() {
	c, d, ep := b.cache, b.destination, b.endpoint
	c.bindingWheel.Stop(&b.timer)
	if delete(c.bindings, b.bindingKey); len(c.bindings) == 0 && c.peakBindings > largeTable {
		c.bindings, c.peakBindings = map[bindingKey]*binding{}, 0
	}
	if b.place >= 0 {
		heap.Remove(&d.ready, b.place)
	} else {
		ep.waiting.remove(&b.waits)
	}
	c.memory -= bindingCost(len(b.property))
	if d.bindings.remove(&b.link); d.bindings.empty() {
		c.destinations.remove(d.label, d.slot)
		c.memory -= destinationCost(len(d.label))
	}
	ep.bound--
	c.removeIfUnused(ep)
}

// removeIfUnused removes an endpoint that has neither sessions nor bindings.
func (c *Cache) removeIfUnused(ep *endpoint) {
	if ep.number == 0 && ep.bound == 0 {
		c.endpoints.remove(ep.label, ep.slot)
		c.memory -= endpointCost(len(ep.label))
		c.freeEndpoints.put(ep)
	}
}

// release releases a descriptor when the cache is unlocked.
func (c *Cache) release(e Dropped) {
	c.totals.Dropped[e.Why]++
	c.dropped = append(c.dropped, e)
}

// TimerEnded is for the wheel: the time to live has ended.
func (s *session) TimerEnded() { s.drop(Expired) }

// TimerEnded is for the wheel: the time to live has ended.
func (b *binding) TimerEnded() { b.drop(Expired) }

// start starts or restarts a timer, and returns when it ends.
func (c *Cache) start(
	w *timerwheel.Wheel, t *timerwheel.Timer, now, ttl time.Duration,
) time.Duration {
	if c.config.TTLLimit > 0 {
		ttl = min(ttl, c.config.TTLLimit)
	}
	w.Start(t, now+ttl)
	c.setAlarm(w, now)
	return now + ttl
}

// setAlarm requests a call of Expire when the wheel needs it, unless an earlier one
// is due.
func (c *Cache) setAlarm(w *timerwheel.Wheel, now time.Duration) {
	next, any := w.Next()
	if any && (!c.alarmSet || next < c.alarm) {
		c.alarm, c.alarmSet = next, true
		c.config.Alarm(next - now)
	}
}

// Expire drops all entries whose time to live has ended. It must be called when
// Alarm asked for it, and may be called at any other time.
func (c *Cache) Expire() {
	now := c.lock()
	defer c.unlock()
	c.alarmSet = false
	c.setAlarm(c.sessionWheel, now)
	c.setAlarm(c.bindingWheel, now)
}
