// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"time"

	"scache/internal/timerwheel"
)

// A Snapshot is everything that a cache held, for another cache to continue with.
// The bindings of each destination and the sessions of each endpoint are in the
// order of lookups.
type Snapshot struct {
	Bindings []SavedBinding
	Sessions []SavedSession
	Totals   Totals
}

// A SavedBinding is a binding in a Snapshot.
type SavedBinding struct {
	Age                       time.Duration // since it was saved last
	TTL                       time.Duration // the rest of its time to live
	Label, Property, Endpoint string
}

// A SavedSession is a session in a Snapshot.
type SavedSession struct {
	Age             time.Duration // since it was saved
	TTL             time.Duration // the rest of its time to live
	Label, Property string
	FD              int
}

// Freeze calls use with everything that the cache holds. Nothing changes meanwhile: the cache
// is locked. If use reports that everything has moved to another cache, this one is empty
// afterwards, and no longer owns the descriptors.
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
	for _, d := range c.destinations.slots {
		if d == nil {
			continue
		}
		for l := d.bindings.first; l != nil; l = l.next {
			b := l.entry
			all.Bindings = append(all.Bindings, SavedBinding{
				now - b.saved, b.deadline - now, d.label, b.property, b.endpoint.label,
			})
		}
	}
	for _, ep := range c.endpoints.slots {
		if ep == nil {
			continue
		}
		for l := ep.sessions.first; l != nil; l = l.next {
			s := l.entry
			all.Sessions = append(all.Sessions, SavedSession{
				now - s.saved, s.deadline - now, ep.label, s.property, s.fd,
			})
		}
	}
	return all
}

// forget empties the cache and releases nothing. It does not look at the entries, of which there
// may be many: the next process waits for the end of this one.
func (c *Cache) forget() {
	c.destinations, c.endpoints = newTable[destination](), newTable[endpoint]()
	c.bindings, c.peakBindings = map[bindingKey]*binding{}, 0
	c.sessionWheel, c.bindingWheel = timerwheel.New(precision), timerwheel.New(precision)
	c.sessions, c.connected = 0, 0
	c.memory, c.peakMemory = 0, 0
}

// ReleaseSessions releases sessions of a Snapshot that have left this cache, but have not
// arrived in another one.
func (c *Cache) ReleaseSessions(sessions []SavedSession) {
	c.lock()
	defer c.unlock()
	for _, s := range sessions {
		c.dropped = append(c.dropped, Dropped{FD: s.FD, Why: Flushed})
	}
}

// Expect prepares an empty cache for this number of sessions, which need not be true: then the
// cache does not grow step by step while they are restored.
func (c *Cache) Expect(sessions int) {
	c.lock()
	defer c.unlock()
	if len(c.endpoints.byLabel) == 0 {
		c.endpoints.byLabel = make(map[string]*endpoint, min(sessions, maxExpected))
	}
}

// maxExpected bounds the memory that Expect takes.
const maxExpected = 1 << 16

// RestoreBinding saves a binding of an earlier cache, unless it has been saved here
// meanwhile and lives longer.
func (c *Cache) RestoreBinding(b SavedBinding) {
	now := c.lock()
	defer c.unlock()
	if b.TTL <= 0 {
		return
	}
	label, property, endpoint := []byte(b.Label), []byte(b.Property), []byte(b.Endpoint)
	saved := c.binding(label, property, endpoint)
	if saved != nil && saved.deadline >= now+b.TTL {
		return
	}
	c.saveBinding(now, now-b.Age, b.TTL, label, property, endpoint)
}

// RestoreSession saves a session of an earlier cache and takes ownership of its
// descriptor.
func (c *Cache) RestoreSession(s SavedSession) {
	now := c.lock()
	defer c.unlock()
	c.totals.TakenOver++
	if s.TTL > 0 {
		c.evictForSession(len(s.Label), len(s.Property))
		ep := c.endpoints.byLabel[s.Label]
		if ep == nil {
			ep = c.newEndpoint(s.Label)
		}
		c.addSession(now, now-s.Age, s.TTL, ep, s.Property, s.FD)
	} else {
		c.release(Dropped{FD: s.FD, Why: Expired, Endpoint: s.Label})
	}
}
