// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"scache/internal/client"
	"scache/internal/control"
)

// A view is what top shows at one moment.
type view struct {
	at       time.Time
	status   control.Status
	contents contents
	hits     []control.Hits
	err      error
}

// look takes a snapshot.
func (c *site) look() (v view) {
	v.err = c.ask(func(cl *client.Client) (err error) {
		if v.status, err = cl.Status(); err != nil {
			return err
		}
		v.at = time.Now()
		if v.hits, err = cl.Hits(control.LevelDestination); err != nil {
			return err
		}
		v.contents, err = listOf(cl)
		return err
	})
	return v
}

// headerLines is what lines returns before the endpoints.
const headerLines = 8

// lines returns the view as text, with up to this number of rows below the header. The
// last line says how many are not shown.
func (w *watcher) lines(rows int) []string {
	s, was, seconds := w.now.status, w.last.status, w.now.at.Sub(w.last.at).Seconds()
	if was.PID != s.PID { // another process: rates since counting began
		was, seconds = control.Status{}, time.Duration(max(s.Counted, s.Uptime)).Seconds()
	}
	seconds = max(seconds, 0.001)
	rate := func(now, before int64) string {
		return fmt.Sprintf("%.0f/s",
			float64(now-before)/seconds)
	}
	hits, wasHits := s.DestinationHits+s.EndpointHits, was.DestinationHits+was.EndpointHits
	misses, wasMisses := s.DestinationMisses+s.EndpointMisses, was.DestinationMisses+was.EndpointMisses
	lines := []string{
		fmt.Sprintf("scache %s  pid %d  up %v  %s",
			s.Version, s.PID, round(s.Uptime), w.now.at.Format(time.TimeOnly)),
		"",
		fmt.Sprintf("sessions %6d   peak %6d   limit %6d   clients %6d",
			s.Sessions, s.PeakSessions, s.SessionLimit, s.Clients),
		fmt.Sprintf("endpoints %5d   peak %6d   destinations %5d   peak %6d",
			s.Endpoints, s.PeakEndpoints, s.Destinations, s.PeakDestinations),
		fmt.Sprintf("hits %10s   misses %8s   hit rate %4s   saves %8s",
			rate(hits, wasHits), rate(misses, wasMisses),
			percent(hits-wasHits, hits-wasHits+misses-wasMisses), rate(s.Saved, was.Saved)),
		fmt.Sprintf("expired %7s   dead %10s   evicted %8s   flushed %8s",
			rate(s.Expired, was.Expired), rate(s.Dead, was.Dead),
			rate(s.Evicted, was.Evicted), rate(s.Flushed, was.Flushed)),
		"",
	}
	if w.now.contents.Truncated {
		lines[6] = "truncated: the server sends more entries or bytes than are taken"
	}
	table := w.endpointTable().lines()
	if w.hits {
		table = w.missTable().lines()
	}
	if more := len(table) - 1 - rows; more > 0 {
		table = append(table[:max(rows, 1)], fmt.Sprintf("… %d more", more+1))
	}
	return append(lines, table...)
}

// endpointTable returns the endpoints with sessions.
func (w *watcher) endpointTable() *table {
	t := newTable(">SESSIONS|>   AGE|>  LEFT|ENDPOINT|REMOTE")
	for _, e := range arrange(w.now.contents.endpoints(), w.order, 0, keyOfEndpoint) {
		t.add(e.sessions, age(e.age), age(e.left), w.of(e.label), remote(e.remote))
	}
	return t
}

// missTable returns the destinations, those with the most misses first.
func (w *watcher) missTable() *table {
	t := newTable(">  MISSES|>    HITS|>   SAVES|> EXPIRED|>    DEAD|DESTINATION")
	all := slices.Clone(w.now.hits)
	slices.SortStableFunc(all, func(a, b control.Hits) int { return cmp.Compare(b.Misses, a.Misses) })
	for _, h := range all {
		t.add(h.Misses, h.Hits, h.Saves, h.Expired, h.Dead, w.of(h.Label))
	}
	return t
}
