// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"maps"
	"slices"
	"time"
)

// A ListedBinding is a binding as Bindings saw it.
type ListedBinding struct {
	Destination, Property, Endpoint string
	Age, Left                       time.Duration // since it was saved last, and until it ends
}

// A ListedSession is a session as Sessions saw it.
type ListedSession struct {
	Endpoint, Property string
	Age, Left          time.Duration
	Description        string
}

// Labels returns the labels of all destinations and endpoints, in no order. What
// each of them has is told by Bindings and Sessions, so that the cache goes on
// meanwhile.
func (c *Cache) Labels() (destinations, endpoints []string) {
	c.lock()
	defer c.unlock()
	return slices.Collect(maps.Keys(c.destinations)), slices.Collect(maps.Keys(c.endpoints))
}

// Bindings returns some of those of a destination, in the order in which they are
// looked at: max at the most, after skipping others.
func (c *Cache) Bindings(label string, skip, max int) (list []ListedBinding) {
	now := c.lock()
	defer c.unlock()
	d := c.destinations[label]
	if d == nil {
		return nil
	}
	for b := range d.bindings.some(skip, max) {
		list = append(list, ListedBinding{label, b.property, b.endpoint, now - b.saved, b.end - now})
	}
	return list
}

// Sessions returns some of those of an endpoint, in the order in which they would
// be found, as Bindings does. describe is called while the cache is locked, as
// only then the descriptor is certainly the session's.
func (c *Cache) Sessions(label string, skip, max int, describe func(fd int) string) (list []ListedSession) {
	now := c.lock()
	defer c.unlock()
	ep := c.endpoints[label]
	if ep == nil {
		return nil
	}
	for s := range ep.sessions.some(skip, max) {
		list = append(list, ListedSession{label, s.property, now - s.saved, s.end - now, describe(s.fd)})
	}
	return list
}
