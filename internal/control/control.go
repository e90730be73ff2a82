// SPDX-License-Identifier: EPL-2.0

// Package control defines the requests of an operator to a connection cache server, and
// the contents of their replies. Of the requests of Postfix it has only the names, and the codes
// of their replies.
//
// A request is an attribute list like those of Postfix's own clients:
//
//	request=status                  status=0 and the attributes of a Status
//	request=list                    status=0, a list for each Binding and Session, and End
//	request=flush                   status=0 and the attributes of a Flushed: drops everything
//	request=flush label=LABEL …     the same: drops only what has one of these labels
//	request=hits level=LEVEL        status=0, a list for each LabelCounts, and End
//	request=receivers               status=0, a list for each Receiver, and End
//	request=restart                 status=0; then a new process takes over, without loss
//
// A server that does not know a request answers status=1, as the stock server does.
package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"scache/attr"
	"scache/internal/histogram"
	"scache/internal/stats"
)

// A Code is the status of a reply.
type Code int32

// Codes.
const (
	OK       Code = iota
	Bad           // the request is malformed or not known
	NotFound      // there is no such session, or no descriptor was sent
)

// Requests of Postfix's own clients.
const (
	RequestSaveEndpoint    = "save_endp"
	RequestFindEndpoint    = "find_endp"
	RequestSaveDestination = "save_dest"
	RequestFindDestination = "find_dest"
)

// Requests of operators.
const (
	RequestStatus  = "status"
	RequestList    = "list"
	RequestFlush   = "flush"
	RequestRestart = "restart"
	RequestHits    = "hits"
)

// Levels of the cache. The busiest labels of each level are counted.
const (
	LevelDestination = "destination"
	LevelEndpoint    = "endpoint"
)

// Seconds is a duration. In attributes and in JSON it is a number of seconds.
type Seconds time.Duration

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) { return []byte(s.decimal()), nil }

func (s Seconds) decimal() string {
	return strconv.FormatFloat(time.Duration(s).Seconds(), 'f', -1, 64)
}

func parseSeconds(text []byte) (Seconds, error) {
	d, err := time.ParseDuration(string(text) + "s")
	return Seconds(d), err
}

// A Status is the state of a server. A server that took over from another one continues
// its counts. The tag help says what a field is, for the manual page.
type Status struct {
	Version string  `json:"version" help:"The version of the server that runs."`
	PID     int64   `json:"pid" help:"Its process ID."`
	Uptime  Seconds `json:"uptime_seconds" help:"How long this process has been running."`
	Counted Seconds `json:"counted_seconds" help:"How long the counts have been growing."`

	stats.Values

	TTLLimit      Seconds `json:"ttl_limit_seconds" help:"The longest time to live; 0 is no limit."`
	ClientTimeout Seconds `json:"client_timeout_seconds" help:"How long a request may take a client."`
	LivenessCheck bool    `json:"liveness_check" help:"Whether sessions are checked before reuse."`
	Goodbye       bool    `json:"goodbye" help:"Whether sessions are closed with QUIT."`
	Announces     bool    `json:"announces" help:"Whether the server speaks first, as in Postfix 3.6."`
}

// MarshalJSON implements json.Marshaler.
func (s Status) MarshalJSON() ([]byte, error) { return MarshalFields(&s) }

// A Binding leads from a destination to an endpoint.
type Binding struct {
	Destination string  `json:"destination"`
	Endpoint    string  `json:"endpoint"`
	Property    string  `json:"property"`
	Age         Seconds `json:"age_seconds"`  // since it was last saved
	Remaining   Seconds `json:"left_seconds"` // of the time to live
}

// A Session is a cached connection to an endpoint.
type Session struct {
	Endpoint  string  `json:"endpoint"`
	Property  string  `json:"property"`
	Remote    string  `json:"remote"`   // the address of the remote end, or ""
	Receiver  string  `json:"receiver"` // its name in connection_cache_receivers, or ""
	Age       Seconds `json:"age_seconds"`
	Remaining Seconds `json:"left_seconds"`
}

// LabelCounts are the counts of one of the busiest destinations or endpoints. Up to Error events
// may be missing, from before it was one of the busiest.
type LabelCounts struct {
	Label    string  `json:"label"`
	Hits     int64   `json:"hits"`
	Misses   int64   `json:"misses"`
	Saves    int64   `json:"saves"`
	Expired  int64   `json:"expired"`
	Dead     int64   `json:"dead"`
	Evicted  int64   `json:"evicted"` // dropped to make room for others
	Flushed  int64   `json:"flushed"` // dropped because an operator asked for it
	Error    int64   `json:"error"`
	Receiver string  `json:"receiver"`        // of an endpoint, as in Session
	Counted  Seconds `json:"counted_seconds"` // since it became one of the busiest
}

// End ends a reply that is a list of entries.
type End struct{}

// Flushed is the number of entries that a flush request has dropped.
type Flushed struct {
	Sessions int64 `json:"sessions"`
	Bindings int64 `json:"bindings"`
}

// fields calls f with the name and the address of each field of a struct, given the
// struct's address. The tables of package stats have the fields of a stats.Values. The
// fields of other embedded structs are fields of the struct itself.
func fields(x any, f func(name string, field any) error) error {
	if v, ok := x.(*stats.Values); ok {
		return numbers(v, f)
	}
	v := reflect.ValueOf(x).Elem()
	for i := range v.NumField() {
		var err error
		field := v.Field(i).Addr().Interface()
		if v.Type().Field(i).Anonymous {
			err = fields(field, f)
		} else {
			err = f(v.Type().Field(i).Tag.Get("json"), field)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func numbers(v *stats.Values, f func(name string, field any) error) error {
	for i := range stats.Numbers {
		if err := f(stats.Numbers[i].Name, stats.Numbers[i].Field(v)); err != nil {
			return err
		}
	}
	for i := range stats.Times {
		if err := f(stats.Times[i].Name, stats.Times[i].Field(v)); err != nil {
			return err
		}
	}
	return nil
}

// MarshalFields returns a struct as a JSON object, given its address. Unlike package json,
// it knows the fields of a Status that are in the tables of package stats. It leaves out
// fields that are nil.
func MarshalFields(x any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	err := fields(x, func(name string, field any) error {
		text, err := json.Marshal(field)
		if err != nil || string(text) == "null" {
			return err
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", name, text)
		return nil
	})
	b.WriteByte('}')
	return b.Bytes(), err
}

// Help returns the fields of a struct in order, given its address, each with its name and
// what it is.
func Help(x any) (all [][2]string) {
	if _, ok := x.(*stats.Values); ok {
		for _, n := range stats.Numbers {
			all = append(all, [2]string{n.Name, n.Help})
		}
		for _, t := range stats.Times {
			all = append(all, [2]string{t.Name, t.Help})
		}
		return all
	}
	v := reflect.ValueOf(x).Elem()
	for i := range v.NumField() {
		if field := v.Type().Field(i); field.Anonymous {
			all = append(all, Help(v.Field(i).Addr().Interface())...)
		} else {
			all = append(all, [2]string{field.Tag.Get("json"), field.Tag.Get("help")})
		}
	}
	return all
}

// Encode appends the fields of a struct of this package to a list, by their names in JSON.
// It does not allocate for entries of a list: there may be many.
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
		case stats.Values:
			encodeNumbers(e, &value)
		}
	}
}

func encodeNumbers(e *attr.Encoder, v *stats.Values) {
	numbers(v, func(name string, field any) error {
		switch field := field.(type) {
		case *int64:
			e.Long(name, *field)
		case *histogram.Values:
			e.String(name, field.String())
		}
		return nil
	})
}

// Decode sets the fields of a struct of this package, given its address. It does not change
// fields that are missing in the list, and ignores unknown attributes: client and server may
// be of different versions.
func Decode(list attr.List, x any) error {
	return fields(x, func(name string, field any) error {
		a, found := list.Lookup(name)
		if !found {
			return nil
		}
		var err error
		switch field := field.(type) {
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
		return nil
	})
}

// EncodeEntry appends an entry of a reply: a Binding, a Session, a LabelCounts,
// a Receiver or End.
func EncodeEntry(e *attr.Encoder, x any) {
	switch x.(type) {
	case Binding:
		e.String("entry", "binding")
	case Session:
		e.String("entry", "session")
	case LabelCounts:
		e.String("entry", "hits")
	case Receiver:
		e.String("entry", "receiver")
	case End:
		e.String("entry", "end")
	}
	Encode(e, x)
}

// DecodeEntry returns an entry of a reply: a Binding, a Session, a LabelCounts,
// a Receiver or End.
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
		var h LabelCounts
		err := Decode(list, &h)
		return h, err
	case "receiver":
		var r Receiver
		err := Decode(list, &r)
		return r, err
	case "end":
		return End{}, nil
	}
	return nil, fmt.Errorf("unknown entry of a list: %.100q", entry.Value)
}
