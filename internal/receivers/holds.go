// SPDX-License-Identifier: EPL-2.0

// Holds: connections of processes that the kernel does not show, or all if it counts none.

package receivers

import "time"

// holder is the process of a client, or a number of its own that no process has.
func (c *Client) holder() int {
	if c.PID != 0 {
		return c.PID
	}
	return -c.serial
}

// noteHold notes that a client has a connection that the kernel does not show. Before the first
// count, it is unknown whether it does.
func (s *Set) noteHold(c *Client, r *receiver, hidden bool, d *Decisions) {
	if !hidden && !s.estimate && s.last != nil {
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

// ProcessEnded is called when a process has ended.
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
