// SPDX-License-Identifier: EPL-2.0

// Counting: which connections the kernel has, and which servers may promise more.

package receivers

import (
	"net/netip"
	"slices"
	"time"
)

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

// isFresh reports whether the last count can be relied upon.
func (s *Set) isFresh(now time.Duration) bool {
	if s.estimate {
		return true
	}
	return s.counted && s.covered == len(s.ports) && now-s.countedAt <= countInterval
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
		rule = none // by its labels, it belongs to another receiver
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
// anything has changed.
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

// CountFailed is called when a count has failed. The Set asks for another one later.
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

// Estimate is called when the kernel does not count connections. From now on they are
// estimated, by process, from what clients were told and given.
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
