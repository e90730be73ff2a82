// SPDX-License-Identifier: EPL-2.0

// Bounds: of the number of sessions, and of the memory of all entries.

package cache

import "unsafe"

// The fixed memory of an entry, without its strings: the value itself, its place in a
// map or a heap, and what the allocator adds.
const (
	mapEntry = 48

	fixedSession     = int64(unsafe.Sizeof(session{})) + 16
	fixedEndpoint    = int64(unsafe.Sizeof(endpoint{})) + mapEntry + 16
	fixedBinding     = int64(unsafe.Sizeof(binding{})) + 2*mapEntry + 16
	fixedDestination = int64(unsafe.Sizeof(destination{})) + mapEntry + 32
)

func sessionCost(property int) int64 { return fixedSession + stringCost(property) }

func endpointCost(label int) int64 { return fixedEndpoint + stringCost(label) }

func bindingCost(property int) int64 { return fixedBinding + stringCost(property) }

func destinationCost(label int) int64 { return fixedDestination + stringCost(label) }

// stringCost returns nearly the memory that the allocator uses for a string of length n.
func stringCost(n int) int64 { return (int64(n) + 15) &^ 15 }

// Memory is the memory of the entries of a cache, in bytes.
type Memory struct {
	Used  int64
	Limit int64 // or zero
}

// Memory returns the memory that the entries use now.
func (c *Cache) Memory() Memory {
	c.lock()
	defer c.unlock()
	return Memory{c.memory, c.config.MemoryLimit}
}

// SetLimit sets the bound of the number of sessions to the result of limit, or to one if
// that is less. It evicts sessions above the bound at once. It calls limit with the cache
// locked, so that concurrent calls leave the newest value.
func (c *Cache) SetLimit(limit func() int) {
	c.lock()
	defer c.unlock()
	c.limit = max(limit(), 1)
	c.evictTo(c.limit)
}

// Evict drops n sessions, to make descriptors available for something else.
func (c *Cache) Evict(n int) {
	c.lock()
	defer c.unlock()
	c.evictTo(c.sessions - n)
}

// evictTo evicts the sessions nearest to their end, until n are left.
func (c *Cache) evictTo(n int) {
	for c.sessions > max(n, 0) {
		c.sessionWheel.Nearest().Owner.(*session).drop(Evicted)
	}
}

// evictMemory evicts the entries nearest to their end, until there is room for a
// new one or nothing is left.
func (c *Cache) evictMemory(needed int64) {
	limit := c.config.MemoryLimit
	for limit > 0 && c.memory+needed > limit {
		e := c.nearest()
		if e == nil {
			return
		}
		c.totals.EvictedForMemory++
		e.drop(Evicted)
	}
}

// nearest returns the session or the binding that ends first, or nil.
func (c *Cache) nearest() interface{ drop(Reason) } {
	st, bt := c.sessionWheel.Nearest(), c.bindingWheel.Nearest()
	switch {
	case st == nil && bt == nil:
		return nil
	case st == nil:
		return bt.Owner.(*binding)
	case bt == nil || st.Owner.(*session).deadline <= bt.Owner.(*binding).deadline:
		return st.Owner.(*session)
	}
	return bt.Owner.(*binding)
}

// grow counts the memory of an entry.
func (c *Cache) grow(cost int64) {
	c.memory += cost
	c.peakMemory = max(c.peakMemory, c.memory)
}

// freedAtLeast is how much memory must have become garbage before Freed is called.
const freedAtLeast = 8 << 20

// shrunk reports whether Freed must be called: the cache has dropped at least half of
// its memory, and at least freedAtLeast.
func (c *Cache) shrunk() bool {
	if c.memory > c.peakMemory/2 || c.peakMemory-c.memory < freedAtLeast {
		return false
	}
	c.peakMemory = c.memory
	return c.config.Freed != nil
}
