// SPDX-License-Identifier: EPL-2.0

package server

import (
	"scache/attr"
	"scache/internal/cache"
	"scache/internal/control"
	"scache/internal/topk"
)

// A listing is the rest of the reply to the request list or hits. It can be long, so it is
// made in steps while the client reads it. Other clients are served between the steps.
type listing struct {
	moreBindings, moreSessions bool // are still to be listed
	bindings                   cache.BindingCursor
	sessions                   cache.SessionCursor
	labels                     []topk.Entry // are still to be listed
	byEndpoint                 bool         // labels are of endpoints, not of destinations
}

// The bounds of one step of a listing, in entries and in bytes of their labels.
const (
	listingStep  = 50
	listingBytes = 16 << 10
)

// tellAll begins the reply to the request list.
func (c *conversation) tellAll(list attr.List) {
	if err := list.Expect(); err != nil {
		c.refuse(control.RequestList, err)
		return
	}
	c.listing = &listing{moreBindings: true, moreSessions: true}
	c.reply(control.OK)
}

// continueListing appends one step of a listing to the output.
func (c *conversation) continueListing() error {
	l, w := c.listing, c.worker
	switch {
	case l.moreBindings:
		l.moreBindings = w.listBindings(&l.bindings)
	case l.moreSessions:
		l.moreSessions = w.listSessions(&l.sessions)
	case len(l.labels) > 0:
		n, bytes := 0, 0
		for ; n < min(len(l.labels), listingStep) && bytes < listingBytes; n++ {
			bytes += len(l.labels[n].Label)
		}
		w.listLabelCounts(l.labels[:n], l.byEndpoint)
		l.labels = l.labels[n:]
	default:
		control.EncodeEntry(w.encode, control.End{})
		c.listing = nil
		return w.encode.End()
	}
	return nil
}

// listBindings lists some bindings and reports whether there are more.
func (w *worker) listBindings(at *cache.BindingCursor) bool {
	list, more := w.server.Cache.Bindings(at, listingStep)
	for _, b := range list {
		control.EncodeEntry(w.encode, control.Binding{
			Destination: b.Destination, Endpoint: b.Endpoint, Property: b.Property,
			Age: control.Seconds(b.Age), Remaining: control.Seconds(b.Remaining),
		})
		w.encode.End()
	}
	return more
}

// listSessions lists some sessions and reports whether there are more.
func (w *worker) listSessions(at *cache.SessionCursor) bool {
	list, more := w.server.Cache.Sessions(at, listingStep, remoteAddress)
	for _, s := range list {
		control.EncodeEntry(w.encode, control.Session{
			Endpoint: s.Endpoint, Property: s.Property, Remote: s.Description,
			Receiver: w.server.receiverOf(s.Endpoint),
			Age:      control.Seconds(s.Age), Remaining: control.Seconds(s.Remaining),
		})
		w.encode.End()
	}
	return more
}

// maxUnwritten bounds the output of listings that is handed over to the next process.
const maxUnwritten = 4 << 20

// finishListing turns the rest of a listing into pending output, and subtracts its size from
// the budget. It reports whether the budget was large enough.
func (c *conversation) finishListing(budget *int) bool {
	for before := len(c.unwritten); c.listing != nil; before = len(c.unwritten) {
		if *budget <= 0 || c.continueListing() != nil || c.write() != nil {
			return false
		}
		*budget -= max(len(c.unwritten)-before, 0)
	}
	return true
}
