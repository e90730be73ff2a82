// SPDX-License-Identifier: EPL-2.0

// Package cache keeps open connections by the names of their remote ends, each
// for a limited time.
//
// It has two levels. A destination is the logical name of a place, such as a
// mail domain; an endpoint is the physical one, such as an IP address and a
// port. A binding leads from a destination to an endpoint, and a session is a
// cached connection to an endpoint. Bindings and sessions come with a property,
// for whoever finds them, and with a time to live. Labels and properties are
// opaque, and so are sessions: to the cache a descriptor is a number that it
// must give away or close, exactly once.
//
// The cache reads no clock, sleeps nowhere and knows no system call: all that
// comes in with [Config]. Its methods are safe for concurrent use.
package cache

import (
	"math"
	"sync"
	"time"

	"scache/internal/histogram"
	"scache/internal/timerwheel"
)

// precision is how late, at most, a session is closed after its time to live.
const precision = 32 * time.Millisecond

// Config is what a cache needs from outside. Now, Alarm, Alive and Close are
// required.
type Config struct {
	// TTLLimit bounds the time to live of bindings and sessions, if not zero.
	TTLLimit time.Duration

	// BindingLimit bounds the number of bindings, if not zero.
	BindingLimit int

	// EndpointLimit tells how many sessions an endpoint may have, and for how long at
	// the most, where zero is no limit. It is called with the cache locked. Without
	// it, no endpoint has a limit of its own.
	EndpointLimit func(label string) (sessions int, ttl time.Duration)

	// Now returns the time since some fixed moment.
	Now func() time.Duration

	// Alarm asks for a call of Expire after this time. A later call of Alarm
	// replaces an earlier one. It must not call Expire itself.
	Alarm func(time.Duration)

	// Alive tells whether a session can still be used. It is called without
	// any lock held, and must not block.
	Alive func(fd int) bool

	// Close closes descriptors. It is called without the lock of the cache held, and with
	// everything that one operation has ended.
	Close func([]Ended)
}

// Ended is a session whose descriptor is to be closed, or a binding that is no more,
// without a descriptor.
type Ended struct {
	FD  int // or NoFD
	Why End

	// The labels: of the endpoint of a session, and of the destination of a binding,
	// or by which a dead session was looked up.
	Endpoint, Destination string
}

// NoFD stands for no descriptor.
const NoFD = -1

// End is the reason for which the cache closes a session or drops a binding.
type End int

// The reasons.
const (
	Expired End = iota // its time to live has ended
	Evicted            // it had to make room
	Flushed            // everything was dropped, or what has its label
	Dead               // the remote end has hung up, or said something unasked
	ends
)

// A Cache is the two-level cache. It owns the descriptors of its sessions.
type Cache struct {
	Config

	mu           sync.Mutex
	destinations map[string]*destination
	endpoints    map[string]*endpoint
	bindings     map[bindingKey]*binding
	sessions     int
	limit        int // of sessions
	sessionWheel *timerwheel.Wheel
	bindingWheel *timerwheel.Wheel
	alarm        time.Duration // when Expire is to be called, if alarmSet
	alarmSet     bool
	ended        []Ended // descriptors to be closed once mu is unlocked
	stats        Stats
	totals       Totals
	waited       histogram.Histogram // sessions, before they were found

	freeSessions  pool[session]
	freeEndpoints pool[endpoint]
}

// A Session is a connection that was found. Its descriptor belongs to whoever
// found it.
type Session struct {
	FD                  int
	DestinationProperty string // only if it was found by destination
	Property            string
	Endpoint            string // its label

	waited time.Duration
}

type destination struct {
	label    string
	bindings queue[binding]
}

type endpoint struct {
	label    string
	sessions queue[session]
	number   int // of sessions

	limit int           // of number, if not zero
	ttl   time.Duration // at the most, if not zero
}

// A binding names its endpoint by label: there may be no session for it now,
// and some later.
type binding struct {
	link       link[binding]
	timer      timerwheel.Timer
	saved, end time.Duration
	cache      *Cache
	bindingKey
}

// A bindingKey is what makes a binding the same as another one.
type bindingKey struct {
	destination        *destination
	endpoint, property string
}

type session struct {
	link     link[session]
	timer    timerwheel.Timer
	saved    time.Duration
	end      time.Duration
	cache    *Cache
	endpoint *endpoint
	property string
	fd       int
}

// New returns an empty cache.
func New(config Config) *Cache {
	return &Cache{
		Config:       config,
		destinations: map[string]*destination{},
		endpoints:    map[string]*endpoint{},
		bindings:     map[bindingKey]*binding{},
		limit:        math.MaxInt,
		sessionWheel: timerwheel.New(precision),
		bindingWheel: timerwheel.New(precision),
	}
}

// SetLimit bounds the number of sessions from now on: to what limit returns, and one at the
// least. Those that are too many make room at once. limit is called with the cache locked, so
// that the last call counts.
func (c *Cache) SetLimit(limit func() int) {
	c.lock()
	defer c.unlock()
	c.limit = max(limit(), 1)
	c.evictTo(c.limit)
}

// Evict gives up sessions for the sake of something else that needs descriptors.
func (c *Cache) Evict(n int) {
	c.lock()
	defer c.unlock()
	c.evictTo(c.sessions - n)
}

// evictTo evicts the sessions nearest to their end, until so many are left.
func (c *Cache) evictTo(n int) {
	for c.sessions > max(n, 0) {
		c.sessionWheel.Nearest().Owner.(*session).drop(Evicted)
	}
}

// SaveSession adds a session to an endpoint, and takes its descriptor over. At
// the limit, another one makes room: at that of the endpoint, its oldest one.
func (c *Cache) SaveSession(ttl time.Duration, label, property []byte, fd int) {
	now := c.lock()
	defer c.unlock()
	c.totals.Saved++
	c.addSession(now, now, ttl, label, property, fd)
}

func (c *Cache) addSession(now, saved, ttl time.Duration, label, property []byte, fd int) {
	c.evictTo(c.limit - 1)
	ep := c.endpoints[string(label)]
	if ep == nil {
		ep = c.freeEndpoints.get()
		ep.label = string(label)
		c.endpoints[ep.label] = ep
		if c.EndpointLimit != nil {
			ep.limit, ep.ttl = c.EndpointLimit(ep.label)
		}
	}
	if ep.ttl > 0 {
		ttl = min(ttl, ep.ttl)
	}
	s := c.freeSessions.get()
	s.cache, s.endpoint, s.property, s.fd = c, ep, string(property), fd
	s.link.entry, s.timer.Owner = s, s
	ep.sessions.append(&s.link)
	ep.number++
	c.sessions++
	for ep.limit > 0 && ep.number > ep.limit {
		ep.sessions.first.entry.drop(Evicted)
	}
	s.saved, s.end = saved, c.start(c.sessionWheel, &s.timer, now, ttl)
	c.stats.sawSession(len(c.endpoints), c.sessions)
}

// SaveBinding adds a binding to a destination. If there is one with the same
// endpoint and property, it only restarts its time to live. At the limit, another
// one makes room.
func (c *Cache) SaveBinding(ttl time.Duration, label, property, endpoint []byte) {
	now := c.lock()
	defer c.unlock()
	c.saveBinding(now, now, ttl, label, property, endpoint)
}

func (c *Cache) saveBinding(now, saved, ttl time.Duration, label, property, endpoint []byte) {
	b := c.binding(label, property, endpoint)
	if b != nil && b.end <= now {
		b.drop(Expired)
		b = nil
	}
	if b == nil {
		b = c.addBinding(label, property, endpoint)
	}
	b.saved, b.end = saved, c.start(c.bindingWheel, &b.timer, now, ttl)
	c.stats.sawBinding(len(c.destinations), len(c.endpoints))
}

func (c *Cache) binding(label, property, endpoint []byte) *binding {
	d := c.destinations[string(label)]
	if d == nil {
		return nil
	}
	return c.bindings[bindingKey{destination: d, endpoint: string(endpoint), property: string(property)}]
}

func (c *Cache) addBinding(label, property, endpoint []byte) *binding {
	if c.BindingLimit > 0 && len(c.bindings) >= c.BindingLimit {
		c.totals.EvictedBindings++
		c.bindingWheel.Nearest().Owner.(*binding).drop(Evicted)
	}
	d := c.destinations[string(label)]
	if d == nil {
		d = &destination{label: string(label)}
		c.destinations[d.label] = d
	}
	b := &binding{cache: c, bindingKey: bindingKey{d, string(endpoint), string(property)}}
	b.link.entry, b.timer.Owner = b, b
	d.bindings.append(&b.link)
	c.bindings[b.bindingKey] = b
	return b
}

// FindEndpoint takes the oldest live session of an endpoint out of the cache.
func (c *Cache) FindEndpoint(label []byte) (found Session, ok bool) {
	for {
		found, ok = c.takeEndpoint(label)
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

// confirm tells whether a session that was taken is alive, and a hit. If not, it
// is closed.
func (c *Cache) confirm(s Session, lookups *Lookups, destination []byte) bool {
	if !c.Alive(s.FD) {
		c.lock()
		defer c.unlock()
		c.close(Ended{s.FD, Dead, s.Endpoint, string(destination)})
		return false
	}
	c.waited.Observe(s.waited)
	c.mu.Lock()
	defer c.mu.Unlock()
	lookups.Hits++
	return true
}

func (c *Cache) takeEndpoint(label []byte) (found Session, ok bool) {
	now := c.lock()
	defer c.unlock()
	s := c.oldest(string(label), now)
	if s == nil {
		c.stats.Endpoint.Misses++
		return Session{}, false
	}
	found = Session{FD: s.fd, Property: s.property, Endpoint: s.endpoint.label, waited: now - s.saved}
	s.remove()
	return found, true
}

func (c *Cache) takeDestination(label []byte) (found Session, ok bool) {
	now := c.lock()
	defer c.unlock()
	b, s := c.firstBound(c.destinations[string(label)], now)
	if s == nil {
		c.stats.Destination.Misses++
		return Session{}, false
	}
	found = Session{FD: s.fd, DestinationProperty: b.property, Property: s.property, Endpoint: s.endpoint.label, waited: now - s.saved}
	s.remove()
	return found, true
}

func (c *Cache) firstBound(d *destination, now time.Duration) (*binding, *session) {
	if d == nil {
		return nil, nil
	}
	for l := d.bindings.first; l != nil; l = l.next {
		if b := l.entry; b.end > now {
			if s := c.oldest(b.endpoint, now); s != nil {
				return b, s
			}
		}
	}
	return nil, nil
}

// oldest returns the oldest session of an endpoint. It drops those that have
// ended since the last tick of the wheel.
func (c *Cache) oldest(label string, now time.Duration) *session {
	ep := c.endpoints[label]
	if ep == nil {
		return nil
	}
	for !ep.sessions.empty() {
		s := ep.sessions.first.entry
		if s.end > now {
			return s
		}
		s.drop(Expired)
	}
	return nil
}

// lock begins every operation: it locks the cache, and drops what has ended.
func (c *Cache) lock() (now time.Duration) {
	c.mu.Lock()
	now = c.Now()
	c.sessionWheel.Advance(now)
	c.bindingWheel.Advance(now)
	return now
}

// unlock ends every operation: it unlocks the cache, and only then closes what
// was dropped.
func (c *Cache) unlock() {
	ended := c.ended
	c.ended = nil
	c.mu.Unlock()
	if len(ended) > 0 {
		c.Close(ended)
	}
}
