// SPDX-License-Identifier: EPL-2.0

// Bindings and sessions that clients save, and sessions that leave the cache.

package receivers

import (
	"slices"
	"time"
)

// SaveDestination is called when a client saves a binding. ttl is how long it stays in the
// cache.
func (s *Set) SaveDestination(c *Client, now, ttl time.Duration, label, text, endpoint []byte) {
	if s == nil {
		return
	}
	s.learnName(text, now)
	k, address, found := s.classify(endpoint, now)
	if !found {
		return
	}
	to := s.known.addDestination(label, k, now+memory, now)
	now = s.lock(now)
	defer s.mu.Unlock()
	s.addPort(address.Port())
	to.bind(endpoint, now+ttl, now)
}

// learnName remembers the name of an address, if it belongs to a receiver.
func (s *Set) learnName(text []byte, now time.Duration) {
	if len(s.matcher.hosts) == 0 {
		return
	}
	name, _ := property(text, "host_name")
	address, _ := property(text, "host_addr")
	a, ok := parseAddress([]byte(address))
	if rule := s.matcher.host(name); ok && rule != none {
		s.known.addAddress(s.known.names, a, knownAddress{rule, name, now + memory}, now)
	}
}

// Save says whether a session that a client saves may be kept, and for how long at most,
// if not zero. If it is kept, Saved must follow when it is in the cache. If not, it is to
// be closed.
func (s *Set) Save(c *Client, now time.Duration, label, text []byte) (keep bool,
	ttl time.Duration, d Decisions) {
	if s == nil {
		return true, 0, d
	}
	k, _, found := s.classify(label, now)
	if !found {
		return true, 0, d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := s.receiver(k)
	tooOld := r.limits.Messages > 0 && messagesCarried(text) >= r.limits.Messages
	if tooOld || r.limits.Idle == 0 && len(r.waiters) == 0 {
		s.changed(now, &d, append(s.endSave(c, now), r)...)
		return false, 0, d
	}
	return true, r.limits.Time, d
}

// endSave notes that a client saves the session that it had.
func (s *Set) endSave(c *Client, now time.Duration) (changed []*receiver) {
	if c.promise != nil {
		c.promise.saved = true
	}
	changed = s.endDelivery(c, now)
	if r := s.endHold(c.holder()); r != nil {
		changed = append(changed, r)
	}
	return changed
}

// Saved is called when a session is in the cache. If it came with a handover, c is nil.
func (s *Set) Saved(c *Client, now time.Duration, label string) (d Decisions) {
	if s == nil {
		return d
	}
	k, address, found := s.classify([]byte(label), now)
	if !found {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := s.receiver(k)
	s.addPort(address.Port())
	changed := []*receiver{r}
	if c != nil {
		changed = append(s.endSave(c, now), r)
	}
	r.addIdle(r.endpoint(label, !address.IsValid()), 1, now)
	for _, r := range changed {
		s.serve(r, now, &d)
	}
	for r.limits.Idle >= 0 && r.idle() > r.limits.Idle {
		e := r.oldest(true)
		if e == nil {
			break
		}
		s.close(e, now, &d)
	}
	s.schedule(now, &d)
	return d
}

// Dropped is called when a session with this label has left the cache, and no client has got
// it.
func (s *Set) Dropped(now time.Duration, label string) (d Decisions) {
	return s.sessionEvent(now, label, func(r *receiver, e *endpoint, now time.Duration) {
		e.endClose()
		r.addIdle(e, -1, now)
		s.interval = countInterval
	})
}

// NotClosed is called when a session with this label was to be closed, and the cache had
// none.
func (s *Set) NotClosed(now time.Duration, label string) (d Decisions) {
	return s.sessionEvent(now, label, func(r *receiver, e *endpoint, now time.Duration) {
		e.endClose()
		if e.idle > 0 {
			e.missed = true
		}
		r.tidy(e)
	})
}

// endClose forgets that a session was to be closed, if any was.
func (e *endpoint) endClose() {
	if len(e.closing) > 0 {
		e.closing = slices.Delete(e.closing, 0, 1)
	}
}

func (s *Set) sessionEvent(now time.Duration, label string,
	event func(*receiver, *endpoint, time.Duration)) (d Decisions) {
	if s == nil {
		return d
	}
	k, address, found := s.classify([]byte(label), now)
	if !found {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := s.receiver(k)
	event(r, r.endpoint(label, !address.IsValid()), now)
	s.changed(now, &d, r)
	return d
}
