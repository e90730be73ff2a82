// SPDX-License-Identifier: EPL-2.0

package cache

import "time"

// A Snapshot is all that a cache held, for another one to go on with: bindings
// and sessions, each kind in an order that keeps the one within a destination or
// an endpoint.
type Snapshot struct {
	Bindings []SavedBinding
	Sessions []SavedSession
	Totals   Totals
}

// A SavedBinding is what SaveBinding takes.
type SavedBinding struct {
	Age                       time.Duration // since it was saved last
	TTL                       time.Duration // what is left of it
	Label, Property, Endpoint string
}

// A SavedSession is what SaveSession takes.
type SavedSession struct {
	Age             time.Duration // since it was saved
	TTL             time.Duration // what is left of it
	Label, Property string
	FD              int
}

// Freeze calls use with all that the cache holds, and lets nothing change meanwhile. If use
// reports that all of it is elsewhere now, the cache is empty afterwards, and the descriptors
// are no longer its own.
func (c *Cache) Freeze(use func(Snapshot) (moved bool)) {
	now := c.lock()
	defer c.unlock()
	if use(c.snapshot(now)) {
		c.forget()
	}
}

func (c *Cache) snapshot(now time.Duration) Snapshot {
	all := Snapshot{
		Bindings: make([]SavedBinding, 0, len(c.bindings)),
		Sessions: make([]SavedSession, 0, c.sessions),
		Totals:   c.total(),
	}
	for _, d := range c.destinations {
		for l := d.bindings.first; l != nil; l = l.next {
			b := l.entry
			all.Bindings = append(all.Bindings, SavedBinding{now - b.saved, b.end - now, d.label, b.property, b.endpoint})
		}
	}
	for _, ep := range c.endpoints {
		for l := ep.sessions.first; l != nil; l = l.next {
			s := l.entry
			all.Sessions = append(all.Sessions, SavedSession{now - s.saved, s.end - now, ep.label, s.property, s.fd})
		}
	}
	return all
}

// forget empties the cache, and closes nothing.
func (c *Cache) forget() {
	ended := len(c.ended)
	c.clearBindings()
	c.ended = c.ended[:ended]
	for _, ep := range c.endpoints {
		for !ep.sessions.empty() {
			ep.sessions.first.entry.remove()
		}
	}
}

// RestoreBinding saves a binding of another cache, unless it was saved here meanwhile,
// and lives longer.
func (c *Cache) RestoreBinding(b SavedBinding) {
	now := c.lock()
	defer c.unlock()
	if b.TTL <= 0 {
		return
	}
	label, property, endpoint := []byte(b.Label), []byte(b.Property), []byte(b.Endpoint)
	if saved := c.binding(label, property, endpoint); saved != nil && saved.end >= now+b.TTL {
		return
	}
	c.saveBinding(now, now-b.Age, b.TTL, label, property, endpoint)
}

// RestoreSession saves a session of another cache, and takes its descriptor
// over.
func (c *Cache) RestoreSession(s SavedSession) {
	now := c.lock()
	defer c.unlock()
	c.totals.TakenOver++
	if s.TTL > 0 {
		c.addSession(now, now-s.Age, s.TTL, []byte(s.Label), []byte(s.Property), s.FD)
	} else {
		c.close(Ended{s.FD, Expired, s.Label, ""})
	}
}
