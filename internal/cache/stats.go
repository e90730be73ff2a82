// SPDX-License-Identifier: EPL-2.0

package cache

import "scache/internal/histogram"

// Stats counts what happened since the last ResetStats. Counts are 64 bits wide on every
// machine.
type Stats struct {
	Destination, Endpoint Lookups

	// Peaks. They are updated when something is saved: destinations by SaveBinding,
	// sessions by SaveSession, endpoints by both.
	Destinations, Endpoints, Sessions int
}

// Lookups counts lookups that found a session (hits) and the others (misses).
type Lookups struct{ Hits, Misses int64 }

func (s *Stats) sawBinding(destinations, endpoints int) {
	s.Destinations = max(s.Destinations, destinations)
	s.Endpoints = max(s.Endpoints, endpoints)
}

func (s *Stats) sawSession(endpoints, sessions int) {
	s.Endpoints = max(s.Endpoints, endpoints)
	s.Sessions = max(s.Sessions, sessions)
}

// Totals counts what happened since the cache was made.
type Totals struct {
	Destination, Endpoint Lookups
	Saved                 int64          // sessions
	TakenOver             int64          // sessions of another cache
	Dropped               [reasons]int64 // sessions that the cache closed, by reason
	EvictedBindings       int64
	EvictedForMemory      int64            // sessions and bindings; they are counted above, too
	Peak                  Size             // as in Stats
	Waited                histogram.Values // how long sessions were cached until they were found
}

// add adds the statistics of an interval.
func (t *Totals) add(s Stats) {
	t.Destination.add(s.Destination)
	t.Endpoint.add(s.Endpoint)
	t.Peak.Destinations = max(t.Peak.Destinations, s.Destinations)
	t.Peak.Endpoints = max(t.Peak.Endpoints, s.Endpoints)
	t.Peak.Sessions = max(t.Peak.Sessions, s.Sessions)
}

func (l *Lookups) add(more Lookups) {
	l.Hits += more.Hits
	l.Misses += more.Misses
}

// Totals returns the totals.
func (c *Cache) Totals() Totals {
	c.lock()
	defer c.unlock()
	return c.total()
}

func (c *Cache) total() Totals {
	totals := c.totals
	totals.add(c.stats)
	totals.Waited = c.waited.Values()
	return totals
}

// ResetStats returns the statistics and begins new ones. The totals continue.
func (c *Cache) ResetStats() Stats {
	c.lock()
	defer c.unlock()
	stats := c.stats
	c.totals.add(stats)
	c.stats = Stats{}
	return stats
}

// Size is what a cache holds.
type Size struct{ Destinations, Endpoints, Sessions int }

// Size returns what the cache holds now.
func (c *Cache) Size() Size {
	c.lock()
	defer c.unlock()
	return Size{len(c.destinations.byLabel), c.connected, c.sessions}
}

// Limit returns how many sessions the cache may hold.
func (c *Cache) Limit() int {
	c.lock()
	defer c.unlock()
	return c.limit
}
