// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"scache/internal/client"
	"scache/internal/operator"
)

// A view is what top shows at one moment.
type view struct {
	at     time.Time
	status operator.Status
	contents
	err error
}

func (c *control) look() (v view) {
	v.err = c.ask(func(cl *client.Client) (err error) {
		if v.status, err = cl.Status(); err != nil {
			return err
		}
		v.at = time.Now()
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
		was, seconds = operator.Status{}, time.Duration(max(s.Counted, s.Uptime)).Seconds()
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
		fmt.Sprintf("%8s %7s %7s  %s", "SESSIONS", "AGE", "LEFT", "ENDPOINT"),
	}
	all := w.now.endpoints()
	shown := arrange(all, w.order, 0, keyOfEndpoint)
	if len(all) > rows {
		shown = shown[:max(rows-1, 0)]
	}
	for _, e := range shown {
		lines = append(lines, fmt.Sprintf("%8d %7v %7v  %s", e.sessions, round(e.age), round(e.left), strings.TrimSpace(escape(e.label)+"  "+e.remote)))
	}
	if more := len(all) - len(shown); more > 0 {
		lines = append(lines, fmt.Sprintf("… %d more", more))
	}
	return lines
}
