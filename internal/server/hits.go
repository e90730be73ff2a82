// SPDX-License-Identifier: EPL-2.0

package server

import (
	"time"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/hits"
	"scache/internal/operator"
	"scache/internal/succession"
)

// Hits counts what happens to the busiest destinations and endpoints.
type Hits struct {
	destinations, endpoints *hits.Table
	now                     func() time.Duration
}

// hitsSize is how many of each are counted.
const hitsSize = 1000

// NewHits returns what has counted nothing yet.
func NewHits(now func() time.Duration) *Hits {
	return &Hits{hits.New(hitsSize, now), hits.New(hitsSize, now), now}
}

// found counts a lookup, by an endpoint or a destination. A session that was found by
// a destination is one of its endpoint, too.
func (h *Hits) found(table *hits.Table, label []byte, s cache.Session, ok bool) {
	if !ok {
		table.Count(label, hits.Miss)
		return
	}
	table.Count(label, hits.Hit)
	if table == h.destinations {
		h.endpoints.CountString(s.Endpoint, hits.Hit)
	}
}

// ended counts what the cache has ended.
func (h *Hits) ended(e cache.Ended) {
	event := [...]hits.Event{cache.Expired: hits.Expired, cache.Evicted: hits.Flushed, cache.Flushed: hits.Flushed, cache.Dead: hits.Dead}[e.Why]
	if e.Endpoint != "" {
		h.endpoints.CountString(e.Endpoint, event)
	}
	if e.Destination != "" {
		h.destinations.CountString(e.Destination, event)
	}
}

// table returns the one of a level.
func (h *Hits) table(level string) *hits.Table {
	switch level {
	case operator.LevelDestination:
		return h.destinations
	case operator.LevelEndpoint:
		return h.endpoints
	}
	return nil
}

// leave returns what another process goes on with.
func (h *Hits) leave() (all []succession.Hits) {
	for _, level := range []string{operator.LevelDestination, operator.LevelEndpoint} {
		for _, e := range h.table(level).Entries() {
			all = append(all, succession.Hits{Level: level, Entry: e, Age: h.now() - e.Since})
		}
	}
	return all
}

// RestoreHits is for package succession.
func (h *heir) RestoreHits(left succession.Hits) {
	h.serveClients() // sessions come before, and these are nothing to wait for
	if table := h.Hits.table(left.Level); table != nil {
		left.Since = h.Hits.now() - left.Age
		table.Restore(left.Entry)
	}
}

// tellHits begins to answer an operator who asks for the counts of a level.
func (c *conversation) tellHits(list attr.List) {
	var table *hits.Table
	err := list.Expect("level")
	if err == nil {
		table = c.worker.Hits.table(string(list[0].Value))
	}
	if table == nil {
		c.refuse(operator.RequestHits, err)
		return
	}
	c.listing = &listing{hits: table.Entries(), byEndpoint: table == c.worker.Hits.endpoints}
	c.reply(statusOK)
}

// listHits says some of the counts.
func (w *worker) listHits(all []hits.Entry, byEndpoint bool) {
	now := w.Hits.now()
	for _, e := range all {
		limit := ""
		if byEndpoint {
			limit = w.Limits.For(e.Label).String()
		}
		operator.EncodeEntry(w.encode, operator.Hits{
			Label: e.Label, Hits: e.Counts[hits.Hit], Misses: e.Counts[hits.Miss], Saves: e.Counts[hits.Save], Expired: e.Counts[hits.Expired],
			Dead: e.Counts[hits.Dead], Flushed: e.Counts[hits.Flushed], Error: e.Error, Limit: limit, Counted: operator.Seconds(now - e.Since),
		})
		w.encode.End()
	}
}
