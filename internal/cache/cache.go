// SPDX-License-Identifier: EPL-2.0

// Package cache keeps open connections by the names of their remote ends, each
// for a limited time.
//
// It has two levels. A destination is the logical name of a place, such as a
// mail domain; an endpoint is the physical one, such as an IP address and a
// port. A binding leads from a destination to an endpoint, and a session is a
// cached connection to an endpoint. Bindings and sessions come with a property,
// for the client that finds them, and with a time to live. Labels and properties
// are opaque, and so are sessions: to the cache a descriptor is a number that it
// must give away or release, exactly once.
//
// # Order
//
// A lookup by endpoint takes the oldest session. A lookup by destination takes the
// oldest session of the first binding, by age, whose endpoint has one. To find that
// binding without a walk, a destination keeps its bindings in two places:
//
//	destination ──ready──→ binding ──→ endpoint with sessions
//	                       binding ←──waiting── endpoint without sessions
//
// The bindings whose endpoint has sessions are in the destination's heap, ordered
// by age. The others wait at their endpoint. The first session of an endpoint
// moves all bindings that wait there into the heaps of their destinations. When an
// endpoint loses its last session nothing moves: a lookup that meets such a
// binding at the top of a heap moves it back. Each move is paid for by an earlier
// save or lookup, so an endpoint that is found and saved again costs nothing.
//
// # Bounds
//
// Three bounds apply: the number of sessions, the number of bindings, and the
// memory of all entries. When one is reached, the entry with the earliest deadline
// makes room. Only Freeze walks over all entries while the cache is locked.
//
// The cache reads no clock, does not sleep and makes no system calls: it calls the
// functions of [Config] for that. Its methods are safe for concurrent use.
package cache

import (
	"container/heap"
	"math"
	"sync"
	"time"

	"scache/internal/histogram"
	"scache/internal/timerwheel"
)

// precision is how late, at most, a session is released after its time to live.
const precision = 32 * time.Millisecond

// Config is what a cache needs from outside. Now, Alarm, Alive and Release are
// required.
type Config struct {
	// TTLLimit bounds the time to live of bindings and sessions, if not zero.
	TTLLimit time.Duration

	// BindingLimit bounds the number of bindings, if not zero.
	BindingLimit int

	// MemoryLimit bounds the memory of all entries, in bytes, if not zero. What
	// an entry takes is estimated: its strings, and a fixed cost.
	MemoryLimit int64

	// Now returns the time since some fixed moment.
	Now func() time.Duration

	// Alarm requests a call of Expire after this time. A later call of Alarm
	// replaces an earlier one. It must not call Expire itself.
	Alarm func(time.Duration)

	// Alive reports whether a session can still be used. It is called without
	// any lock held, and must not block.
	Alive func(fd int) bool

	// Release takes over the descriptors of sessions that were dropped. It is also called
	// for bindings that were dropped, and without the cache's lock held.
	Release func([]Dropped)

	// Freed, if not nil, is called when the cache has dropped much memory, and most of
	// what it held: then the process can return memory to the system. It is called
	// without the cache's lock held.
	Freed func()
}

// Dropped is a session that the cache has dropped, whose descriptor is to be closed, or a
// binding that it has dropped, without a descriptor.
type Dropped struct {
	FD  int // or fdpass.None
	Why Reason

	// Endpoint is the label of the endpoint of a session. Destination is the label of
	// the destination of a binding, or of a lookup that found a dead session.
	Endpoint, Destination string
}

// Reason is why the cache dropped a session or a binding.
type Reason int

// The reasons.
const (
	Expired Reason = iota // its time to live has ended
	Evicted               // it had to make room
	Flushed               // everything was dropped, or everything with its label
	Dead                  // the remote end has hung up or sent something
	reasons
)

// A Cache is the two-level cache. It owns the descriptors of its sessions.
type Cache struct {
	config Config

	mu           sync.Mutex
	destinations table[destination]
	endpoints    table[endpoint] // with sessions or bindings
	bindings     map[bindingKey]*binding
	peakBindings int // the most bindings since the map was made
	sessions     int // number of sessions
	connected    int // number of endpoints with sessions
	limit        int // of sessions
	memory       int64
	peakMemory   int64  // since Freed was called
	sequence     uint64 // of the newest entry
	sessionWheel *timerwheel.Wheel
	bindingWheel *timerwheel.Wheel
	alarm        time.Duration // when Expire is to be called, if alarmSet
	alarmSet     bool
	dropped      []Dropped // to be released once mu is unlocked
	stats        Stats
	totals       Totals
	waited       histogram.Histogram // how long sessions were in the cache until they were found

	freeSessions  pool[session]
	freeEndpoints pool[endpoint]
}

// A Session is a connection that was found. Its descriptor belongs to the caller.
type Session struct {
	FD                  int
	DestinationProperty string // only if it was found by destination
	Property            string
	Endpoint            string // its label

	waited time.Duration
}

type destination struct {
	label    string
	slot     int
	bindings queue[binding]
	ready    readyHeap // the bindings whose endpoint may have sessions
}

type endpoint struct {
	label    string
	slot     int
	sessions queue[session]
	number   int            // of sessions
	bound    int            // bindings that lead here
	waiting  queue[binding] // those of them that are not ready
}

// A binding is in the heap of its destination or waits at its endpoint.
type binding struct {
	link            link[binding] // in the queue of its destination
	waits           link[binding] // in the queue of its endpoint
	timer           timerwheel.Timer
	saved, deadline time.Duration
	cache           *Cache
	bindingKey
	place int // index in the heap, or -1
}

// A bindingKey identifies a binding.
type bindingKey struct {
	destination *destination
	endpoint    *endpoint
	property    string
}

type session struct {
	link            link[session]
	timer           timerwheel.Timer
	saved, deadline time.Duration
	cache           *Cache
	endpoint        *endpoint
	property        string
	fd              int
}

// New returns an empty cache.
func New(config Config) *Cache {
	return &Cache{
		config:       config,
		destinations: newTable[destination](),
		endpoints:    newTable[endpoint](),
		bindings:     map[bindingKey]*binding{},
		limit:        math.MaxInt,
		sessionWheel: timerwheel.New(precision),
		bindingWheel: timerwheel.New(precision),
	}
}

// TTLLimit returns the bound of the time to live, or zero.
func (c *Cache) TTLLimit() time.Duration { return c.config.TTLLimit }

// SaveSession adds a session to an endpoint and takes ownership of its descriptor.
// At a limit, another one makes room.
func (c *Cache) SaveSession(ttl time.Duration, label, property []byte, fd int) {
	now := c.lock()
	defer c.unlock()
	c.totals.Saved++
	c.evictForSession(len(label), len(property))
	c.addSession(now, now, ttl, c.endpoint(label), string(property), fd)
}

// evictForSession makes room for a session whose label and property have these lengths.
func (c *Cache) evictForSession(label, property int) {
	c.evictTo(c.limit - 1)
	c.evictMemory(sessionCost(property) + endpointCost(label))
}

func (c *Cache) addSession(
	now, saved, ttl time.Duration, ep *endpoint, property string, fd int,
) {
	s := c.freeSessions.get()
	s.cache, s.endpoint, s.property, s.fd = c, ep, property, fd
	s.link.entry, s.timer.Owner = s, s
	c.sequence++
	ep.sessions.append(&s.link, c.sequence)
	if ep.number++; ep.number == 1 {
		c.connected++
		ep.wake()
	}
	c.sessions++
	c.grow(sessionCost(len(property)))
	s.saved, s.deadline = saved, c.start(c.sessionWheel, &s.timer, now, ttl)
	c.stats.sawSession(c.connected, c.sessions)
}

// endpoint returns the endpoint with this label. If there was none, the caller must
// give it a session or a binding.
func (c *Cache) endpoint(label []byte) *endpoint {
	if ep := c.endpoints.byLabel[string(label)]; ep != nil {
		return ep
	}
	return c.newEndpoint(string(label))
}

func (c *Cache) newEndpoint(label string) *endpoint {
	ep := c.freeEndpoints.get()
	ep.label = label
	ep.slot = c.endpoints.add(label, ep)
	c.grow(endpointCost(len(label)))
	return ep
}

// SaveBinding adds a binding to a destination. If there is one with the same
// endpoint and property, it only restarts its time to live. At a limit, another
// one makes room.
func (c *Cache) SaveBinding(ttl time.Duration, label, property, endpoint []byte) {
	now := c.lock()
	defer c.unlock()
	c.saveBinding(now, now, ttl, label, property, endpoint)
}

func (c *Cache) saveBinding(now, saved, ttl time.Duration, label, property, endpoint []byte) {
	b := c.binding(label, property, endpoint)
	if b != nil && b.deadline <= now {
		b.drop(Expired)
		b = nil
	}
	if b == nil {
		b = c.addBinding(label, property, endpoint)
	}
	b.saved, b.deadline = saved, c.start(c.bindingWheel, &b.timer, now, ttl)
	c.stats.sawBinding(len(c.destinations.byLabel), c.connected)
}

func (c *Cache) binding(label, property, endpoint []byte) *binding {
	d, ep := c.destinations.byLabel[string(label)], c.endpoints.byLabel[string(endpoint)]
	if d == nil || ep == nil {
		return nil
	}
	return c.bindings[bindingKey{d, ep, string(property)}]
}

func (c *Cache) addBinding(label, property, endpoint []byte) *binding {
	if c.config.BindingLimit > 0 && len(c.bindings) >= c.config.BindingLimit {
		c.bindingWheel.Nearest().Owner.(*binding).drop(Evicted)
	}
	cost := bindingCost(len(property))
	c.evictMemory(cost + destinationCost(len(label)) + endpointCost(len(endpoint)))
	d := c.destinations.byLabel[string(label)]
	if d == nil {
		d = &destination{label: string(label)}
		d.slot = c.destinations.add(d.label, d)
		c.grow(destinationCost(len(label)))
	}
	key := bindingKey{d, c.endpoint(endpoint), string(property)}
	b := &binding{cache: c, bindingKey: key, place: -1}
	b.link.entry, b.waits.entry, b.timer.Owner = b, b, b
	c.sequence++
	d.bindings.append(&b.link, c.sequence)
	c.bindings[key] = b
	c.peakBindings = max(c.peakBindings, len(c.bindings))
	c.grow(cost)
	b.endpoint.bound++
	if b.endpoint.number > 0 {
		heap.Push(&d.ready, b)
	} else {
		b.endpoint.waiting.append(&b.waits, c.sequence)
	}
	return b
}

// FindEndpoint takes the oldest live session of an endpoint out of the cache.
func (c *Cache) FindEndpoint(label []byte) (found Session, ok bool) {
	return c.findEndpoint(label, 1)
}

// findEndpoint is FindEndpoint. If it finds nothing, it counts this number of misses.
func (c *Cache) findEndpoint(label []byte, misses int64) (found Session, ok bool) {
	for {
		found, ok = c.takeEndpoint(label, misses)
		if !ok || c.confirm(found, &c.stats.Endpoint, nil) {
			return found, ok
		}
	}
}

// FindDestination takes the oldest live session of the first binding that leads
// to one out of the cache. The binding stays.
func (c *Cache) FindDestination(label []byte) (found Session, ok bool) {
	for {
		found, ok = c.takeDestination(label)
		if !ok || c.confirm(found, &c.stats.Destination, label) {
			return found, ok
		}
	}
}

// HasDestination reports whether there are bindings of a destination.
func (c *Cache) HasDestination(label []byte) bool {
	c.lock()
	defer c.unlock()
	return c.destinations.byLabel[string(label)] != nil
}

// confirm reports whether a session that was taken is alive, and counts a hit. A
// dead session is released.
func (c *Cache) confirm(s Session, lookups *Lookups, destination []byte) bool {
	if !c.config.Alive(s.FD) {
		c.lock()
		defer c.unlock()
		c.release(Dropped{s.FD, Dead, s.Endpoint, string(destination)})
		return false
	}
	c.waited.Observe(s.waited)
	c.mu.Lock()
	defer c.mu.Unlock()
	lookups.Hits++
	return true
}

func (c *Cache) takeEndpoint(label []byte, misses int64) (found Session, ok bool) {
	now := c.lock()
	defer c.unlock()
	s := c.endpoints.byLabel[string(label)].oldest(now)
	if s == nil {
		c.stats.Endpoint.Misses += misses
		return Session{}, false
	}
	return s.take(now), true
}

func (c *Cache) takeDestination(label []byte) (found Session, ok bool) {
	now := c.lock()
	defer c.unlock()
	b, s := c.destinations.byLabel[string(label)].first(now)
	if s == nil {
		c.stats.Destination.Misses++
		return Session{}, false
	}
	found = s.take(now)
	found.DestinationProperty = b.property
	return found, true
}

// take removes a session from the cache and returns it.
func (s *session) take(now time.Duration) Session {
	found := Session{
		FD: s.fd, Property: s.property, Endpoint: s.endpoint.label, waited: now - s.saved,
	}
	s.remove()
	return found
}

// first returns the oldest binding whose endpoint has sessions, and the oldest of
// these sessions. It moves bindings that are no longer ready to their endpoints.
func (d *destination) first(now time.Duration) (*binding, *session) {
	for d != nil && len(d.ready) > 0 {
		b := d.ready[0]
		if b.deadline <= now {
			b.drop(Expired)
			continue
		}
		if s := b.endpoint.oldest(now); s != nil {
			return b, s
		}
		heap.Pop(&d.ready)
		b.endpoint.waiting.append(&b.waits, b.link.sequence)
	}
	return nil, nil
}

// wake moves the bindings that wait at an endpoint to their destinations.
func (ep *endpoint) wake() {
	for !ep.waiting.empty() {
		b := ep.waiting.first.entry
		ep.waiting.remove(&b.waits)
		heap.Push(&b.destination.ready, b)
	}
}

// oldest returns the oldest session of an endpoint, or nil. It drops those that
// have ended since the last tick of the wheel.
func (ep *endpoint) oldest(now time.Duration) *session {
	for ep != nil && !ep.sessions.empty() {
		s := ep.sessions.first.entry
		if s.deadline > now {
			return s
		}
		s.drop(Expired)
	}
	return nil
}

// lock begins every operation: it locks the cache, and drops what has ended.
func (c *Cache) lock() (now time.Duration) {
	c.mu.Lock()
	now = c.config.Now()
	c.sessionWheel.Advance(now)
	c.bindingWheel.Advance(now)
	return now
}

// unlock ends every operation: it unlocks the cache, and only then releases what
// was dropped.
func (c *Cache) unlock() {
	dropped := c.dropped
	c.dropped = nil
	freed := c.shrunk()
	c.mu.Unlock()
	if len(dropped) > 0 {
		c.config.Release(dropped)
	}
	if freed {
		c.config.Freed()
	}
}
