// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"scache/internal/client"
	"scache/internal/control"
)

// A view is what top shows at one moment.
type view struct {
	at        time.Time
	status    control.Status
	contents  contents
	labels    []control.LabelCounts
	receivers []shownReceiver
	err       error
}

// look takes a snapshot.
func (c *site) look() (v view) {
	v.err = c.ask(func(cl *client.Client) (err error) {
		if v.status, err = cl.Status(); err != nil {
			return err
		}
		v.at = time.Now()
		if v.labels, err = cl.LabelCounts(control.LevelDestination); err != nil {
			return err
		}
		v.contents, err = listOf(cl)
		return err
	})
	if v.err != nil {
		return v
	}
	// The connection cannot be used any more if the list was truncated.
	v.receivers, v.err = c.receivers()
	if errors.Is(v.err, client.ErrStock) { // 1.0 has no receivers
		v.err = nil
	}
	return v
}

// headerLines is the number of lines before the first row of the table.
const headerLines = 8

// lines returns the view, with up to this number of rows in its table. If there are more,
// the last line says how many.
func (w *watcher) lines(rows int) []line {
	note := line{}
	if w.now.contents.Truncated {
		note = line{{warning, "truncated: the server sends more entries or bytes than are taken"}}
	}
	if w.kind == ofReceivers && len(w.now.receivers) == 0 {
		note = line{{plain, "no receiver has limits: connection_cache_receivers is empty"}}
	}
	s := w.now.status
	head := []line{
		{{title, "scache " + s.Version}, {plain, fmt.Sprintf("  pid %d  up %v  %s",
			s.PID, round(s.Uptime), w.now.at.Format(time.TimeOnly))}},
		{},
	}
	head = append(head, w.numbers()...)
	return append(append(head, note), tableLines(w.table(), rows)...)
}

// numbers returns what the server holds, and the rates of what it does.
func (w *watcher) numbers() []line {
	s, was, seconds := &w.now.status, &w.last.status, w.now.at.Sub(w.last.at).Seconds()
	if was.PID != s.PID { // another process: rates since counting began
		was, seconds = &control.Status{}, time.Duration(max(s.Counted, s.Uptime)).Seconds()
	}
	seconds = max(seconds, 0.001)
	rate := func(now, before int64) string {
		return fmt.Sprintf("%.0f/s", float64(now-before)/seconds)
	}
	loss := func(now, before int64) piece {
		if now > before {
			return piece{warning, rate(now, before)}
		}
		return piece{number, rate(now, before)}
	}
	count := func(n int64) piece { return piece{number, fmt.Sprint(n)} }
	hits := s.DestinationHits + s.EndpointHits - was.DestinationHits - was.EndpointHits
	misses := s.DestinationMisses + s.EndpointMisses - was.DestinationMisses - was.EndpointMisses
	found := piece{good, percent(hits, hits+misses)}
	if hits == 0 {
		found.as = number
	}
	return []line{
		grid("sessions", count(s.Sessions), "peak", count(s.PeakSessions),
			"limit", count(s.SessionLimit), "clients", count(s.Clients)),
		grid("endpoints", count(s.Endpoints), "peak", count(s.PeakEndpoints),
			"destinations", count(s.Destinations), "peak", count(s.PeakDestinations)),
		grid("hits", piece{number, rate(hits, 0)}, "misses", piece{number, rate(misses, 0)},
			"hit rate", found, "saves", piece{number, rate(s.Saved, was.Saved)}),
		grid("expired", piece{number, rate(s.Expired, was.Expired)}, "dead", loss(s.Dead, was.Dead),
			"evicted", loss(s.Evicted, was.Evicted),
			"flushed", piece{number, rate(s.Flushed, was.Flushed)}),
	}
}

// grid returns a line of names and values. The values are right-aligned in columns.
func grid(cells ...any) (l line) {
	for i, width := range []int{15, 15, 18, 15} {
		name, value := cells[2*i].(string), cells[2*i+1].(piece)
		if i > 0 {
			l = append(l, piece{plain, "   "})
		}
		space := max(width-len(name)-len(value.text), 1)
		l = append(l, piece{faint, name}, piece{plain, strings.Repeat(" ", space)}, value)
	}
	return l
}

// tableLines returns a heading and up to this number of rows, one of which says how many
// more there are.
func tableLines(t *table, rows int) []line {
	var lines []line
	for i, text := range t.lines() {
		shown := plain
		if i == 0 {
			shown = heading
		}
		lines = append(lines, line{{shown, strings.TrimRight(text, " ")}})
	}
	if more := len(t.rows) - rows; more > 0 {
		lines = append(lines[:max(rows, 1)], line{{faint, fmt.Sprintf("… %d more", more+1)}})
	}
	return lines
}

// A tableKind is what the table of the screen shows.
type tableKind int

const (
	ofEndpoints tableKind = iota
	ofMisses
	ofReceivers
)

// table returns the table that the user has chosen.
func (w *watcher) table() *table {
	switch w.kind {
	case ofMisses:
		return w.missTable()
	case ofReceivers:
		return receiversTable(w.now.receivers)
	default:
		return w.endpointTable()
	}
}

// endpointTable returns the endpoints with sessions, and a destination that leads to each.
// Remote addresses are a column only if the labels of the endpoints do not have them.
func (w *watcher) endpointTable() *table {
	all := arrange(w.now.contents.endpoints(), w.order, 0, keyOfEndpoint)
	heading, remotes := ">SESSIONS|>   AGE|>  LEFT|DESTINATION|ENDPOINT", false
	for _, e := range all {
		remotes = remotes || !e.namesRemote()
	}
	if remotes {
		heading += "|REMOTE"
	}
	t := newTable(heading)
	destinations := w.destinations()
	for _, e := range all {
		row := []any{e.sessions, age(e.age), age(e.left),
			cmp.Or(destinations[e.label], "-"), w.of(e.label)}
		if remotes {
			row = append(row, remote(e.remote))
		}
		t.add(row...)
	}
	return t
}

// destinations returns a destination for each endpoint that has some, the first in the
// order of their labels, and how many more lead there.
func (w *watcher) destinations() map[string]string {
	all := map[string][]string{}
	for _, b := range w.now.contents.Bindings {
		all[b.Endpoint] = append(all[b.Endpoint], b.Destination)
	}
	texts := map[string]string{}
	for endpoint, labels := range all {
		texts[endpoint] = w.of(slices.Min(labels))
		if len(labels) > 1 {
			texts[endpoint] += fmt.Sprintf(" +%d", len(labels)-1)
		}
	}
	return texts
}

// namesRemote reports whether the label has the remote address.
func (e endpoint) namesRemote() bool {
	l, ok := parseLabel(raw(e.label))
	return ok && net.JoinHostPort(l.address, l.port) == e.remote
}

// missTable returns the destinations, those with the most misses first.
func (w *watcher) missTable() *table {
	t := newTable(">  MISSES|>    HITS|>   SAVES|> EXPIRED|>    DEAD|DESTINATION")
	all := slices.Clone(w.now.labels)
	slices.SortStableFunc(all, func(a, b control.LabelCounts) int {
		return cmp.Compare(b.Misses, a.Misses)
	})
	for _, h := range all {
		t.add(h.Misses, h.Hits, h.Saves, h.Expired, h.Dead, w.of(h.Label))
	}
	return t
}
