// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"net/netip"
	"slices"
	"time"

	"scache/internal/histogram"
)

// A State is what a new process needs of a Set, besides its clients and the contents of
// the cache. Times are relative, as each process has a clock of its own.
type State struct {
	Names        []KnownName
	Destinations []KnownDestination
	Begun        []KnownBegun
	Holds        []KnownHold
	Totals       []RuleTotals
}

// A KnownName is the host name of an address.
type KnownName struct {
	Address   netip.Addr
	Name      string
	Remaining time.Duration
}

// A KnownDestination is a destination that leads to an endpoint, and so to its receiver.
type KnownDestination struct {
	Label, Endpoint string
	Remaining       time.Duration // of what is remembered
	Binding         time.Duration // of the binding in the cache, or less than 0
}

// A KnownBegun is a connection that has begun not long ago.
type KnownBegun struct {
	Receiver string
	Address  netip.Addr // for the receivers of Any
	Age      time.Duration
}

// A KnownHold is a process that has a connection that the kernel does not show.
type KnownHold struct {
	Receiver string
	Address  netip.Addr // for the receivers of Any
	PID      int
}

// RuleTotals are what has happened to the receivers of a rule.
type RuleTotals struct {
	Receiver string
	Counts   Totals
	Waited   histogram.Values
}

// Export returns the state to be restored in another process.
func (s *Set) Export(now time.Duration) (state State) {
	if s == nil {
		return state
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	s.known.mu.RLock()
	defer s.known.mu.RUnlock()
	for a, n := range s.known.names {
		if n.until > now {
			state.Names = append(state.Names, KnownName{a, n.name, n.until - now})
		}
	}
	for _, to := range s.known.destinations {
		for endpoint, until := range to.bindings {
			if to.until > now {
				state.Destinations = append(state.Destinations,
					KnownDestination{to.label, endpoint, to.until - now, until - now})
			}
		}
	}
	for _, r := range s.receivers {
		r.prune(now)
		begun := slices.Clone(r.begun)
		for _, p := range r.promises {
			if p.done && r.limits.New > 0 { // no client has it any more
				begun = append(begun, p.doneAt)
			}
		}
		for _, at := range begun {
			state.Begun = append(state.Begun, KnownBegun{s.name(r), r.address, now - at})
		}
	}
	for pid, r := range s.holds {
		if pid > 0 { // or the process is unknown, and does not continue as the same
			state.Holds = append(state.Holds, KnownHold{s.name(r), r.address, pid})
		}
	}
	for i := range s.rules {
		rule := &s.rules[i]
		state.Totals = append(state.Totals,
			RuleTotals{s.config.Rules[i].Name, rule.totals, rule.waited.Values()})
	}
	return state
}

func (s *Set) name(r *receiver) string { return s.config.Rules[r.rule].Name }

// StopPromising makes all clients wait that would be told to connect, until StartPromising: the
// state of another process is about to arrive, and that may have told other clients the same.
func (s *Set) StopPromising() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promisesStopped = true
}

// StartPromising ends StopPromising.
func (s *Set) StartPromising(now time.Duration) (d Decisions) {
	if s == nil {
		return d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	s.promisesStopped = false
	for r := range s.waiting {
		s.serve(r, now, &d)
	}
	s.schedule(now, &d)
	return d
}

// Restore takes over what another Set has exported, as far as the rules still have it. It
// comes before clients and sessions.
func (s *Set) Restore(now time.Duration, state State) (d Decisions) {
	if s == nil {
		return d
	}
	for _, n := range state.Names {
		if rule := s.matcher.host(n.Name); rule != none {
			until := now + min(n.Remaining, memory)
			s.known.addAddress(s.known.names, n.Address, knownAddress{rule, n.Name, until}, now)
		}
	}
	for _, to := range state.Destinations {
		if k, address, found := s.classify([]byte(to.Endpoint), now); found {
			until := now + min(to.Remaining, memory)
			destination := s.known.addDestination([]byte(to.Label), k, until, now)
			s.mu.Lock()
			s.addPort(address.Port())
			destination.bind([]byte(to.Endpoint), now+to.Binding, now)
			s.mu.Unlock()
		}
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	for _, b := range state.Begun {
		if i := s.rule(b.Receiver); i >= 0 && s.config.Rules[i].Limits.New > 0 {
			r := s.receiver(s.key(i, b.Address))
			r.begun = append(r.begun, now-b.Age)
			slices.Sort(r.begun)
		}
	}
	for _, h := range state.Holds {
		if i := s.rule(h.Receiver); i >= 0 && h.PID > 0 {
			s.addHold(h.PID, s.receiver(s.key(i, h.Address)))
			d.Watch = append(d.Watch, h.PID)
		}
	}
	for _, t := range state.Totals {
		if i := s.rule(t.Receiver); i >= 0 {
			s.rules[i].totals.add(t.Counts)
			s.rules[i].waited.Add(t.Waited)
		}
	}
	return d
}

func (c *Totals) add(other Totals) {
	c.New += other.New
	c.Given += other.Given
	c.Overflows += other.Overflows
	c.Refused += other.Refused
	c.Closed += other.Closed
}

// rule returns the index of the rule with this name, or -1.
func (s *Set) rule(name string) int {
	return slices.IndexFunc(s.config.Rules, func(r Rule) bool { return r.Name == name })
}

// A ClientState is what a new process needs of a client.
type ClientState struct {
	Destination string // of its delivery, or empty
	Label       string // that it waits for, if Waiting
	Waiting     bool
	Settled     bool          // the delivery has waited
	Place       uint64        // in the queue
	Waited      time.Duration // so far
	Remaining   time.Duration
	Asked       []string // endpoints, in this delivery

	// Promised is the endpoint of a connection that it is about to open, or its
	// destination, and PromiseAge is how long ago it was told so.
	Promised   string
	PromiseAge time.Duration
}

// ExportClient returns the state of a client, and reports whether there is any. The client
// stays as it is.
func (s *Set) ExportClient(c *Client, now time.Duration) (state ClientState, ok bool) {
	if s == nil || !c.active {
		return state, false
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	state = ClientState{
		Waiting: c.receiver != nil || c.given != nil, Settled: c.settled, Place: c.place,
		Asked: slices.Clone(c.asked),
	}
	if c.destination != nil {
		state.Destination = c.destination.label
	}
	if c.started {
		state.Waited, state.Remaining = now-c.since, max(0, c.until-now)
	}
	if state.Waiting {
		state.Label = string(c.label)
	}
	if c.promise != nil && !c.promise.kept {
		state.Promised, state.PromiseAge = string(c.label), now-c.promise.at
	}
	return state, true
}

// RestoreClient takes a client over from another process. The clients that wait come in any
// order. If the verdict is not Wait, the client is to be answered now.
func (s *Set) RestoreClient(c *Client, now time.Duration, state ClientState) (Verdict, Decisions) {
	d := Decisions{}
	if s == nil {
		return NotFound, d
	}
	label := []byte(state.Label)
	if state.Promised != "" {
		label = []byte(state.Promised)
	}
	byName := len(state.Asked) == 0
	k, address, found := s.classify(label, now)
	to, target := s.destination([]byte(state.Destination), now)
	if byName {
		k, address, found = target, netip.AddrPort{}, to != nil
	}
	if !found {
		return NotFound, d
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	r := s.receiver(k)
	c.active, c.destination, c.asked, c.settled = true, to, state.Asked, state.Settled
	c.label, c.address = label, address
	if state.Place > 0 {
		c.started, c.place, c.since = true, state.Place, now-state.Waited
		c.until = now + min(max(state.Remaining, 0), s.config.Wait)
		s.place = max(s.place, state.Place)
	}
	isPromise := state.Promised != "" && state.PromiseAge < promiseTime
	if isPromise && r.limitsConnections() && !s.estimate {
		c.promise = &promise{receiver: r, client: c, at: now - state.PromiseAge}
		r.addPromise(c.promise)
		s.notePromise(r)
		return NotFound, d
	}
	if !state.Waiting {
		return NotFound, d
	}
	return s.ask(c, r, slices.Clone(label), address, now)
}
