// SPDX-License-Identifier: EPL-2.0

// Package operator has what a connection cache server tells its operator: the
// requests beside those of Postfix, and what their replies say.
//
// A request is a list like those of Postfix's own clients:
//
//	request=status                  status=0 and the attributes of a Status
//	request=list                    status=0, a list for each Binding and Session, and End
//	request=flush                   status=0 and the attributes of a Flushed: everything is dropped
//	request=flush label=LABEL       only what has this label
//
// A server that does not know a request answers status=1, as the stock one does.
package operator

import (
	"fmt"
	"reflect"
	"time"

	"scache/attr"
)

// Requests.
const (
	RequestStatus = "status"
	RequestList   = "list"
	RequestFlush  = "flush"
)

// A Status is the state of a server. What is counted is counted since it
// started; a server that took the cache of another one over begins anew.
type Status struct {
	Version string        `json:"version"`
	PID     int64         `json:"pid"`
	Uptime  time.Duration `json:"uptime_seconds"`

	Clients     int64 `json:"clients"`     // connected now
	Connections int64 `json:"connections"` // of clients, in all
	Refused     int64 `json:"refused"`     // clients, for being another user's

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

	SessionLimit  int64         `json:"session_limit"`
	TTLLimit      time.Duration `json:"ttl_limit_seconds"`
	ClientTimeout time.Duration `json:"client_timeout_seconds"`
	LivenessCheck bool          `json:"liveness_check"`
	Goodbye       bool          `json:"goodbye"`
	Announces     bool          `json:"announces"`
}

// A Binding leads from a destination to an endpoint.
type Binding struct {
	Destination string        `json:"destination"`
	Endpoint    string        `json:"endpoint"`
	Property    string        `json:"property"`
	Age         time.Duration `json:"age_seconds"` // since it was saved last
	Left        time.Duration `json:"left_seconds"`
}

// A Session is a cached connection to an endpoint.
type Session struct {
	Endpoint string        `json:"endpoint"`
	Property string        `json:"property"`
	Remote   string        `json:"remote"` // address of the remote end, if it has one
	Age      time.Duration `json:"age_seconds"`
	Left     time.Duration `json:"left_seconds"`
}

// End ends the reply to a list request.
type End struct{}

// Flushed is what was dropped.
type Flushed struct {
	Sessions int64 `json:"sessions"`
	Bindings int64 `json:"bindings"`
}

// Encode appends the fields of a struct of this package to a list, by the names
// of its JSON tags. A time travels as nanoseconds.
func Encode(e *attr.Encoder, x any) {
	v := reflect.ValueOf(x)
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("json")
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			e.String(name, f.String())
		case reflect.Int64:
			e.Long(name, f.Int())
		case reflect.Bool:
			e.Bool(name, f.Bool())
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
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(string(a.Value))
		case reflect.Int64:
			n, err := a.Long()
			if err != nil {
				return err
			}
			f.SetInt(n)
		case reflect.Bool:
			b, err := a.Bool()
			if err != nil {
				return err
			}
			f.SetBool(b)
		}
	}
	return nil
}

// EncodeEntry appends an entry of a list reply: a Binding, a Session or End.
func EncodeEntry(e *attr.Encoder, x any) {
	switch x.(type) {
	case Binding:
		e.String("entry", "binding")
	case Session:
		e.String("entry", "session")
	case End:
		e.String("entry", "end")
	}
	Encode(e, x)
}

// DecodeEntry returns an entry of a list reply: a Binding, a Session or End.
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
	case "end":
		return End{}, nil
	}
	return nil, fmt.Errorf("unknown entry of a list: %.100q", entry.Value)
}
