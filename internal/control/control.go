// SPDX-License-Identifier: EPL-2.0

// Package control has what a connection cache server tells its operator: the
// requests beside those of Postfix, and what their replies say.
//
// A request is a list like those of Postfix's own clients:
//
//	request=status                  status=0 and the attributes of a Status
//	request=list                    status=0, a list for each Binding and Session, and End
//	request=flush                   status=0 and the attributes of a Flushed: everything is dropped
//	request=flush label=LABEL …     only what has one of these labels
//	request=hits level=LEVEL        status=0, a list for each Hits, and End
//	request=restart                 status=0: then another process goes on, and loses nothing
//
// A server that does not know a request answers status=1, as the stock one does.
package control

import (
	"fmt"
	"reflect"
	"strconv"
	"time"

	"scache/attr"
	"scache/internal/histogram"
)

// Requests.
const (
	RequestStatus  = "status"
	RequestList    = "list"
	RequestFlush   = "flush"
	RequestRestart = "restart"
	RequestHits    = "hits"
)

// Levels of the cache, for which hits are counted.
const (
	LevelDestination = "destination"
	LevelEndpoint    = "endpoint"
)

// Seconds is a time that travels, and is written in JSON, as a number of seconds.
type Seconds time.Duration

// MarshalJSON is for package json.
func (s Seconds) MarshalJSON() ([]byte, error) { return []byte(s.decimal()), nil }

func (s Seconds) decimal() string {
	return strconv.FormatFloat(time.Duration(s).Seconds(), 'f', -1, 64)
}

func parseSeconds(text []byte) (Seconds, error) {
	d, err := time.ParseDuration(string(text) + "s")
	return Seconds(d), err
}

// A Status is the state of a server. A server that took over from another one
// goes on counting where that has stopped.
type Status struct {
	Version string  `json:"version"`
	PID     int64   `json:"pid"`
	Uptime  Seconds `json:"uptime_seconds"`
	Counted Seconds `json:"counted_seconds"` // since what is counted was nothing

	Clients     int64 `json:"clients"`     // connected now
	Connections int64 `json:"connections"` // of clients, in all
	Refused     int64 `json:"refused"`     // clients, for being another user's
	Lost        int64 `json:"lost"`        // clients and sessions at takeovers
	LostLines   int64 `json:"lost_lines"`  // of the log

	Sessions         int64 `json:"sessions"`
	Endpoints        int64 `json:"endpoints"`
	Destinations     int64 `json:"destinations"`
	PeakSessions     int64 `json:"peak_sessions"`
	PeakEndpoints    int64 `json:"peak_endpoints"`
	PeakDestinations int64 `json:"peak_destinations"`

	DestinationHits   int64 `json:"destination_hits"`
	DestinationMisses int64 `json:"destination_misses"`
	EndpointHits      int64 `json:"endpoint_hits"`
	EndpointMisses    int64 `json:"endpoint_misses"`

	Saved     int64 `json:"saved"` // sessions, as all below
	TakenOver int64 `json:"taken_over"`
	Expired   int64 `json:"expired"`
	Dead      int64 `json:"dead"`
	Evicted   int64 `json:"evicted"`
	Flushed   int64 `json:"flushed"`

	EvictedBindings int64 `json:"evicted_bindings"`

	Waited histogram.Values `json:"waited"` // in the cache, sessions that were found
	Took   histogram.Values `json:"took"`   // requests, in the server

	SessionLimit  int64   `json:"session_limit"`
	TTLLimit      Seconds `json:"ttl_limit_seconds"`
	ClientTimeout Seconds `json:"client_timeout_seconds"`
	LivenessCheck bool    `json:"liveness_check"`
	Goodbye       bool    `json:"goodbye"`
	Announces     bool    `json:"announces"`
}

// A Binding leads from a destination to an endpoint.
type Binding struct {
	Destination string  `json:"destination"`
	Endpoint    string  `json:"endpoint"`
	Property    string  `json:"property"`
	Age         Seconds `json:"age_seconds"` // since it was saved last
	Left        Seconds `json:"left_seconds"`
}

// A Session is a cached connection to an endpoint.
type Session struct {
	Endpoint string  `json:"endpoint"`
	Property string  `json:"property"`
	Remote   string  `json:"remote"` // address of the remote end, if it has one
	Limit    string  `json:"limit"`  // of sessions of the endpoint, and their time to live, if it has one
	Age      Seconds `json:"age_seconds"`
	Left     Seconds `json:"left_seconds"`
}

// Hits is what happened to one of the busiest destinations or endpoints. Some of what
// happened while it was not among them may be missing: Error events at the most.
type Hits struct {
	Label   string  `json:"label"`
	Hits    int64   `json:"hits"`
	Misses  int64   `json:"misses"`
	Saves   int64   `json:"saves"`
	Expired int64   `json:"expired"`
	Dead    int64   `json:"dead"`
	Flushed int64   `json:"flushed"` // for an operator, or to make room
	Error   int64   `json:"error"`
	Limit   string  `json:"limit"`           // of an endpoint, as in Session
	Counted Seconds `json:"counted_seconds"` // since it came among them
}

// End ends the reply to a list or hits request.
type End struct{}

// Flushed is what was dropped.
type Flushed struct {
	Sessions int64 `json:"sessions"`
	Bindings int64 `json:"bindings"`
}

// Encode appends the fields of a struct of this package to a list, by the names
// of its JSON tags.
func Encode(e *attr.Encoder, x any) {
	v := reflect.ValueOf(x)
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("json")
		switch value := v.Field(i).Interface().(type) {
		case string:
			e.String(name, value)
		case int64:
			e.Long(name, value)
		case bool:
			e.Bool(name, value)
		case Seconds:
			e.String(name, value.decimal())
		case histogram.Values:
			e.String(name, value.String())
		}
	}
}

// Decode sets the fields of a struct of this package, given its address. Fields
// that the list lacks are left alone, and attributes that are not known ignored:
// the two ends need not be of one version.
func Decode(list attr.List, x any) error {
	v := reflect.ValueOf(x).Elem()
	for i := range v.NumField() {
		a, found := list.Lookup(v.Type().Field(i).Tag.Get("json"))
		if !found {
			continue
		}
		var err error
		switch field := v.Field(i).Addr().Interface().(type) {
		case *string:
			*field = string(a.Value)
		case *int64:
			*field, err = a.Long()
		case *bool:
			*field, err = a.Bool()
		case *Seconds:
			*field, err = parseSeconds(a.Value)
		case *histogram.Values:
			*field, err = histogram.Parse(string(a.Value))
		}
		if err != nil {
			return fmt.Errorf("attribute %s: %w", a.Name, err)
		}
	}
	return nil
}

// EncodeEntry appends an entry of a list reply: a Binding, a Session, a Hits or End.
func EncodeEntry(e *attr.Encoder, x any) {
	switch x.(type) {
	case Binding:
		e.String("entry", "binding")
	case Session:
		e.String("entry", "session")
	case Hits:
		e.String("entry", "hits")
	case End:
		e.String("entry", "end")
	}
	Encode(e, x)
}

// DecodeEntry returns an entry of a list reply: a Binding, a Session, a Hits or End.
func DecodeEntry(list attr.List) (any, error) {
	entry, _ := list.Lookup("entry")
	switch string(entry.Value) {
	case "binding":
		var b Binding
		err := Decode(list, &b)
		return b, err
	case "session":
		var s Session
		err := Decode(list, &s)
		return s, err
	case "hits":
		var h Hits
		err := Decode(list, &h)
		return h, err
	case "end":
		return End{}, nil
	}
	return nil, fmt.Errorf("unknown entry of a list: %.100q", entry.Value)
}
