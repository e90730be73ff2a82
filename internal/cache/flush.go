// SPDX-License-Identifier: EPL-2.0

package cache

// Clear drops everything.
func (c *Cache) Clear() (sessions, bindings int) {
	c.lock()
	defer c.unlock()
	for _, ep := range c.endpoints {
		sessions += ep.drop()
	}
	return sessions, c.clearBindings()
}

// Flush drops what has one of these labels: the sessions of an endpoint, and the
// bindings of a destination with the sessions that they lead to.
func (c *Cache) Flush(labels []string) (sessions, bindings int) {
	now := c.lock()
	defer c.unlock()
	for _, label := range labels {
		if d := c.destinations[label]; d != nil {
			for l := d.bindings.first; l != nil; l = l.next {
				if b := l.entry; b.end > now { // as in firstBound
					sessions += c.endpoints[b.endpoint].drop()
				}
			}
			bindings += d.drop()
		}
		sessions += c.endpoints[label].drop()
	}
	return sessions, bindings
}

func (c *Cache) clearBindings() (n int) {
	for _, d := range c.destinations {
		n += d.drop()
	}
	return n
}

// drop drops all sessions. An endpoint that does not exist has none.
func (ep *endpoint) drop() (n int) {
	for ; ep != nil && !ep.sessions.empty(); n++ {
		ep.sessions.first.entry.drop(Flushed)
	}
	return n
}

func (d *destination) drop() (n int) {
	for ; !d.bindings.empty(); n++ {
		d.bindings.first.entry.drop(Flushed)
	}
	return n
}
