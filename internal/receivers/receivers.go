// SPDX-License-Identifier: EPL-2.0

// Package receivers keeps limits for receivers: groups of endpoints whose owner counts
// our connections together. It says which endpoints belong to a receiver, how many
// connections there may be, and who waits for one.
//
// A delivery agent asks the cache before it connects: once by destination, and then by
// endpoint for each address. So "not found" means "go on and connect". Where a receiver
// has all the connections that it allows, the answer is delayed: the client waits until
// it gets a session that another agent saves, or until there is room for a connection.
//
// A Set is the state. It makes no system call, reads no clock and starts no goroutine.
// The server tells it what happens, and carries out its [Decisions]:
//
//  1. Each conversation has a [Client].
//  2. find_dest: [Set.Begin], then look into the cache. A hit: [Set.Found]. A miss:
//     [Set.FindDestination].
//  3. find_endp: look into the cache. A hit: [Set.Found]. A miss: [Set.FindEndpoint].
//  4. The verdict is NotFound: answer so. Take: look again, and call [Set.Served]. Wait:
//     answer later. An [Answer] among later decisions says what; if it gives a session,
//     look into the cache for it, and call [Set.Served].
//  5. save_dest: [Set.SaveDestination].
//  6. save_endp: [Set.Save] says whether to keep the session. If so, put it into the
//     cache, and then call [Set.Saved].
//  7. A session leaves the cache without having been found: [Set.Ended]. A session that
//     is to be closed is not there: [Set.NotClosed].
//  8. The client hangs up: [Set.Gone]. Its process ends: [Set.ProcessEnded].
//  9. Decisions have Count set: dump the connections with these [Set.Ports] into a
//     [Set.NewSnapshot], outside of the event loops, and call [Set.Apply]. If that fails,
//     call [Set.CountFailed], or for good, [Set.Estimate].
//  10. Call [Set.Tick] when the time Decisions.Wake has come.
//  11. At a handover, the old process calls [Set.Export], and [Set.ExportClient] for each
//     client. The new one calls [Set.StopPromising], [Set.Restore], then Saved for each
//     session in its cache, then [Set.RestoreClient] for each client, and
//     [Set.StartPromising].
//
// The order matters in two places: a session is in the cache before Saved is called, and
// has left it before Ended is called. Otherwise calls may come in any order from several
// goroutines, as long as those about one Client come one after another. Decisions can be
// carried out late, and some may have been overtaken by then.
//
// What is not configured costs nothing: the methods of a nil Set return at once. An
// endpoint that belongs to no receiver costs a look at its address, and takes no lock.
package receivers

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"scache/internal/histogram"
)

const (
	// promiseTime is how long a client may take to connect, once it has been told so.
	promiseTime = time.Second

	// promptTime is how long a client may take to ask for the endpoint that it is
	// expected to ask for.
	promptTime = 100 * time.Millisecond

	// closeTime is how long a closed connection may take to disappear, before another
	// one is closed instead.
	closeTime = time.Second

	// nextTime is the longest time between two questions of a client that does not
	// connect meanwhile.
	nextTime = 50 * time.Millisecond

	// maxNewMargin bounds what is added to the time within which connections may begin.
	maxNewMargin = 100 * time.Millisecond

	// countInterval is the least time between two counts, and slowCountInterval if the
	// last ones have not changed anything. countShare bounds the share of the time that
	// counting takes.
	countInterval     = 5 * time.Millisecond
	slowCountInterval = 40 * time.Millisecond
	countShare        = 8

	// recentCount is how old a count may be that tells that a receiver is full.
	recentCount = 100 * time.Millisecond

	// smtpPort is counted always, and others when labels have them: up to maxPorts.
	smtpPort = 25
	maxPorts = 32
)

// Config is what a Set needs.
type Config struct {
	Rules Rules

	// Wait is how long a client waits at most.
	Wait time.Duration

	// Waiters bounds how many clients wait for one receiver, if not zero.
	Waiters int

	// FirstPlace is greater than the places that earlier processes have given, so that their
	// clients come first.
	FirstPlace uint64

	// Shared is set if there may be other servers with the same receivers. Then, connections
	// are promised in Apply only, to receivers that are claimed.
	Shared bool

	// Estimate is set if the kernel does not count connections.
	Estimate bool
}

// A Set is the state of all receivers. Its methods are safe for concurrent use. A nil
// Set has no receivers.
type Set struct {
	config   Config
	matcher  *matcher
	known    known
	numHolds atomic.Int64 // the number of entries in holds

	mu              sync.Mutex
	now             time.Duration
	estimate        bool
	rules           []ruleState
	receivers       map[key]*receiver
	waiting         map[*receiver]struct{} // those with waiters
	promising       map[*receiver]struct{} // those with promises, and others
	applying        *Snapshot              // while Apply runs
	promisesStopped bool                   // between StopPromising and StartPromising
	sweepAt         int                    // when receivers without state are removed
	place           uint64                 // of the client that began to wait last
	serial          int                    // of the last client whose process is unknown
	holds           map[int]*receiver      // by process that has a hidden connection
	tentative       map[int]struct{}       // of these, those whose connection is shown if any is
	prompts         []*Client              // in the order of their time

	ports       []uint16
	last        *Snapshot
	covered     int           // how many of the ports it has
	counting    bool          // another one is under way
	counted     bool          // the last count was a success
	countedAt   time.Duration // when
	interval    time.Duration // between counts
	minInterval time.Duration // the same, by what a count costs
	retryCount  time.Duration // after a failure
}

// A key names a receiver: its rule and, for the rule of each other address, that address.
type key struct {
	rule    int
	address netip.Addr
}

// ruleState has the counters of a rule.
type ruleState struct {
	totals Totals
	waited histogram.Histogram
	recent [6]int64      // connections that have begun, by intervals of ten seconds
	slot   time.Duration // the number of the last interval
}

// A receiver is one with its own limits.
type receiver struct {
	key
	limits    Limits
	state     *ruleState
	waiters   []*Client // in the order of their places
	endpoints map[string]*endpoint
	promises  []*promise
	kept      []*promise // whose connections were shown, and whose clients are still at it
	holds     int        // connections that the kernel does not show, in use by clients
	open      int        // connections that the kernel shows
	seen      map[uint64]struct{}
	begun     []time.Duration // the last connections, as many as may begin within NewTime
	closes    []time.Duration // when sessions were closed to make room
}

// An endpoint is a label with idle sessions. It exists while any of its numbers is not
// zero. idle can be negative for a moment, when events come in another order.
type endpoint struct {
	label    string
	hidden   bool // the kernel does not show its connections
	idle     int
	saved    []time.Duration // when, the oldest first
	closing  []time.Duration // when it was decided to close some
	given    int             // sessions that clients were given, and have not got yet
	prompted int             // those that clients are expected to ask for
	missed   bool            // a client did not find what was given to it
}

// A promise is a connection that a client was told to open.
type promise struct {
	receiver *receiver
	client   *Client
	at       time.Duration
	kept     bool // a snapshot has shown it
	done     bool // the client has connected by now, or will not
	doneAt   time.Duration
	saved    bool // the client has connected: it has saved the session
}

// A Client is one connection of an agent to the cache. Its zero value is ready for use.
// It must not be copied, and the fields that are not exported belong to the Set.
type Client struct {
	Owner any // for the server
	PID   int // of the process, or 0 if it is unknown

	active      bool      // there may be something to clean up
	receiver    *receiver // it waits for a connection to it
	label       []byte    // that it asks for while it waits
	address     netip.AddrPort
	hidden      bool
	byName      bool         // it asks by destination
	destination *destination // of this delivery, or nil
	place       uint64
	since       time.Duration
	until       time.Duration
	started     bool // the delivery has its place and its time
	settled     bool // the delivery has waited
	given       *receiver
	givenLabel  string
	prompted    *receiver
	expected    string // the label that it is to ask for
	promptedAt  time.Duration
	asked       []string // labels, in this delivery
	answeredAt  time.Duration
	promise     *promise
	serial      int // instead of PID
}

// A Verdict is what to do about a question.
type Verdict int

// The verdicts.
const (
	NotFound Verdict = iota // answer that there is none
	Take                    // look into the cache again: there is one now
	Wait                    // answer later
)

// Decisions are what the server is to do. The zero value is nothing.
type Decisions struct {
	// Answers are for clients that wait.
	Answers []Answer

	// Close has an endpoint for each session to be closed: the oldest one of it.
	Close []string

	// Watch has processes whose end is to be reported. It may have one twice.
	Watch []int

	// Count asks for a count of connections, now.
	Count bool

	// Wake is when Tick is to be called at the latest, unless it is zero. The earliest
	// one of several counts, until Tick has been called.
	Wake time.Duration
}

// An Answer ends the wait of a client. If Gone was called for it meanwhile, there is
// nothing to do.
type Answer struct {
	Client *Client

	// Give is the endpoint of a session to be given to it. It is empty for "not found".
	Give string
}

// New returns a Set, or nil if there are no rules.
func New(config Config) *Set {
	if len(config.Rules) == 0 {
		return nil
	}
	return &Set{
		config:    config,
		matcher:   newMatcher(config.Rules),
		known:     newKnown(),
		estimate:  config.Estimate,
		place:     config.FirstPlace,
		rules:     make([]ruleState, len(config.Rules)),
		receivers: map[key]*receiver{},
		waiting:   map[*receiver]struct{}{},
		promising: map[*receiver]struct{}{},
		sweepAt:   capacity,
		holds:     map[int]*receiver{},
		tentative: map[int]struct{}{},
		interval:  countInterval,
		ports:     []uint16{smtpPort},
	}
}

// classify returns the receiver to which an endpoint belongs.
func (s *Set) classify(label []byte, now time.Duration) (key, netip.AddrPort, bool) {
	address, hasAddress := endpointAddress(label)
	rule := s.matcher.labelLine(label)
	if hasAddress {
		other := min(s.matcher.address(address.Addr()), s.byName(address.Addr(), now))
		if rule < other {
			s.learnLine(address.Addr(), rule, now)
		}
		rule = min(rule, other, s.matcher.any)
	}
	if rule == none {
		return key{}, netip.AddrPort{}, false
	}
	return s.key(rule, address.Addr()), address, true
}

func (s *Set) key(rule int, address netip.Addr) key {
	if rule != s.matcher.any {
		address = netip.Addr{}
	}
	return key{rule, address}
}

func (s *Set) byName(a netip.Addr, now time.Duration) int {
	if len(s.matcher.hosts) == 0 {
		return none
	}
	return s.known.address(a, now)
}

// learnLine remembers to which receiver an address belongs by a line of its labels, as
// the kernel knows addresses only.
func (s *Set) learnLine(a netip.Addr, rule int, now time.Duration) {
	if s.known.line(a, now+memory/2) != rule {
		s.known.addAddress(s.known.lines, a, knownAddress{rule: rule, until: now + memory}, now)
	}
}

// Receiver returns the name of the receiver to which an endpoint belongs.
func (s *Set) Receiver(now time.Duration, label []byte) (string, bool) {
	if s == nil {
		return "", false
	}
	k, _, found := s.classify(label, now)
	if !found {
		return "", false
	}
	return s.config.Rules[k.rule].Name, true
}

// lock begins an operation. Clocks of several goroutines may be read in another order.
func (s *Set) lock(now time.Duration) time.Duration {
	s.mu.Lock()
	s.now = max(s.now, now)
	return s.now
}

// receiver returns the state of a receiver.
func (s *Set) receiver(k key) *receiver {
	r := s.receivers[k]
	if r != nil {
		return r
	}
	if len(s.receivers) >= s.sweepAt {
		for k, r := range s.receivers {
			if r.isUnused(s.now) {
				delete(s.receivers, k)
			}
		}
		s.sweepAt = max(capacity, 2*len(s.receivers))
	}
	r = &receiver{
		key: k, limits: s.config.Rules[k.rule].Limits, state: &s.rules[k.rule],
		endpoints: map[string]*endpoint{},
	}
	if s.last != nil {
		r.seen = s.last.found[k]
		r.open = len(r.seen)
	}
	s.receivers[k] = r
	return r
}

// isUnused reports whether all of the receiver's state can be forgotten.
func (r *receiver) isUnused(now time.Duration) bool {
	r.prune(now)
	return len(r.waiters)+len(r.endpoints)+len(r.promises)+len(r.kept)+len(r.begun) == 0 &&
		len(r.closes) == 0 && r.holds == 0 && r.open == 0
}

// limitsConnections reports whether clients may have to wait for this receiver.
func (r *receiver) limitsConnections() bool { return r.limits.limitsConnections() }

func (l *Limits) limitsConnections() bool { return l.Connections > 0 || l.New > 0 }

// endpoint returns the state of an endpoint.
func (r *receiver) endpoint(label string, hidden bool) *endpoint {
	e := r.endpoints[label]
	if e == nil {
		e = &endpoint{label: label, hidden: hidden}
		r.endpoints[label] = e
	}
	return e
}

// tidy forgets an endpoint without state.
func (r *receiver) tidy(e *endpoint) {
	if e.idle == 0 && e.given == 0 && e.prompted == 0 && len(e.closing) == 0 {
		delete(r.endpoints, e.label)
	}
}

// addIdle changes the number of idle sessions.
func (r *receiver) addIdle(e *endpoint, n int, now time.Duration) {
	e.idle += n
	if n > 0 {
		e.saved, e.missed = append(e.saved, now), false
	}
	if excess := len(e.saved) - max(e.idle, 0); excess > 0 {
		e.saved = slices.Delete(e.saved, 0, excess)
	}
	r.tidy(e)
}

// available returns how many sessions a client may be given.
func (e *endpoint) available() int {
	if e.missed {
		return 0
	}
	return max(0, e.idle-len(e.closing)-e.prompted)
}

// idle returns the number of sessions in the cache that are not about to be closed.
func (r *receiver) idle() (n int) {
	for _, e := range r.endpoints {
		n += max(0, e.idle-len(e.closing))
	}
	return n
}

// Given returns the endpoint of the session that the client is to take.
func (c *Client) Given() string { return c.givenLabel }

// Begin tells that a client begins another delivery: it asks by destination.
func (s *Set) Begin(c *Client, now time.Duration) (d Decisions) {
	if s == nil || !c.active && s.numHolds.Load() == 0 {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := s.endDelivery(c, now)
	if h := s.endHold(c.holder()); h != nil {
		r = append(r, h)
	}
	s.changed(now, &d, r...)
	return d
}

// endDelivery forgets what a client was about to do, and returns the receivers that may
// have room now.
func (s *Set) endDelivery(c *Client, now time.Duration) (changed []*receiver) {
	c.active = c.PID != 0 && s.holds[c.PID] != nil
	if c.prompted != nil {
		changed = append(changed, c.prompted)
		s.unprompt(c)
	}
	changed = append(changed, s.withdraw(c, now)...)
	if p := c.promise; p != nil {
		p.receiver.endPromise(p, now)
		s.interval = countInterval
		changed = append(changed, p.receiver)
	}
	owner, pid, serial, active := c.Owner, c.PID, c.serial, c.active
	*c = Client{Owner: owner, PID: pid, serial: serial, active: active, asked: c.asked[:0]}
	return changed
}

// withdraw ends the wait of a client. A session that it was given, and that it has not
// got, may go to another one.
func (s *Set) withdraw(c *Client, now time.Duration) (changed []*receiver) {
	if c.receiver != nil {
		s.dequeue(c)
	}
	if r := c.given; r != nil {
		e := r.endpoint(c.givenLabel, c.hidden)
		e.given--
		r.addIdle(e, 1, now)
		c.given = nil
		changed = append(changed, r)
	}
	return changed
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

// FindDestination says what to do about a question by destination, for which the cache
// had nothing.
func (s *Set) FindDestination(c *Client, now time.Duration, label []byte) (Verdict, Decisions) {
	if s == nil {
		return NotFound, Decisions{}
	}
	to, target := s.known.destination(label, now)
	if to == nil {
		var found bool
		if target, found = s.classifyDestination(label, now); !found {
			return NotFound, Decisions{}
		}
		to = s.known.addDestination(label, target, now+memory, now)
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	s.withdraw(c, now)
	s.addPort(destinationPort(label))
	c.active, c.destination = true, to
	return s.ask(c, s.receiver(target), label, netip.AddrPort{}, now)
}

// classifyDestination returns the receiver of a destination that names a host or an
// address, or that has a line of its own.
func (s *Set) classifyDestination(label []byte, now time.Duration) (key, bool) {
	if k, _, found := s.classify(label, now); found && k.rule != s.matcher.any {
		return k, true
	}
	if host, _ := destinationHost(label); host != "" {
		if rule := s.matcher.host(host); rule != none {
			return key{rule: rule}, true
		}
	}
	return key{}, false
}

// FindEndpoint says what to do about a question by endpoint, for which the cache had
// nothing.
func (s *Set) FindEndpoint(c *Client, now time.Duration, label []byte) (Verdict, Decisions) {
	if s == nil {
		return NotFound, Decisions{}
	}
	k, address, found := s.classify(label, now)
	if !found {
		return NotFound, Decisions{}
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := s.receiver(k)
	s.withdraw(c, now)
	s.learnQuestion(c, string(label), now)
	c.active = true
	if c.prompted != nil {
		if c.prompted != r || c.expected != string(label) {
			c.promptedAt = now // it goes on asking
			s.prompts = append(slices.DeleteFunc(s.prompts, func(o *Client) bool { return o == c }), c)
			c.answeredAt = now
			d := Decisions{}
			s.schedule(now, &d)
			return NotFound, d
		}
		// Another client was faster, so this one waits on, in its old place.
		s.unprompt(c)
	}
	return s.ask(c, r, label, address, now)
}

// learnQuestion remembers what agents ask for on behalf of a destination.
func (s *Set) learnQuestion(c *Client, label string, now time.Duration) {
	if c.destination != nil {
		switch {
		case len(c.asked) == 0:
			c.destination.ask(label, askedFirst)
		case now-c.answeredAt <= nextTime:
			c.destination.ask(label, askedNext)
		}
	}
	if len(c.asked) < maxPerDestination {
		c.asked = append(c.asked, label)
	}
}

// ask decides about a question for a receiver.
func (s *Set) ask(c *Client, r *receiver, label []byte, address netip.AddrPort,
	now time.Duration) (Verdict, Decisions) {
	d := Decisions{}
	s.addPort(address.Port())
	c.label, c.address = append(c.label[:0], label...), address
	c.byName = len(c.asked) == 0
	c.hidden = !c.byName && !address.IsValid()
	c.answeredAt = now
	if e := r.usable(c, now); e != nil {
		s.give(r, c, e, now)
		s.schedule(now, &d)
		return Take, d
	}
	if !r.limitsConnections() {
		return NotFound, d
	}
	if c.settled {
		if (c.promise == nil || c.promise.kept) && s.holds[c.holder()] == nil {
			s.connect(r, c, now, &d) // another attempt of this delivery
		}
		s.schedule(now, &d)
		return NotFound, d
	}
	if !c.started {
		s.place++
		c.started, c.place, c.since, c.until = true, s.place, now, now+s.config.Wait
		s.interval = countInterval
	}
	full := s.config.Waiters > 0 && len(r.waiters) >= s.config.Waiters
	s.enqueue(r, c)
	s.serve(r, now, &d)
	if full && c.receiver != nil {
		s.overflow(r, c, now, &d)
	}
	verdict := Wait
	for i, a := range d.Answers {
		if a.Client == c {
			verdict = NotFound
			if a.Give != "" {
				verdict = Take
			}
			d.Answers = slices.Delete(d.Answers, i, i+1)
			break
		}
	}
	s.schedule(now, &d)
	return verdict, d
}

// addPort adds a port to those that are counted.
func (s *Set) addPort(port uint16) {
	if port != 0 && len(s.ports) < maxPorts && !slices.Contains(s.ports, port) {
		s.ports = append(s.ports, port)
	}
}

// enqueue puts a client in its place in the queue.
func (s *Set) enqueue(r *receiver, c *Client) {
	i, _ := slices.BinarySearchFunc(r.waiters, c.place, func(o *Client, place uint64) int {
		return int(int64(o.place - place))
	})
	r.waiters = slices.Insert(r.waiters, i, c)
	c.receiver = r
	s.waiting[r] = struct{}{}
}

// Found tells that a client gets a session that was in the cache, with this label.
func (s *Set) Found(c *Client, now time.Duration, label string) (d Decisions) {
	if s == nil {
		return d
	}
	k, address, found := s.classify([]byte(label), now)
	if !found && !c.active {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	var changed []*receiver
	if found {
		r := s.receiver(k)
		hidden := !address.IsValid()
		r.addIdle(r.endpoint(label, hidden), -1, now)
		s.noteHold(c, r, hidden, &d)
		changed = append(changed, r)
	}
	changed = append(changed, s.settle(c)...)
	s.changed(now, &d, changed...)
	return d
}

// settle notes that a client has a session and will not connect. It returns the receivers
// that may have room now.
func (s *Set) settle(c *Client) (changed []*receiver) {
	if c.prompted != nil {
		changed = append(changed, c.prompted)
		s.unprompt(c)
	}
	if p := c.promise; p != nil {
		p.receiver.removePromise(p)
		changed = append(changed, p.receiver)
		c.promise = nil
	}
	c.active, c.settled = true, true
	return changed
}

// endPromise notes that a client has connected by now, or will not. If no count has shown
// its connection, one may have, and it was taken for the connection of another client:
// then it is that client who has yet to connect. Otherwise the next count tells.
func (r *receiver) endPromise(p *promise, now time.Duration) {
	if p.client.promise = nil; p.kept {
		p.client = nil
		r.removePromise(p)
		return
	}
	p.done, p.doneAt, p.client = true, now, nil
	if last := len(r.kept) - 1; last >= 0 {
		q := r.kept[last]
		r.removePromise(p)
		r.kept = r.kept[:last]
		q.kept, q.at = false, max(q.at, p.at)
		r.addPromise(q)
	}
}

// addPromise adds a promise in the order of their times.
func (r *receiver) addPromise(p *promise) {
	i, _ := slices.BinarySearchFunc(r.promises, p.at, func(o *promise, at time.Duration) int {
		return cmp.Compare(o.at, at)
	})
	r.promises = slices.Insert(r.promises, i, p)
}

func (r *receiver) removePromise(p *promise) {
	is := func(o *promise) bool { return o == p }
	r.promises, r.kept = slices.DeleteFunc(r.promises, is), slices.DeleteFunc(r.kept, is)
	if p.client != nil {
		p.client.promise = nil
	}
}

// Served reports whether a client has got the session that was given to it. If not, it
// waits on, in its old place.
func (s *Set) Served(c *Client, now time.Duration, ok bool) (Verdict, Decisions) {
	d := Decisions{}
	if s == nil {
		return NotFound, d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := c.given
	if r == nil {
		return NotFound, d
	}
	c.given = nil
	e := r.endpoint(c.givenLabel, c.hidden)
	e.given--
	if ok {
		s.noteHold(c, r, e.hidden, &d)
		r.tidy(e)
		s.changed(now, &d, append(s.settle(c), r)...)
		return Take, d
	}
	r.addIdle(e, 1, now)
	if e.idle > 0 {
		e.missed = true // until one is saved
	}
	return s.ask(c, r, slices.Clone(c.label), c.address, now)
}

// SaveDestination tells that a client saves a binding. ttl is how long it stays in the
// cache.
func (s *Set) SaveDestination(c *Client, now, ttl time.Duration, label, text, endpoint []byte) {
	if s == nil {
		return
	}
	s.learnName(text, now)
	k, address, found := s.classify(endpoint, now)
	if !found {
		return
	}
	to := s.known.addDestination(label, k, now+memory, now)
	now = s.lock(now)
	defer s.mu.Unlock()
	s.addPort(address.Port())
	to.bind(endpoint, now+ttl, now)
}

// learnName remembers the name of an address, if it belongs to a receiver.
func (s *Set) learnName(text []byte, now time.Duration) {
	if len(s.matcher.hosts) == 0 {
		return
	}
	name, _ := property(text, "host_name")
	address, _ := property(text, "host_addr")
	a, ok := parseAddress([]byte(address))
	if rule := s.matcher.host(name); ok && rule != none {
		s.known.addAddress(s.known.names, a, knownAddress{rule, name, now + memory}, now)
	}
}

// Save says whether a session that a client saves may be kept, and for how long at most,
// if not zero. If it is kept, Saved must follow when it is in the cache. If not, it is to
// be closed.
func (s *Set) Save(c *Client, now time.Duration, label, text []byte) (keep bool,
	ttl time.Duration, d Decisions) {
	if s == nil {
		return true, 0, d
	}
	k, _, found := s.classify(label, now)
	if !found {
		return true, 0, d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := s.receiver(k)
	tooOld := r.limits.Messages > 0 && messagesCarried(text) >= r.limits.Messages
	if tooOld || r.limits.Idle == 0 && len(r.waiters) == 0 {
		s.changed(now, &d, append(s.endSave(c, now), r)...)
		return false, 0, d
	}
	return true, r.limits.Time, d
}

// endSave notes that a client saves the session that it had.
func (s *Set) endSave(c *Client, now time.Duration) (changed []*receiver) {
	if c.promise != nil {
		c.promise.saved = true
	}
	changed = s.endDelivery(c, now)
	if r := s.endHold(c.holder()); r != nil {
		changed = append(changed, r)
	}
	return changed
}

// Saved tells that a session is in the cache now. c is nil if it was not saved by a
// client of this process, but came with a handover.
func (s *Set) Saved(c *Client, now time.Duration, label string) (d Decisions) {
	if s == nil {
		return d
	}
	k, address, found := s.classify([]byte(label), now)
	if !found {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := s.receiver(k)
	s.addPort(address.Port())
	changed := []*receiver{r}
	if c != nil {
		changed = append(s.endSave(c, now), r)
	}
	r.addIdle(r.endpoint(label, !address.IsValid()), 1, now)
	for _, r := range changed {
		s.serve(r, now, &d)
	}
	for r.limits.Idle >= 0 && r.idle() > r.limits.Idle {
		e := r.oldest(true)
		if e == nil {
			break
		}
		s.close(e, now, &d)
	}
	s.schedule(now, &d)
	return d
}

// Ended tells that a session with this label has left the cache, and that no client has
// got it.
func (s *Set) Ended(now time.Duration, label string) (d Decisions) {
	return s.sessionEvent(now, label, func(r *receiver, e *endpoint, now time.Duration) {
		if len(e.closing) > 0 {
			e.closing = slices.Delete(e.closing, 0, 1)
		}
		r.addIdle(e, -1, now)
		s.interval = countInterval
	})
}

// NotClosed tells that the cache had no session with this label, when it was to be
// closed.
func (s *Set) NotClosed(now time.Duration, label string) (d Decisions) {
	return s.sessionEvent(now, label, func(r *receiver, e *endpoint, now time.Duration) {
		if len(e.closing) > 0 {
			e.closing = slices.Delete(e.closing, 0, 1)
		}
		if e.idle > 0 {
			e.missed = true
		}
		r.tidy(e)
	})
}

func (s *Set) sessionEvent(now time.Duration, label string,
	event func(*receiver, *endpoint, time.Duration)) (d Decisions) {
	if s == nil {
		return d
	}
	k, address, found := s.classify([]byte(label), now)
	if !found {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := s.receiver(k)
	event(r, r.endpoint(label, !address.IsValid()), now)
	s.changed(now, &d, r)
	return d
}

// Gone tells that a client has hung up.
func (s *Set) Gone(c *Client, now time.Duration) (d Decisions) {
	if s == nil || !c.active {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	changed := s.endDelivery(c, now)
	if c.PID == 0 {
		if r := s.endHold(c.holder()); r != nil {
			changed = append(changed, r)
		}
	}
	s.changed(now, &d, changed...)
	return d
}

// ProcessEnded tells that a process is no more.
func (s *Set) ProcessEnded(now time.Duration, pid int) (d Decisions) {
	if s == nil {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	if r := s.endHold(pid); r != nil {
		s.changed(now, &d, r)
	}
	return d
}

// holder is the process of a client, or a number of its own that no process has.
func (c *Client) holder() int {
	if c.PID != 0 {
		return c.PID
	}
	return -c.serial
}

// noteHold notes that a client has a connection that the kernel does not show.
func (s *Set) noteHold(c *Client, r *receiver, hidden bool, d *Decisions) {
	if !hidden && !s.estimate && !s.promisesStopped { // or it is unknown whether the kernel counts
		return
	}
	if c.PID == 0 && c.serial == 0 {
		s.serial++
		c.serial = s.serial
	}
	s.addHold(c.holder(), r)
	if !hidden && !s.estimate {
		s.tentative[c.holder()] = struct{}{}
	}
	c.active = true
	if c.PID != 0 {
		d.Watch = append(d.Watch, c.PID)
	}
}

// addHold notes that a process has such a connection, and no other one.
func (s *Set) addHold(holder int, r *receiver) {
	s.endHold(holder)
	s.holds[holder] = r
	s.numHolds.Add(1)
	r.holds++
}

// endHold notes that a process has no such connection any more.
func (s *Set) endHold(holder int) *receiver {
	r := s.holds[holder]
	if r != nil {
		r.holds--
		s.numHolds.Add(-1)
		delete(s.holds, holder)
		delete(s.tentative, holder)
	}
	return r
}
