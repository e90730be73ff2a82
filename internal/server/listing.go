// SPDX-License-Identifier: EPL-2.0

package server

import (
	"scache/attr"
	"scache/internal/control"
	"scache/internal/topk"
)

// A listing is the reply to a request to list the cache. It is long, and so it is
// made as the client reads it, and while others are served.
type listing struct {
	destinations, endpoints []string // that are still to be listed
	skip                    int      // what was listed of the first of them
	hits                    []topk.Entry
	byEndpoint              bool // the hits
}

// listingStep bounds what is listed while others wait.
const listingStep = 50

// tellAll begins to answer an operator who asks for all that is in the cache.
func (c *conversation) tellAll(list attr.List) {
	if err := list.Expect(); err != nil {
		c.refuse(control.RequestList, err)
		return
	}
	destinations, endpoints := c.worker.Cache.Labels()
	c.listing = &listing{destinations: destinations, endpoints: endpoints}
	c.reply(statusOK)
}

// continueListing says more of a listing.
func (c *conversation) continueListing() error {
	l, w := c.listing, c.worker
	for listed := 0; listed < listingStep && len(w.out) <= maxOut; {
		most := listingStep - listed
		switch {
		case len(l.destinations) > 0:
			n := w.listBindings(l.destinations[0], l.skip, most)
			l.destinations = l.advance(l.destinations, n, most)
			listed += max(n, 1)
		case len(l.endpoints) > 0:
			n := w.listSessions(l.endpoints[0], l.skip, most)
			l.endpoints = l.advance(l.endpoints, n, most)
			listed += max(n, 1)
		case len(l.hits) > 0:
			n := min(len(l.hits), most)
			w.listHits(l.hits[:n], l.byEndpoint)
			l.hits = l.hits[n:]
			listed += n
		default:
			control.EncodeEntry(w.encode, control.End{})
			c.listing = nil
			return w.encode.End()
		}
	}
	return nil
}

// advance returns the labels that are to be listed when n of the first one were,
// out of most that might have been.
func (l *listing) advance(labels []string, n, most int) []string {
	if n == most {
		l.skip += n
		return labels
	}
	l.skip = 0
	return labels[1:]
}

func (w *worker) listBindings(label string, skip, most int) int {
	list := w.Cache.Bindings(label, skip, most)
	for _, b := range list {
		control.EncodeEntry(w.encode, control.Binding{Destination: b.Destination, Endpoint: b.Endpoint, Property: b.Property, Age: control.Seconds(b.Age), Left: control.Seconds(b.Left)})
		w.encode.End()
	}
	return len(list)
}

func (w *worker) listSessions(label string, skip, most int) int {
	list := w.Cache.Sessions(label, skip, most, remoteAddress)
	limit := w.Limits.For(label).String()
	for _, s := range list {
		control.EncodeEntry(w.encode, control.Session{Endpoint: s.Endpoint, Property: s.Property, Remote: s.Description, Limit: limit, Age: control.Seconds(s.Age), Left: control.Seconds(s.Left)})
		w.encode.End()
	}
	return len(list)
}

// maxUnwritten bounds the output of listings that is handed over to the next process.
const maxUnwritten = 4 << 20

// finishListing turns the rest of a listing into pending output, unless that takes more than
// the budget, which it reduces.
func (c *conversation) finishListing(budget *int) bool {
	for before := len(c.unwritten); c.listing != nil; before = len(c.unwritten) {
		if *budget <= 0 || c.continueListing() != nil || c.flush() != nil {
			return false
		}
		*budget -= max(len(c.unwritten)-before, 0)
	}
	return true
}
