// SPDX-License-Identifier: EPL-2.0

package server

import (
	"time"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/control"
	"scache/internal/handover"
	"scache/internal/topk"
)

// Labels counts what happens to the busiest destinations and endpoints.
type Labels struct {
	destinations, endpoints *topk.Table
	now                     func() time.Duration
}

// labelsSize is how many destinations, and how many endpoints, are counted.
const labelsSize = 1000

// NewLabels returns empty tables.
func NewLabels(now func() time.Duration) *Labels {
	return &Labels{topk.New(labelsSize, now), topk.New(labelsSize, now), now}
}

// found counts a lookup by an endpoint or a destination. A session that was found by a
// destination counts for its endpoint, too.
func (h *Labels) found(table *topk.Table, label []byte, s cache.Session, ok bool) {
	if !ok {
		table.Count(label, topk.Miss)
		return
	}
	table.Count(label, topk.Hit)
	if table == h.destinations {
		h.endpoints.CountString(s.Endpoint, topk.Hit)
	}
}

// dropEvents are the events for the reasons for which the cache closes a session or drops a
// binding.
var dropEvents = [...]topk.Event{
	cache.Expired: topk.Expired,
	cache.Evicted: topk.Evicted,
	cache.Flushed: topk.Flushed,
	cache.Dead:    topk.Dead,
}

// dropped counts a session that the cache has closed, or a binding that it has dropped.
func (h *Labels) dropped(e cache.Dropped) {
	if e.Endpoint != "" {
		h.endpoints.CountString(e.Endpoint, dropEvents[e.Why])
	}
	if e.Destination != "" {
		h.destinations.CountString(e.Destination, dropEvents[e.Why])
	}
}

// table returns the table of a level, or nil.
func (h *Labels) table(level string) *topk.Table {
	switch level {
	case control.LevelDestination:
		return h.destinations
	case control.LevelEndpoint:
		return h.endpoints
	}
	return nil
}

// save returns the counts for another process.
func (h *Labels) save() (all []handover.LabelCounts) {
	for _, level := range []string{control.LevelDestination, control.LevelEndpoint} {
		for _, e := range h.table(level).Entries() {
			all = append(all, handover.LabelCounts{Level: level, Entry: e, Age: h.now() - e.Since})
		}
	}
	return all
}

// restore adds the counts of a label of another process.
func (h *Labels) restore(saved *handover.LabelCounts) {
	if table := h.table(saved.Level); table != nil {
		saved.Since = h.now() - saved.Age
		table.Restore(saved.Entry)
	}
}

// tellLabelCounts begins the reply to the request hits.
func (c *conversation) tellLabelCounts(list attr.List) {
	var table *topk.Table
	err := list.Expect("level")
	if err == nil {
		table = c.server().Labels.table(string(list[0].Value))
	}
	if table == nil {
		c.refuse(control.RequestHits, err)
		return
	}
	c.listing = &listing{labels: table.Entries(), byEndpoint: table == c.server().Labels.endpoints}
	c.reply(control.OK)
}

// listLabelCounts encodes some of the counts.
func (w *worker) listLabelCounts(all []topk.Entry, byEndpoint bool) {
	now := w.server.Labels.now()
	for _, e := range all {
		receiver := ""
		if byEndpoint {
			receiver = w.server.receiverOf(e.Label)
		}
		control.EncodeEntry(w.encode, control.LabelCounts{
			Label:    e.Label,
			Hits:     e.Counts[topk.Hit],
			Misses:   e.Counts[topk.Miss],
			Saves:    e.Counts[topk.Save],
			Expired:  e.Counts[topk.Expired],
			Dead:     e.Counts[topk.Dead],
			Evicted:  e.Counts[topk.Evicted],
			Flushed:  e.Counts[topk.Flushed],
			Error:    e.Error,
			Receiver: receiver,
			Counted:  control.Seconds(now - e.Since),
		})
		w.encode.End()
	}
}
