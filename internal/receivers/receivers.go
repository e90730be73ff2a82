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
//  7. A session leaves the cache without having been found: [Set.Dropped]. A session that
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
// has left it before Dropped is called. Otherwise calls may come in any order from several
// goroutines, as long as those about one Client come one after another. Decisions can be
// carried out late, and some may have been overtaken by then.
//
// What is not configured costs nothing: the methods of a nil Set return at once. An
// endpoint that belongs to no receiver costs a look at its address, and takes no lock.
package receivers

import (
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

	// newMargin is added to the time within which connections may begin.
	newMargin = 100 * time.Millisecond

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
	promising       map[*receiver]struct{} // those with promises; some may have none any more
	applying        *Snapshot              // while Apply runs
	promisesStopped bool                   // between StopPromising and StartPromising
	sweepAt         int                    // the number of receivers at which unused ones are removed
	place           uint64                 // of the client that began to wait last
	serial          int                    // of the last client whose process is unknown
	holds           map[int]*receiver      // by process that has a hidden connection
	tentative       map[int]struct{}       // of these, those whose connection is shown if any is
	prompts         []*Client              // in the order of their time

	ports       []uint16
	last        *Snapshot
	covered     int           // how many of the ports the last snapshot has
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

// A receiver is the state of a receiver: what is known of the connections to its endpoints.
type receiver struct {
	key
	limits    Limits
	state     *ruleState
	waiters   []*Client // in the order of their places
	endpoints map[string]*endpoint
	promises  []*promise
	kept      []*promise // that a count has shown, while the deliveries go on
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
	prompted int             // sessions that clients are expected to ask for next
	missed   bool            // a client did not find what was given to it
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
