// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"maps"
	"slices"
	"time"
)

// A ListedBinding is a binding as List saw it.
type ListedBinding struct {
	Destination, Property, Endpoint string
	Age, Left                       time.Duration // since it was saved last, and until it ends
}

// A ListedSession is a session as List saw it.
type ListedSession struct {
	Endpoint, Property string
	Age, Left          time.Duration
	Description        string
}

// List tells what the cache holds, in the order of the labels and, of each, in
// the order in which it would be found. Meanwhile the cache goes on: it is
// locked while the labels are copied, and then for one label at a time. describe is called under that lock,
// as only then the descriptor is certainly the session's.
func (c *Cache) List(describe func(fd int) string) (bindings []ListedBinding, sessions []ListedSession) {
	c.lock()
	destinations := slices.Collect(maps.Keys(c.destinations))
	endpoints := slices.Collect(maps.Keys(c.endpoints))
	c.unlock()
	slices.Sort(destinations)
	slices.Sort(endpoints)
	for _, label := range destinations {
		bindings = c.listBindings(bindings, label)
	}
	for _, label := range endpoints {
		sessions = c.listSessions(sessions, label, describe)
	}
	return bindings, sessions
}

func (c *Cache) listBindings(list []ListedBinding, label string) []ListedBinding {
	now := c.lock()
	defer c.unlock()
	d := c.destinations[label]
	if d == nil {
		return list
	}
	for l := d.bindings.first; l != nil; l = l.next {
		if b := l.entry; b.end > now {
			list = append(list, ListedBinding{label, b.property, b.endpoint, now - b.saved, b.end - now})
		}
	}
	return list
}

func (c *Cache) listSessions(list []ListedSession, label string, describe func(fd int) string) []ListedSession {
	now := c.lock()
	defer c.unlock()
	ep := c.endpoints[label]
	if ep == nil {
		return list
	}
	for l := ep.sessions.first; l != nil; l = l.next {
		if s := l.entry; s.end > now {
			list = append(list, ListedSession{label, s.property, now - s.saved, s.end - now, describe(s.fd)})
		}
	}
	return list
}
