// SPDX-License-Identifier: EPL-2.0

// How what is in the cache ends.

package cache

import (
	"time"

	"scache/internal/timerwheel"
)

// remove takes a session out of the cache, all but its descriptor. An endpoint
// without sessions does not exist.
func (s *session) remove() {
	c, ep := s.cache, s.endpoint
	c.sessionWheel.Stop(&s.timer)
	ep.sessions.remove(&s.link)
	ep.number--
	c.sessions--
	c.freeSessions.put(s)
	if ep.sessions.empty() {
		delete(c.endpoints, ep.label)
		c.freeEndpoints.put(ep)
	}
}

// drop takes a session out of the cache. Its descriptor will be closed.
func (s *session) drop(why End) {
	s.cache.close(Ended{s.fd, why, s.endpoint.label, ""})
	s.remove()
}

// close has a descriptor closed once the cache is unlocked.
func (c *Cache) close(e Ended) {
	c.totals.Ended[e.Why]++
	c.ended = append(c.ended, e)
}

// drop takes a binding out of the cache. The sessions of its endpoint stay.
func (b *binding) drop(why End) {
	c := b.cache
	c.ended = append(c.ended, Ended{FD: NoFD, Why: why, Destination: b.destination.label})
	c.bindingWheel.Stop(&b.timer)
	delete(c.bindings, b.bindingKey)
	b.destination.bindings.remove(&b.link)
	if b.destination.bindings.empty() {
		delete(c.destinations, b.destination.label)
	}
}

// TimerEnded is for the wheel: the time to live has ended.
func (s *session) TimerEnded() { s.drop(Expired) }

// TimerEnded is for the wheel: the time to live has ended.
func (b *binding) TimerEnded() { b.drop(Expired) }

// start starts or restarts a timer, and returns when it ends.
func (c *Cache) start(w *timerwheel.Wheel, t *timerwheel.Timer, now, ttl time.Duration) time.Duration {
	if c.TTLLimit > 0 {
		ttl = min(ttl, c.TTLLimit)
	}
	w.Start(t, now+ttl)
	c.setAlarm(w, now)
	return now + ttl
}

// setAlarm asks for a call of Expire when the wheel wants it, unless there will
// be one by then.
func (c *Cache) setAlarm(w *timerwheel.Wheel, now time.Duration) {
	next, any := w.Next()
	if any && (!c.alarmSet || next < c.alarm) {
		c.alarm, c.alarmSet = next, true
		c.Alarm(next - now)
	}
}

// Expire drops all whose time to live has ended. It is to be called when Alarm
// said so, and does no harm at any other time.
func (c *Cache) Expire() {
	now := c.lock()
	defer c.unlock()
	c.alarmSet = false
	c.setAlarm(c.sessionWheel, now)
	c.setAlarm(c.bindingWheel, now)
}
