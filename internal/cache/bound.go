// SPDX-License-Identifier: EPL-2.0

// What limits of receivers need: a certain session, and one session less.

package cache

// FindBound takes the oldest live session of an endpoint out of the cache, if a binding leads
// there from the destination. It is FindDestination for one of its endpoints.
func (c *Cache) FindBound(label []byte, endpoint string) (found Session, ok bool) {
	for {
		found, ok = c.takeBound(label, endpoint)
		if !ok || c.confirm(found, &c.stats.Destination, label) {
			return found, ok
		}
	}
}

func (c *Cache) takeBound(label []byte, endpoint string) (found Session, ok bool) {
	now := c.lock()
	defer c.unlock()
	d, ep := c.destinations.byLabel[string(label)], c.endpoints.byLabel[endpoint]
	if d == nil || ep == nil {
		return Session{}, false
	}
	for l := d.bindings.first; l != nil; l = l.next {
		b := l.entry
		if b.end <= now || b.endpoint != ep {
			continue
		}
		if s := ep.oldest(now); s != nil {
			found = s.take(now)
			found.DestinationProperty = b.property
			return found, true
		}
		break // an endpoint that has lost its last session may be gone
	}
	return Session{}, false
}

// EvictOldest drops the oldest session of an endpoint, and reports whether there was one.
func (c *Cache) EvictOldest(label string) bool {
	now := c.lock()
	defer c.unlock()
	s := c.endpoints.byLabel[label].oldest(now)
	if s == nil {
		return false
	}
	s.drop(Evicted)
	return true
}
