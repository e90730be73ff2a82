// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"scache/internal/client"
	"scache/internal/control"
)

// A view is what top shows at one moment.
type view struct {
	at     time.Time
	status control.Status
	contents
	hits []control.Hits
	err  error
}

func (c *site) look() (v view) {
	v.err = c.ask(func(cl *client.Client) (err error) {
		if v.status, err = cl.Status(); err != nil {
			return err
		}
		v.at = time.Now()
		if v.hits, err = cl.Hits(control.LevelDestination); err != nil {
			return err
		}
		v.Bindings, v.Sessions, err = cl.List()
		return err
	})
	return v
}

// headerLines is what lines returns before the endpoints.
const headerLines = 8

// lines returns the view as text, with so many lines about endpoints at the most. The
// last one tells how many are not shown.
func (w *watcher) lines(rows int) []string {
	s, was, seconds := w.now.status, w.last.status, w.now.at.Sub(w.last.at).Seconds()
	if was.PID != s.PID { // what happened since it was started
		was, seconds = control.Status{}, time.Duration(max(s.Counted, s.Uptime)).Seconds()
	}
	seconds = max(seconds, 0.001)
	rate := func(now, before int64) string { return fmt.Sprintf("%.0f/s", float64(now-before)/seconds) }
	hits, wasHits := s.DestinationHits+s.EndpointHits, was.DestinationHits+was.EndpointHits
	misses, wasMisses := s.DestinationMisses+s.EndpointMisses, was.DestinationMisses+was.EndpointMisses
	lines := []string{
		fmt.Sprintf("scache %s  pid %d  up %v  %s", s.Version, s.PID, round(s.Uptime), w.now.at.Format(time.TimeOnly)),
		"",
		fmt.Sprintf("sessions %6d   peak %6d   limit %6d   clients %6d", s.Sessions, s.PeakSessions, s.SessionLimit, s.Clients),
		fmt.Sprintf("endpoints %5d   peak %6d   destinations %5d   peak %6d", s.Endpoints, s.PeakEndpoints, s.Destinations, s.PeakDestinations),
		fmt.Sprintf("hits %10s   misses %8s   hit rate %4s   saves %8s", rate(hits, wasHits), rate(misses, wasMisses),
			percent(hits-wasHits, hits-wasHits+misses-wasMisses), rate(s.Saved, was.Saved)),
		fmt.Sprintf("expired %7s   dead %10s   evicted %8s   flushed %8s", rate(s.Expired, was.Expired), rate(s.Dead, was.Dead),
			rate(s.Evicted, was.Evicted), rate(s.Flushed, was.Flushed)),
		"",
	}
	var table []string
	if w.hits {
		table = w.now.hitLines()
	} else {
		table = w.now.endpointLines(w.order)
	}
	if more := len(table) - 1 - rows; more > 0 {
		table = append(table[:max(rows, 1)], fmt.Sprintf("… %d more", more+1))
	}
	return append(lines, table...)
}

// endpointLines returns the endpoints with sessions, below a heading.
func (v view) endpointLines(o order) []string {
	lines := []string{fmt.Sprintf("%8s %7s %7s  %s", "SESSIONS", "AGE", "LEFT", "ENDPOINT")}
	for _, e := range arrange(v.endpoints(), o, 0, keyOfEndpoint) {
		lines = append(lines, fmt.Sprintf("%8d %7v %7v  %s", e.sessions, round(e.age), round(e.left), strings.TrimSpace(control.Escape(e.label)+"  "+e.remote)))
	}
	return lines
}

// hitLines returns the destinations, those with most misses first, below a heading.
func (v view) hitLines() []string {
	lines := []string{fmt.Sprintf("%8s %8s %8s %8s %8s  %s", "MISSES", "HITS", "SAVES", "EXPIRED", "DEAD", "DESTINATION")}
	slices.SortStableFunc(v.hits, func(a, b control.Hits) int { return cmp.Compare(b.Misses, a.Misses) })
	for _, h := range v.hits {
		lines = append(lines, fmt.Sprintf("%8d %8d %8d %8d %8d  %s", h.Misses, h.Hits, h.Saves, h.Expired, h.Dead, control.Escape(h.Label)))
	}
	return lines
}
