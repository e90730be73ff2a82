// SPDX-License-Identifier: EPL-2.0

// What a client asks, and what happens to it.

package receivers

import (
	"net/netip"
	"slices"
	"time"
)

// A Client is one connection of an agent to the cache. Its zero value is ready for use.
// It must not be copied, and the fields that are not exported belong to the Set.
type Client struct {
	Owner any // for the server
	PID   int // of the process, or 0 if it is unknown

	active        bool      // there may be something to clean up
	receiver      *receiver // it waits for a connection to it
	label         []byte    // that it asks for while it waits
	address       netip.AddrPort
	hidden        bool
	byDestination bool         // it asks by destination
	destination   *destination // of this delivery, or nil
	place         uint64
	since         time.Duration
	until         time.Duration
	started       bool // the delivery has its place and its time
	settled       bool // the delivery has its answer, and does not wait again
	given         *receiver
	givenLabel    string
	prompted      *receiver
	expected      string // the label that it is to ask for
	promptedAt    time.Duration
	asked         []string // labels, in this delivery
	answeredAt    time.Duration
	promise       *promise
	serial        int // instead of PID
}

// Given returns the endpoint of the session that the client is to take.
func (c *Client) Given() string { return c.givenLabel }

// Begin is called when a client begins another delivery: it asks by destination.
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
	*c = Client{Owner: c.Owner, PID: c.PID, serial: c.serial, asked: c.asked[:0]}
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

// FindDestination says what to do about a question by destination, for which the cache
// had nothing.
func (s *Set) FindDestination(c *Client, now time.Duration, label []byte) (Verdict, Decisions) {
	if s == nil {
		return NotFound, Decisions{}
	}
	to, target := s.destination(label, now)
	if to == nil {
		return NotFound, Decisions{}
	}
	now = s.lock(now)
	defer s.mu.Unlock()
	s.withdraw(c, now)
	s.addPort(destinationPort(label))
	c.active, c.destination = true, to
	return s.ask(c, s.receiver(target), label, netip.AddrPort{}, now)
}

// destination returns a destination and its receiver, or nil: what is remembered, or what the
// label itself names.
func (s *Set) destination(label []byte, now time.Duration) (*destination, key) {
	if to, target := s.known.destination(label, now); to != nil {
		return to, target
	}
	if target, found := s.classifyDestination(label, now); found {
		return s.known.addDestination(label, target, now+memory, now), target
	}
	return nil, key{}
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
	c.byDestination = len(c.asked) == 0
	c.hidden = !c.byDestination && !address.IsValid()
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

// Found is called when a client gets a session that was in the cache, with this label.
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

// Gone is called when a client has hung up.
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
