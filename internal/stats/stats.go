// SPDX-License-Identifier: EPL-2.0

// Package stats declares each number that an operator sees, once.
//
// [Numbers] and [Times] are tables of the fields of [Values]. Everything that shows or
// carries these numbers is a loop over them: the status as text and JSON, the state that a
// process hands over, the metrics, and the manual pages. To add a number, add a field and a
// line of a table, and set the field in package server.
package stats

import (
	"fmt"
	"iter"
	"slices"

	"scache/internal/histogram"
)

// A Kind says how a number changes.
type Kind int

// The kinds.
const (
	Gauge   Kind = iota // what is there now
	Counter             // what has happened so far; the next process continues it
	Peak                // the greatest value of a gauge so far; the next process continues it
)

// Values are the numbers. All are 64 bits wide, also on 32-bit machines: a busy server
// counts 2^31 events in a few days.
type Values struct {
	Clients, Connections, Refused, Lost, LostLines int64

	Sessions, Endpoints, Destinations, SessionLimit int64
	PeakSessions, PeakEndpoints, PeakDestinations   int64
	Memory, MemoryLimit                             int64

	DestinationHits, DestinationMisses, EndpointHits, EndpointMisses int64

	Saved, TakenOver, Expired, Dead, Evicted, Flushed, EvictedBindings int64
	EvictedForMemory                                                   int64

	Waited, Took histogram.Values
}

// A Number declares one number.
type Number struct {
	Name   string // in JSON, in the protocol of control, and in the state that is handed over
	Kind   Kind
	Metric string   // the name of its metric, or "" if it has none
	Labels []string // the values of the labels that its metric has
	Place  Place    // in the text of the status
	Help   string   // one sentence
	Field  func(*Values) *int64
}

// A Place is where a number is in the text of the status.
type Place struct {
	Part        Part
	Row, Column string
}

// A Part is a part of the text of the status.
type Part int

// The parts.
const (
	Sizes   Part = iota // a table: what the server holds
	Lookups             // a table: what was looked up
	Events              // a line for each row: what has happened
)

// Numbers are all numbers, in the order in which they are shown.
var Numbers = []Number{
	{"sessions", Gauge, "sessions", nil, Place{Sizes, "sessions", "now"},
		"Sessions: connections in the cache.",
		func(v *Values) *int64 { return &v.Sessions }},
	{"endpoints", Gauge, "endpoints", nil, Place{Sizes, "endpoints", "now"},
		"Endpoints with sessions.",
		func(v *Values) *int64 { return &v.Endpoints }},
	{"destinations", Gauge, "destinations", nil, Place{Sizes, "destinations", "now"},
		"Destinations that are bound to endpoints.",
		func(v *Values) *int64 { return &v.Destinations }},
	{"peak_sessions", Peak, "", nil, Place{Sizes, "sessions", "peak"},
		"The most sessions at one time.",
		func(v *Values) *int64 { return &v.PeakSessions }},
	{"peak_endpoints", Peak, "", nil, Place{Sizes, "endpoints", "peak"},
		"The most endpoints with sessions at one time.",
		func(v *Values) *int64 { return &v.PeakEndpoints }},
	{"peak_destinations", Peak, "", nil, Place{Sizes, "destinations", "peak"},
		"The most destinations at one time.",
		func(v *Values) *int64 { return &v.PeakDestinations }},
	{"session_limit", Gauge, "sessions_limit", nil, Place{Sizes, "sessions", "limit"},
		"How many sessions the cache can hold at present.",
		func(v *Values) *int64 { return &v.SessionLimit }},

	{"destination_hits", Counter, "lookups_total", []string{"destination", "hit"},
		Place{Lookups, "destination", "hits"},
		"Lookups of a destination that found a session.",
		func(v *Values) *int64 { return &v.DestinationHits }},
	{"destination_misses", Counter, "lookups_total", []string{"destination", "miss"},
		Place{Lookups, "destination", "misses"},
		"Lookups of a destination that found none.",
		func(v *Values) *int64 { return &v.DestinationMisses }},
	{"endpoint_hits", Counter, "lookups_total", []string{"endpoint", "hit"},
		Place{Lookups, "endpoint", "hits"},
		"Lookups of an endpoint that found a session.",
		func(v *Values) *int64 { return &v.EndpointHits }},
	{"endpoint_misses", Counter, "lookups_total", []string{"endpoint", "miss"},
		Place{Lookups, "endpoint", "misses"},
		"Lookups of an endpoint that found none.",
		func(v *Values) *int64 { return &v.EndpointMisses }},

	{"saved", Counter, "sessions_saved_total", nil, Place{Events, "sessions", "saved"},
		"Sessions that delivery agents have saved.",
		func(v *Values) *int64 { return &v.Saved }},
	{"taken_over", Counter, "sessions_taken_over_total", nil,
		Place{Events, "sessions", "taken over"},
		"Sessions that were taken over from a previous process.",
		func(v *Values) *int64 { return &v.TakenOver }},
	{"expired", Counter, "sessions_closed_total", []string{"expired"},
		Place{Events, "closed", "expired"},
		"Sessions that were closed because their time to live was over.",
		func(v *Values) *int64 { return &v.Expired }},
	{"dead", Counter, "sessions_closed_total", []string{"dead"},
		Place{Events, "closed", "dead"},
		"Sessions that were found closed by the remote end when a client asked for them.",
		func(v *Values) *int64 { return &v.Dead }},
	{"evicted", Counter, "sessions_closed_total", []string{"evicted"},
		Place{Events, "closed", "evicted"},
		"Sessions that were closed to make room for others, because of a limit.",
		func(v *Values) *int64 { return &v.Evicted }},
	{"flushed", Counter, "sessions_closed_total", []string{"flushed"},
		Place{Events, "closed", "flushed"},
		"Sessions that were closed because an operator asked for it.",
		func(v *Values) *int64 { return &v.Flushed }},
	{"evicted_bindings", Counter, "bindings_evicted_total", nil,
		Place{Events, "bindings", "evicted"},
		"Bindings that were dropped to make room for others, because of a limit.",
		func(v *Values) *int64 { return &v.EvictedBindings }},

	{"clients", Gauge, "clients", nil, Place{Sizes, "clients", "now"},
		"Clients that are connected: delivery agents, and tools such as scachectl.",
		func(v *Values) *int64 { return &v.Clients }},
	{"connections", Counter, "client_connections_total", nil, Place{Events, "clients", "connections"},
		"Connections of clients that were accepted, also of tools.",
		func(v *Values) *int64 { return &v.Connections }},
	{"refused", Counter, "clients_refused_total", nil, Place{Events, "clients", "refused"},
		"Clients that were refused because another user runs them.",
		func(v *Values) *int64 { return &v.Refused }},
	{"lost", Counter, "takeover_lost_total", nil,
		Place{Events, "lost", "sessions and clients at reloads"},
		"Sessions and clients that were handed over and did not arrive.",
		func(v *Values) *int64 { return &v.Lost }},
	{"lost_lines", Counter, "log_lines_lost_total", nil, Place{Events, "lost", "log lines"},
		"Log lines that were dropped because the log receiver was too slow.",
		func(v *Values) *int64 { return &v.LostLines }},

	{"memory", Gauge, "memory_bytes", nil, Place{Sizes, "bytes", "now"},
		"About how many bytes of memory sessions and bindings take.",
		func(v *Values) *int64 { return &v.Memory }},
	{"memory_limit", Gauge, "memory_limit_bytes", nil, Place{Sizes, "bytes", "limit"},
		"How many bytes sessions and bindings may take; 0 is no limit.",
		func(v *Values) *int64 { return &v.MemoryLimit }},
	{"evicted_for_memory", Counter, "evicted_for_memory_total", nil,
		Place{Events, "memory", "sessions and bindings evicted"},
		"Those of the evicted sessions and bindings that the limit of memory has cost.",
		func(v *Values) *int64 { return &v.EvictedForMemory }},
}

// Durations declare one distribution of times.
type Durations struct {
	Name   string // as in a Number
	Metric string
	Help   string
	Field  func(*Values) *histogram.Values
}

// Times are all distributions of times. The next process continues them.
var Times = []Durations{
	{"waited", "session_wait_seconds",
		"How long sessions were in the cache before a lookup found them.",
		func(v *Values) *histogram.Values { return &v.Waited }},
	{"took", "request_duration_seconds",
		"How long requests took, from when the server noticed them until it had answered.",
		func(v *Values) *histogram.Values { return &v.Took }},
}

// A Family is a metric. It has one number, or one for each combination of labels.
type Family struct {
	Name   string
	Kind   Kind
	Labels []string // their names
	Help   string
}

// labeled are the families with labels.
var labeled = []Family{
	{"lookups_total", Counter, []string{"level", "result"}, "Lookups by level and result."},
	{"sessions_closed_total", Counter, []string{"reason"},
		"Sessions that the cache has closed, by reason."},
}

// Family returns the metric of a number.
func (n *Number) Family() Family {
	for _, f := range labeled {
		if f.Name == n.Metric {
			return f
		}
	}
	return Family{Name: n.Metric, Kind: n.Kind, Help: n.Help}
}

// Continued yields the names and fields of the numbers that the next process continues:
// counters and peaks, in the order of the table. A loop that hands them over reads the
// fields, and a loop that takes them over sets them.
func (v *Values) Continued() iter.Seq2[string, *int64] {
	return func(yield func(string, *int64) bool) {
		for i := range Numbers {
			if n := &Numbers[i]; n.Kind != Gauge && !yield(n.Name, n.Field(v)) {
				return
			}
		}
	}
}

// Times yields the names and fields of the distributions, as Continued does.
func (v *Values) Times() iter.Seq2[string, *histogram.Values] {
	return func(yield func(string, *histogram.Values) bool) {
		for i := range Times {
			if t := &Times[i]; !yield(t.Name, t.Field(v)) {
				return
			}
		}
	}
}

// Add adds what another process has counted, or another part of this one. Gauges do not
// change.
func (v *Values) Add(more *Values) {
	for i := range Numbers {
		switch n := &Numbers[i]; n.Kind {
		case Counter:
			*n.Field(v) += *n.Field(more)
		case Peak:
			*n.Field(v) = max(*n.Field(v), *n.Field(more))
		}
	}
	for i := range Times {
		Times[i].Field(v).Add(*Times[i].Field(more))
	}
}

// Most bounds a count that is taken over. A server that counts a million events a second
// reaches it after 285 years, and up to it JSON and Prometheus are exact.
const Most = 1 << 53

// Check returns an error if these counts cannot be true. The server that takes them over
// must refuse them then.
func (v *Values) Check() error {
	for name, n := range v.Continued() {
		if *n < 0 || *n > Most {
			return fmt.Errorf("%s=%d is out of range", name, *n)
		}
	}
	for name, t := range v.Times() {
		if err := t.Check(Most); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	// Each session came in by one of two ways, and was given away or closed once at most.
	in := v.Saved + v.TakenOver
	out := v.DestinationHits + v.EndpointHits + v.Expired + v.Dead + v.Evicted + v.Flushed
	switch {
	case out > in:
		return fmt.Errorf("%d sessions were reused or closed, of %d saved or taken over", out, in)
	case v.PeakSessions > in || v.PeakEndpoints > in:
		return fmt.Errorf("peak of %d sessions and %d endpoints, with %d sessions saved or taken over",
			v.PeakSessions, v.PeakEndpoints, in)
	}
	return nil
}

// Rows returns the rows of a part of the status text, in the order of the table.
func Rows(p Part) (rows []string) {
	for i := range Numbers {
		if at := Numbers[i].Place; at.Part == p && !slices.Contains(rows, at.Row) {
			rows = append(rows, at.Row)
		}
	}
	return rows
}

// Columns returns the numbers of a row.
func Columns(p Part, row string) (columns []*Number) {
	for i := range Numbers {
		if at := Numbers[i].Place; at.Part == p && at.Row == row {
			columns = append(columns, &Numbers[i])
		}
	}
	return columns
}
