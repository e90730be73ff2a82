// SPDX-License-Identifier: EPL-2.0

// What limits of receivers need: a certain session, one session less, and lookups that count
// once, although they look twice.

package cache

// FindBound takes the oldest live session of an endpoint out of the cache, if a binding leads
// there from the destination. It is FindDestination for one of its endpoints, except that it
// does not count misses.
func (c *Cache) FindBound(label []byte, endpoint string) (found Session, ok bool) {
	for {
		found, ok = c.takeBound(label, endpoint)
		if !ok || c.confirm(found, &c.stats.Destination, label) {
			return found, ok
		}
	}
}

// FindAgain is FindEndpoint, except that it does not count a miss.
func (c *Cache) FindAgain(label []byte) (found Session, ok bool) {
	return c.findEndpoint(label, 0)
}

// CountMiss counts the miss of a lookup by destination or by endpoint. UncountMiss takes that
// back: the lookup goes on.
func (c *Cache) CountMiss(byDestination bool) {
	c.lock()
	defer c.unlock()
	c.lookups(byDestination).Misses++
}

// UncountMiss takes back the miss that a lookup has just counted.
func (c *Cache) UncountMiss(byDestination bool) {
	c.lock()
	defer c.unlock()
	if l := c.lookups(byDestination); l.Misses > 0 {
		l.Misses--
		return
	}
	// The interval has ended meanwhile, and its statistics are in the totals.
	if byDestination {
		c.totals.Destination.Misses--
	} else {
		c.totals.Endpoint.Misses--
	}
}

func (c *Cache) lookups(byDestination bool) *Lookups {
	if byDestination {
		return &c.stats.Destination
	}
	return &c.stats.Endpoint
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
		if b.deadline <= now || b.endpoint != ep {
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
