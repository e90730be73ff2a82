// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"time"

	"scache/internal/histogram"
)

// Totals are what has happened to a receiver so far.
type Totals struct {
	New       int64 // clients that were told to connect
	Given     int64 // sessions given to clients that asked too early, or waited
	Overflows int64 // clients that were told to connect although there was no room
	Refused   int64 // promises: clients that were told to connect, and never did
	Closed    int64 // idle sessions that were closed to make room
}

// Stats are the state of a rule. For the rule of each other address, they are the sums.
type Stats struct {
	Rule
	Receivers    int // with any state; it can exceed 1 for Any only
	Open         int // connections that the kernel knows, or that are estimated
	Idle         int // sessions in the cache
	Waiting      int // clients
	NewPerMinute int // connections that have begun within the last minute
	Totals
	Waited   histogram.Values // how long clients have waited
	Estimate bool             // the kernel does not count
}

// Stats returns the state of each rule, in their order.
func (s *Set) Stats(now time.Duration) []Stats {
	if s == nil {
		return nil
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	for _, r := range s.receivers {
		r.prune(now)
	}
	all := make([]Stats, len(s.rules))
	for i := range s.rules {
		state := &s.rules[i]
		all[i] = Stats{
			Rule: s.config.Rules[i], Totals: state.totals, Waited: state.waited.Values(),
			NewPerMinute: state.newPerMinute(now), Estimate: s.estimate,
		}
	}
	for _, r := range s.receivers {
		a := &all[r.rule]
		a.Receivers++
		a.Open += s.openConnections(r)
		a.Idle += r.idle()
		a.Waiting += len(r.waiters)
	}
	return all
}

// slotTime is the length of the intervals by which beginning connections are counted.
const slotTime = 10 * time.Second

// countNew counts a connection that begins.
func (r *ruleState) countNew(now time.Duration) {
	r.forgetSlots(now)
	r.recent[r.slot%time.Duration(len(r.recent))]++
}

// forgetSlots clears the intervals that are older than a minute.
func (r *ruleState) forgetSlots(now time.Duration) {
	slot := now / slotTime
	for i := 0; r.slot < slot && i < len(r.recent); i++ {
		r.slot++
		r.recent[r.slot%time.Duration(len(r.recent))] = 0
	}
	r.slot = max(r.slot, slot)
}

func (r *ruleState) newPerMinute(now time.Duration) (n int) {
	r.forgetSlots(now)
	for _, begun := range r.recent {
		n += int(begun)
	}
	return n
}
