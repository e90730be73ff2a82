// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"fmt"

	"scache/internal/cache"
)

// maxEntryCost is at least what an entry takes in the description, without its texts.
const maxEntryCost = 512

// fit drops sessions, and then bindings, that would make the description longer than the next
// process reads: it would refuse all of it. Each entry has its labels, so the description can
// be much longer than the memory that the cache takes. fit returns the sessions.
func (s *State) fit(bytes, entries int) (unsent []cache.SavedSession) {
	for i := range s.Clients {
		bytes -= maxEntryCost + s.Clients[i].size()
	}
	for i := range s.Labels {
		bytes -= maxEntryCost + len(s.Labels[i].Label)
	}
	for i := range s.Receivers.Destinations {
		d := &s.Receivers.Destinations[i]
		bytes -= maxEntryCost + len(d.Label) + len(d.Endpoint)
	}
	others := len(s.Clients) + len(s.Claims) + len(s.Labels) + len(s.Receivers.Names) +
		len(s.Receivers.Destinations) + len(s.Receivers.Begun) + len(s.Receivers.Holds) +
		len(s.Receivers.Totals)
	bytes -= maxEntryCost * (len(s.Claims) + len(s.Receivers.Names) + len(s.Receivers.Begun) +
		len(s.Receivers.Holds) + len(s.Receivers.Totals))
	r := room{bytes, entries - others}
	n := 0
	for n < len(s.Sessions) && r.take(len(s.Sessions[n].Label)+len(s.Sessions[n].Property)) {
		n++
	}
	s.Sessions, unsent = s.Sessions[:n:n], s.Sessions[n:]
	n = 0
	for n < len(s.Bindings) {
		b := &s.Bindings[n]
		if !r.take(len(b.Label) + len(b.Property) + len(b.Endpoint)) {
			break
		}
		n++
	}
	s.Bindings = s.Bindings[:n:n]
	return unsent
}

// size returns how long the texts of a client are in the description.
func (c *Client) size() int {
	n := (len(c.Unread) + len(c.Unwritten)) * 4 / 3 // in base64
	if c.Wait != nil {
		n += len(c.Wait.Destination) + len(c.Wait.Label) + len(c.Wait.Promised)
		for _, label := range c.Wait.Asked {
			n += len("wait_asked") + len(label) + 2
		}
	}
	return n
}

// A room is what is left of a description for more entries.
type room struct{ bytes, entries int }

// take takes room for an entry with texts of this length, and reports whether there was enough.
func (r *room) take(texts int) bool {
	if r.entries < 1 || r.bytes < maxEntryCost+texts {
		return false
	}
	r.entries--
	r.bytes -= maxEntryCost + texts
	return true
}

// A description keeps room for clients from the accept queue, which are counted later, and for
// the header and the counts.
const (
	reservedBytes   = 64 << 20
	reservedEntries = 64 << 10
)

// errTooLong is why sessions are not sent.
var errTooLong = fmt.Errorf("the description would be longer than %d bytes or %d entries",
	maxSize, maxEntries)
