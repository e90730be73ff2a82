// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"math"
	"net/netip"
	"slices"
	"time"
)

// serve decides who of those waiting for a receiver gets what, in the order of their
// places:
//
//   - An idle session that a client can use goes to it. If clients before it could not use
//     it and have been passed over for half of their time, it is closed to make room.
//   - A client that will ask for another endpoint next, where a session is idle, is told
//     to go on, and keeps its place.
//   - A client is told to connect if there is room for a connection.
//
// The other idle sessions are closed to make room for the clients that still wait.
func (s *Set) serve(r *receiver, now time.Duration, d *Decisions) {
	if len(r.waiters) == 0 {
		return
	}
	r.prune(now)
	s.pruneDone(r)
	room, isKnown := s.room(r, now)
	tokens := r.tokens()
	if s.promisesStopped {
		room, isKnown, tokens = min(room, 0), false, 0
	}
	idle := r.available()
	excess := max(0, -room)
	blocked, overdue := 0, 0
	waiters := r.waiters[:0]
	for i, c := range r.waiters {
		if idle == 0 && (room <= 0 || tokens <= 0) {
			blocked += len(r.waiters) - i
			waiters = append(waiters, r.waiters[i:]...)
			break
		}
		for overdue > len(r.closes) && idle > 0 {
			e := r.usable(c, now)
			if e == nil {
				break
			}
			s.closeForRoom(r, e, now, d)
			idle--
		}
		if idle > 0 {
			if e := r.usable(c, now); e != nil {
				s.give(r, c, e, now)
				d.Answers = append(d.Answers, Answer{Client: c, Give: e.label})
				idle--
				continue
			}
			if e := r.promptable(c); e != nil {
				s.prompt(r, c, e, now)
				d.Answers = append(d.Answers, Answer{Client: c})
				idle--
				continue
			}
		}
		if room > 0 && tokens > 0 {
			s.connect(r, c, now, d)
			d.Answers = append(d.Answers, Answer{Client: c})
			room--
			tokens--
			if len(r.closes) > 0 {
				r.closes = slices.Delete(r.closes, 0, 1)
			}
			continue
		}
		blocked++
		waiters = append(waiters, c)
		if isKnown && tokens > 0 && now-c.since > (c.until-c.since)/2 {
			overdue++
		}
	}
	clear(r.waiters[len(waiters):])
	if r.waiters = waiters; len(waiters) == 0 {
		delete(s.waiting, r)
		return
	}
	if !isKnown || r.limits.Connections == 0 {
		return
	}
	for need := min(blocked, tokens) + excess - len(r.closes); need > 0 && idle > 0; need-- {
		e := r.oldest(false)
		if e == nil {
			break
		}
		s.closeForRoom(r, e, now, d)
		idle--
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
// the last count is fresh, or it is a little older and tells that the receiver is full.
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

// isFresh reports whether the last count can be relied upon.
func (s *Set) isFresh(now time.Duration) bool {
	if s.estimate {
		return true
	}
	return s.counted && s.covered == len(s.ports) && now-s.countedAt <= countInterval
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
	return r.limits.NewTime + min(r.limits.NewTime/10, maxNewMargin)
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

// breakPromise forgets a promise that no count has shown. The connection may have begun, and
// ended before a count.
func (r *receiver) breakPromise(p *promise) {
	if !p.saved {
		r.state.totals.Refused++
	}
	at := p.at + promiseTime
	if p.done {
		at = p.doneAt
	}
	r.begin(at)
	r.removePromise(p)
}

// pruneDone forgets promises of clients that have connected or will not, if the last
// count began later.
func (s *Set) pruneDone(r *receiver) {
	for i := 0; i < len(r.promises); {
		if p := r.promises[i]; p.done && s.last != nil && p.doneAt < s.last.startedAt {
			r.breakPromise(p)
			continue
		}
		i++
	}
}

// usable returns an endpoint with a session that a client can be given, or nil.
func (r *receiver) usable(c *Client, now time.Duration) *endpoint {
	if !c.byName {
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
		if q == askedUnknown || q == askedFirst && !c.byName || slices.Contains(c.asked, label) {
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

// prompt tells a client that there is none, as it will ask for another endpoint of the
// receiver. It has not waited yet: should the session be gone, it waits on.
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

// nextCount returns when connections may be counted again.
func (s *Set) nextCount() time.Duration {
	switch {
	case s.retryCount > 0:
		return s.retryCount
	case !s.counted || s.covered != len(s.ports):
		return 0
	}
	return s.countedAt + max(s.interval, s.minInterval)
}

// A Snapshot is a list of connections by receiver. It is filled by one goroutine, without
// the lock of its Set.
type Snapshot struct {
	// Ports are the remote ports of the connections to be added.
	Ports []uint16

	// Claimed has the names, as in Shared, of receivers to which connections may be promised
	// when this snapshot is applied, if Config.Shared is set.
	Claimed map[string]bool

	set       *Set
	startedAt time.Duration
	found     map[key]map[uint64]struct{}
}

// Ports returns the remote ports whose connections count.
func (s *Set) Ports() []uint16 {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ports)
}

// Shared is a receiver to which other servers may promise connections, too.
type Shared struct {
	Name     string // the same in each server
	Limit    int    // of connections
	Promised int    // connections that this Set has promised and that no count has shown
}

// Shared returns the receivers that are to be claimed before a count: those for which clients
// wait, or to which connections are promised. A claim may end when none is promised.
func (s *Set) Shared(now time.Duration) (all []Shared) {
	if s == nil {
		return nil
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	for r := range s.promising {
		r.prune(now)
		if len(r.promises) == 0 {
			delete(s.promising, r)
		}
	}
	add := func(r *receiver) {
		if r.limits.Connections > 0 {
			all = append(all, Shared{s.sharedName(r), r.limits.Connections, len(r.promises)})
		}
	}
	for r := range s.waiting {
		add(r)
	}
	for r := range s.promising {
		if _, isWaiting := s.waiting[r]; !isWaiting {
			add(r)
		}
	}
	return all
}

// notePromise remembers that a receiver has promises, for Shared.
func (s *Set) notePromise(r *receiver) {
	if s.config.Shared {
		s.promising[r] = struct{}{}
	}
}

func (s *Set) sharedName(r *receiver) string {
	if r.address.IsValid() {
		return s.name(r) + r.address.String()
	}
	return s.name(r)
}

// NewSnapshot begins a count. The kernel must be asked after this call.
func (s *Set) NewSnapshot(now time.Duration) *Snapshot {
	return &Snapshot{Ports: s.Ports(), set: s, startedAt: now, found: map[key]map[uint64]struct{}{}}
}

// Add adds a connection to a snapshot. The cookie is a number that no other connection
// has.
func (n *Snapshot) Add(remote netip.AddrPort, cookie uint64) {
	s, a := n.set, remote.Addr()
	rule := min(s.matcher.address(a), s.byName(a, n.startedAt))
	byLine := s.known.line(a, n.startedAt)
	if rule = min(rule, s.matcher.any); rule == s.matcher.any && byLine != none {
		rule = none // labels have told that it belongs elsewhere
	}
	n.add(rule, remote, cookie)
	if byLine != rule {
		n.add(byLine, remote, cookie)
	}
}

func (n *Snapshot) add(rule int, remote netip.AddrPort, cookie uint64) {
	if rule == none || !n.set.config.Rules[rule].Limits.limitsConnections() {
		return
	}
	k := n.set.key(rule, remote.Addr())
	if n.found[k] == nil {
		n.found[k] = map[uint64]struct{}{}
	}
	n.found[k][cookie] = struct{}{}
}

// Apply takes a complete snapshot into account, unless a later one has been applied.
func (s *Set) Apply(n *Snapshot, now time.Duration) (d Decisions) {
	if s == nil {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	s.counting = false
	if s.last != nil && n.startedAt < s.last.startedAt {
		s.schedule(now, &d)
		return d
	}
	changed := false
	for k, found := range n.found {
		if r := s.receivers[k]; r != nil {
			changed = s.count(r, found, n) || changed
		}
	}
	if s.last != nil {
		for k := range s.last.found {
			if r := s.receivers[k]; r != nil && n.found[k] == nil {
				changed = s.count(r, nil, n) || changed
			}
		}
	}
	s.last, s.covered, s.retryCount = n, len(n.Ports), 0
	s.counted, s.countedAt = true, now
	s.interval = min(2*s.interval, slowCountInterval)
	if changed {
		s.interval = countInterval
	}
	s.minInterval = countShare * (now - n.startedAt)
	for holder := range s.tentative {
		s.endHold(holder)
	}
	s.applying = n
	for r := range s.waiting {
		s.serve(r, now, &d)
	}
	s.applying = nil
	s.schedule(now, &d)
	return d
}

// count compares the connections to a receiver with those of the snapshot before. Each new
// one keeps a promise, if there is any, and has just begun. Without a promise it is of another
// program, and may have begun at any time since the snapshot before. count reports whether
// there is any change.
func (s *Set) count(r *receiver, found map[uint64]struct{}, n *Snapshot) (changed bool) {
	changed = len(found) != r.open
	isComparable := s.last != nil && s.covered == len(n.Ports)
	for cookie := range found {
		if _, seen := r.seen[cookie]; isComparable && !seen {
			changed = true
			if len(r.promises) > 0 || n.startedAt-s.last.startedAt <= recentCount {
				r.begin(s.now)
			}
			r.keepPromise()
		}
	}
	if r.open, r.seen = len(found), found; changed {
		r.prune(s.now)
	}
	return changed
}

// keepPromise finds the promise that a new connection has kept: one whose client has
// connected by now, as no other connection will keep it. Otherwise it is the oldest one,
// so that the others last longest. If that is a mistake, endPromise corrects it.
func (r *receiver) keepPromise() {
	i := slices.IndexFunc(r.promises, func(p *promise) bool { return p.done })
	switch {
	case i >= 0:
		r.removePromise(r.promises[i])
	case len(r.promises) > 0:
		p := r.promises[0]
		r.promises, r.kept, p.kept = r.promises[1:], append(r.kept, p), true
	}
}

// CountFailed tells that a count has failed. Another one will be asked for.
func (s *Set) CountFailed(now time.Duration) (d Decisions) {
	if s == nil {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	s.counting, s.counted, s.retryCount = false, false, now+slowCountInterval
	s.schedule(now, &d)
	return d
}

// Estimate tells that the kernel does not count connections: from now on they are
// estimated from what clients were told and given, by process.
func (s *Set) Estimate(now time.Duration) (d Decisions) {
	if s == nil {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	s.estimate, s.counting = true, false
	clear(s.tentative)
	for _, r := range s.receivers {
		for _, p := range slices.Concat(r.promises, r.kept) {
			if c := p.client; c != nil && !p.done {
				s.noteHold(c, r, true, &d)
			}
			r.removePromise(p)
		}
		s.serve(r, now, &d)
	}
	s.schedule(now, &d)
	return d
}
