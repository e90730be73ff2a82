// SPDX-License-Identifier: EPL-2.0

// The queue: clients that wait for a connection to a receiver.

package receivers

import (
	"math"
	"slices"
	"time"
)

// enqueue puts a client in its place in the queue.
func (s *Set) enqueue(r *receiver, c *Client) {
	i, _ := slices.BinarySearchFunc(r.waiters, c.place, func(o *Client, place uint64) int {
		return int(int64(o.place - place))
	})
	r.waiters = slices.Insert(r.waiters, i, c)
	c.receiver = r
	s.waiting[r] = struct{}{}
}

// dequeue takes a client out of the queue.
func (s *Set) dequeue(c *Client) {
	r := c.receiver
	if i := slices.Index(r.waiters, c); i >= 0 {
		r.waiters = slices.Delete(r.waiters, i, i+1)
	}
	c.receiver = nil
	if len(r.waiters) == 0 {
		delete(s.waiting, r)
	}
}

// changed serves the clients that wait for these receivers.
func (s *Set) changed(now time.Duration, d *Decisions, changed ...*receiver) {
	for _, r := range changed {
		s.serve(r, now, d)
	}
	s.schedule(now, d)
}

// serve decides which clients get what, in the order of their places:
//
//   - An idle session that a client can use goes to it.
//   - A client that will ask for another endpoint next, where a session is idle, is told
//     to go on, and keeps its place.
//   - A client is told to connect if there is room for a connection.
//   - An idle session is closed to make room if clients before the one that can use it have
//     been passed over for half of their time.
//
// The other idle sessions are closed to make room for the clients that still wait.
func (s *Set) serve(r *receiver, now time.Duration, d *Decisions) {
	if len(r.waiters) == 0 {
		return
	}
	r.prune(now)
	s.pruneDone(r)
	supply := s.supply(r, now)
	excess := max(0, -supply.room)
	waiters := r.waiters[:0]
	for i, c := range r.waiters {
		if supply.isEmpty() {
			waiters = append(waiters, r.waiters[i:]...)
			break
		}
		if !s.serveClient(r, c, &supply, now, d) {
			waiters = append(waiters, c)
		}
	}
	clear(r.waiters[len(waiters):])
	if r.waiters = waiters; len(waiters) == 0 {
		delete(s.waiting, r)
		return
	}
	if !supply.isKnown || r.limits.Connections == 0 {
		return
	}
	need := min(len(waiters), supply.tokens) + excess - len(r.closes)
	for ; need > 0 && supply.idle > 0; need-- {
		e := r.oldest(false)
		if e == nil {
			break
		}
		s.closeForRoom(r, e, now, d)
		supply.idle--
	}
}

// A supply is what there is for the clients that wait for a receiver.
type supply struct {
	idle    int  // sessions
	room    int  // for connections; less than zero if there are too many
	isKnown bool // room is what the kernel says
	tokens  int  // connections that may begin now
	overdue int  // clients that were passed over for half of their time
}

func (s *Set) supply(r *receiver, now time.Duration) supply {
	room, isKnown := s.room(r, now)
	if s.promisesStopped {
		return supply{idle: r.available(), room: min(room, 0)}
	}
	return supply{idle: r.available(), room: room, isKnown: isKnown, tokens: r.tokens()}
}

func (y *supply) isEmpty() bool { return y.idle == 0 && (y.room <= 0 || y.tokens <= 0) }

// serveClient answers a client, if it can, and reports whether it has.
func (s *Set) serveClient(
	r *receiver, c *Client, y *supply, now time.Duration, d *Decisions,
) (answered bool) {
	s.closeForOverdue(r, c, y, now, d)
	if y.idle > 0 {
		if e := r.usable(c, now); e != nil {
			s.give(r, c, e, now)
			d.Answers = append(d.Answers, Answer{Client: c, Give: e.label})
			y.idle--
			return true
		}
		if e := r.promptable(c); e != nil {
			s.prompt(r, c, e, now)
			d.Answers = append(d.Answers, Answer{Client: c})
			y.idle--
			return true
		}
	}
	if y.room > 0 && y.tokens > 0 {
		s.connect(r, c, now, d)
		d.Answers = append(d.Answers, Answer{Client: c})
		y.room--
		y.tokens--
		if len(r.closes) > 0 {
			r.closes = slices.Delete(r.closes, 0, 1)
		}
		return true
	}
	if y.isKnown && y.tokens > 0 && now-c.since > (c.until-c.since)/2 {
		y.overdue++
	}
	return false
}

// closeForOverdue closes idle sessions that this client can use, to make room for clients
// before it that were passed over for too long.
func (s *Set) closeForOverdue(
	r *receiver, c *Client, y *supply, now time.Duration, d *Decisions,
) {
	for y.overdue > len(r.closes) && y.idle > 0 {
		e := r.usable(c, now)
		if e == nil {
			return
		}
		s.closeForRoom(r, e, now, d)
		y.idle--
	}
}

// available returns how many sessions of the receiver clients may be given.
func (r *receiver) available() (n int) {
	for _, e := range r.endpoints {
		n += e.available()
	}
	return n
}

// room returns how many connections there may be more, or less if that is negative. It
// is none or less until the kernel has been asked. It also reports whether that is known:
// the last count is fresh, or it is a little older and shows that the receiver is full.
func (s *Set) room(r *receiver, now time.Duration) (room int, isKnown bool) {
	if r.limits.Connections == 0 {
		return math.MaxInt, true
	}
	room = r.limits.Connections - s.openConnections(r) - len(r.promises)
	if s.isFresh(now) && s.mayPromise(r) {
		return room, true
	}
	return min(room, 0), room <= 0 && s.counted && now-s.countedAt <= recentCount
}

// mayPromise reports whether no other server may promise a connection at the same time.
func (s *Set) mayPromise(r *receiver) bool {
	return !s.config.Shared || s.estimate ||
		s.applying != nil && s.applying.Claimed[s.sharedName(r)]
}

// openConnections returns the number of connections to a receiver, as far as they are
// known.
func (s *Set) openConnections(r *receiver) int {
	n := r.holds
	if !s.estimate {
		n += r.open
	}
	for _, e := range r.endpoints {
		if e.hidden || s.estimate {
			n += max(0, e.idle) + e.given
		}
	}
	return n
}

// tokens returns how many connections may begin now. prune has been called. Promised
// connections count until they have begun, which may take a while.
func (r *receiver) tokens() int {
	if r.limits.New == 0 {
		return math.MaxInt
	}
	return max(0, r.limits.New-len(r.begun)-len(r.promises))
}

// begin notes that a connection has begun.
func (r *receiver) begin(at time.Duration) {
	if r.limits.New > 0 {
		i, _ := slices.BinarySearch(r.begun, at)
		r.begun = slices.Insert(r.begun, i, at)
	}
}

// newTime returns for how long a connection counts that has begun. The remote end may see one
// connection later than another one.
func (r *receiver) newTime() time.Duration {
	return r.limits.NewTime + newMargin
}

// prune forgets what is too old to count.
func (r *receiver) prune(now time.Duration) {
	old := func(interval time.Duration) func(time.Duration) bool {
		return func(at time.Duration) bool { return at+interval <= now }
	}
	r.closes = slices.DeleteFunc(r.closes, old(closeTime))
	for _, e := range r.endpoints {
		if len(e.closing) > 0 {
			e.closing = slices.DeleteFunc(e.closing, old(closeTime))
			r.tidy(e)
		}
	}
	for i := 0; i < len(r.promises); {
		p := r.promises[i]
		if p.at+promiseTime > now {
			i++
			continue
		}
		r.breakPromise(p)
	}
	r.begun = slices.DeleteFunc(r.begun, old(r.newTime()))
}

// usable returns an endpoint with a session that a client can be given, or nil.
func (r *receiver) usable(c *Client, now time.Duration) *endpoint {
	if !c.byDestination {
		if e := r.endpoints[string(c.label)]; e != nil && e.available() > 0 {
			return e
		}
		return nil
	}
	var best *endpoint
	for label, until := range c.destination.bindings {
		if e := r.endpoints[label]; e != nil && until > now && e.available() > 0 {
			best = older(best, e)
		}
	}
	return best
}

// promptable returns an endpoint with an idle session for which a client will ask next,
// or nil.
func (r *receiver) promptable(c *Client) *endpoint {
	if c.destination == nil {
		return nil
	}
	var best *endpoint
	for label, q := range c.destination.next {
		if q == askedUnknown || q == askedFirst && !c.byDestination || slices.Contains(c.asked, label) {
			continue
		}
		if e := r.endpoints[label]; e != nil && e.available() > 0 {
			best = older(best, e)
		}
	}
	return best
}

// oldest returns the endpoint with the oldest idle session, or nil. Sessions that a
// client is expected to ask for are spared, unless all of them count.
func (r *receiver) oldest(all bool) (best *endpoint) {
	for _, e := range r.endpoints {
		if e.available() > 0 || all && e.idle > len(e.closing) {
			best = older(best, e)
		}
	}
	return best
}

// older returns the one of two endpoints that has the older session.
func older(a, b *endpoint) *endpoint {
	if a == nil || b.oldestSaved() < a.oldestSaved() ||
		b.oldestSaved() == a.oldestSaved() && b.label < a.label {
		return b
	}
	return a
}

func (e *endpoint) oldestSaved() time.Duration {
	if i := len(e.closing); i < len(e.saved) {
		return e.saved[i]
	}
	return math.MaxInt64
}

// closeForRoom decides to close a session so that there is room for a connection.
func (s *Set) closeForRoom(r *receiver, e *endpoint, now time.Duration, d *Decisions) {
	r.closes = append(r.closes, now)
	r.state.totals.Closed++
	s.close(e, now, d)
}

func (s *Set) close(e *endpoint, now time.Duration, d *Decisions) {
	e.closing = append(e.closing, now)
	d.Close = append(d.Close, e.label)
	s.interval = countInterval
}

// give reserves a session for a client, which is not in the queue any more.
func (s *Set) give(r *receiver, c *Client, e *endpoint, now time.Duration) {
	s.endWait(r, c, now)
	c.given, c.givenLabel, c.hidden = r, e.label, e.hidden
	e.given++
	r.addIdle(e, -1, now)
	r.state.totals.Given++
}

// endWait notes that a client does not wait any more.
func (s *Set) endWait(r *receiver, c *Client, now time.Duration) {
	c.receiver, c.answeredAt = nil, now
	if c.started && now > c.since {
		r.state.waited.Observe(now - c.since)
	}
}

// prompt tells a client that nothing was found, because it will ask for another endpoint of
// the receiver next. If the session has left the cache by then, the client waits on.
func (s *Set) prompt(r *receiver, c *Client, e *endpoint, now time.Duration) {
	e.prompted++
	c.receiver, c.answeredAt = nil, now
	c.prompted, c.expected, c.promptedAt = r, e.label, now
	s.prompts = append(s.prompts, c)
}

// unprompt ends the expectation that a client asks for another endpoint.
func (s *Set) unprompt(c *Client) {
	if e := c.prompted.endpoints[c.expected]; e != nil {
		e.prompted--
		c.prompted.tidy(e)
	}
	c.prompted, c.expected = nil, ""
	s.prompts = slices.DeleteFunc(s.prompts, func(o *Client) bool { return o == c })
}

// connect notes that a client is told to connect.
func (s *Set) connect(r *receiver, c *Client, now time.Duration, d *Decisions) {
	s.endWait(r, c, now)
	c.settled = true
	r.state.totals.New++
	r.state.countNew(now)
	if s.estimate || c.hidden {
		r.begin(now)
		s.noteHold(c, r, true, d)
		return
	}
	if c.promise != nil {
		c.promise.receiver.removePromise(c.promise)
	}
	c.promise = &promise{receiver: r, client: c, at: now}
	r.addPromise(c.promise)
	s.notePromise(r)
}

// overflow answers a client whose time is over, or for which there is no place in the
// queue: it may connect, although there is no room.
func (s *Set) overflow(r *receiver, c *Client, now time.Duration, d *Decisions) {
	s.dequeue(c)
	s.connect(r, c, now, d)
	d.Answers = append(d.Answers, Answer{Client: c})
	r.state.totals.Overflows++
}

// Tick does what is due: clients whose time is over are answered, and so on.
func (s *Set) Tick(now time.Duration) (d Decisions) {
	if s == nil {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	for len(s.prompts) > 0 && s.prompts[0].promptedAt+promptTime <= now {
		s.lapse(s.prompts[0], now, &d)
	}
	for r := range s.waiting {
		s.serve(r, now, &d)
		for _, c := range slices.Clone(r.waiters) {
			if c.until <= now {
				s.overflow(r, c, now, &d)
			}
		}
		s.serve(r, now, &d) // there is less room now
	}
	s.schedule(now, &d)
	return d
}

// lapse notes that a client has not asked for the endpoint that it was expected to ask
// for. It is likely to connect instead.
func (s *Set) lapse(c *Client, now time.Duration, d *Decisions) {
	r := c.prompted
	c.destination.next[c.expected] = askedUnknown
	s.unprompt(c)
	s.connect(r, c, now, d)
}

// schedule completes decisions: whether to count, and when to call Tick.
func (s *Set) schedule(now time.Duration, d *Decisions) {
	wake := time.Duration(math.MaxInt64)
	count := false
	for r := range s.waiting {
		for _, c := range r.waiters[:1] {
			wake = min(wake, c.until)
		}
		n := len(r.begun) + len(r.promises) - r.limits.New
		if r.limits.New > 0 && n >= 0 && n < len(r.begun) {
			wake = min(wake, r.begun[n]+r.newTime())
		}
		if len(r.promises) > 0 {
			wake = min(wake, r.promises[0].at+promiseTime)
		}
		if len(r.closes) > 0 {
			wake = min(wake, r.closes[0]+closeTime)
		}
		needsCount := r.limits.Connections > 0 || len(r.promises) > 0
		count = count || needsCount && !s.estimate
	}
	if len(s.prompts) > 0 {
		wake = min(wake, s.prompts[0].promptedAt+promptTime)
	}
	if count && !s.counting {
		if at := s.nextCount(); at <= now {
			d.Count, s.counting = true, true
		} else {
			wake = min(wake, at)
		}
	}
	if wake != math.MaxInt64 {
		d.Wake = max(wake, now, 1)
	}
}
