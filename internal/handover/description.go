// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/histogram"
)

// The description is a sequence of attribute lists. The first one is a header
// with the version and with the number of the entries of each kind, and each of
// the others is an entry. Moments are those of the clock that all processes
// share, in nanoseconds since the machine was started.
//
// In version 2 an entry tells its kind, and how many of the descriptors that wait
// belong to it: the next ones. So entries of kinds that are not known are
// skipped, as are attributes that are not known; those that are missing have a
// default. In version 1, the kinds and the descriptors of entries follow from the
// header.
//
// Versions 1 and 2 are read; version 2 is written.
const version = 2

// Kinds of entries.
const (
	counts  = "counts"
	client  = "client"
	binding = "binding"
	session = "session"
	hit     = "hits"
)

// maxEntry bounds a list of the description: a client with all that it has said
// and is to hear.
const maxEntry = 16 << 20

// describe writes the description of an estate.
func describe(w io.Writer, e *Estate, now time.Duration) error {
	d := describer{attr.NewEncoder(w), now}
	d.SetMaxSize(maxEntry)
	d.Int("version", version)
	d.Int("bindings", int32(len(e.Bindings)))
	d.Int("sessions", int32(len(e.Sessions)))
	d.Int("clients", int32(len(e.Clients)))
	if err := d.End(); err != nil {
		return err
	}
	if err := d.counts(e.Counts); err != nil {
		return err
	}
	for i := range e.Clients {
		if err := d.client(&e.Clients[i]); err != nil {
			return err
		}
	}
	for i := range e.Bindings {
		if err := d.binding(&e.Bindings[i]); err != nil {
			return err
		}
	}
	for i := range e.Sessions {
		if err := d.session(&e.Sessions[i]); err != nil {
			return err
		}
	}
	for i := range e.Hits {
		if err := d.hits(&e.Hits[i]); err != nil {
			return err
		}
	}
	return nil
}

type describer struct {
	*attr.Encoder
	now time.Duration
}

func (d describer) begin(kind string, descriptors int32) {
	d.String("entry", kind)
	d.Int("descriptors", descriptors)
}

func (d describer) moment(name string, at time.Duration) { d.Long(name, int64(at)) }

func (d describer) counts(c Counts) error {
	d.begin(counts, 0)
	d.moment("since", d.now-c.Age)
	fields := c.fields()
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		d.Long(name, int64(*fields[name]))
	}
	d.String("took", c.Took.String())
	d.String("waited", c.Waited.String())
	return d.End()
}

func (d describer) client(c *Client) error {
	d.begin(client, int32(len(c.descriptors())))
	d.String("state", string(c.State))
	d.Bool("ack_due", c.AckDue)
	d.Data("unread", c.Unread)
	d.Data("unwritten", c.Unwritten)
	if c.Left > 0 {
		d.moment("deadline", d.now+c.Left)
	}
	return d.End()
}

func (d describer) binding(b *cache.SavedBinding) error {
	d.begin(binding, 0)
	d.String("label", b.Label)
	d.String("property", b.Property)
	d.String("endpoint", b.Endpoint)
	d.moment("saved", d.now-b.Age)
	d.moment("deadline", d.now+b.TTL)
	return d.End()
}

func (d describer) session(s *cache.SavedSession) error {
	d.begin(session, 1)
	d.String("label", s.Label)
	d.String("property", s.Property)
	d.moment("saved", d.now-s.Age)
	d.moment("deadline", d.now+s.TTL)
	return d.End()
}

// hits writes the counts as numbers in the order of the events, as there may be many
// labels, and clients wait meanwhile.
func (d describer) hits(h *Hits) error {
	d.begin(hit, 0)
	d.String("level", h.Level)
	d.String("label", h.Label)
	d.moment("since", d.now-h.Age)
	text := make([]byte, 0, 64)
	for _, n := range h.Counts {
		text = append(strconv.AppendInt(text, n, 10), ' ')
	}
	d.String("counts", string(text))
	d.Long("error", h.Error)
	return d.End()
}

func restoreHits(f fields) (h Hits, err error) {
	h.Level, h.Label, h.Age, h.Error = f.string("level"), f.string("label"), f.since("since"), f.long("error")
	for i, text := range strings.Fields(f.string("counts")) {
		n, err := strconv.ParseInt(text, 10, 64)
		f.keep(err)
		if i < len(h.Counts) { // a later version may count more
			h.Counts[i] = n
		}
	}
	return h, f.err
}

// descriptors returns those that belong to a client.
func (c *Client) descriptors() []int {
	if c.Session >= 0 {
		return []int{c.FD, c.Session}
	}
	return []int{c.FD}
}

// fields returns the counts by their names in the description.
func (c *Counts) fields() map[string]*int {
	return map[string]*int{
		"connections":        &c.Connections,
		"refused":            &c.Refused,
		"lost":               &c.Lost,
		"lost_lines":         &c.LostLines,
		"destination_hits":   &c.Destination.Hits,
		"destination_misses": &c.Destination.Misses,
		"endpoint_hits":      &c.Endpoint.Hits,
		"endpoint_misses":    &c.Endpoint.Misses,
		"saved":              &c.Saved,
		"taken_over":         &c.TakenOver,
		"expired":            &c.Ended[cache.Expired],
		"evicted":            &c.Ended[cache.Evicted],
		"flushed":            &c.Ended[cache.Flushed],
		"dead":               &c.Ended[cache.Dead],
		"evicted_bindings":   &c.EvictedBindings,
		"peak_destinations":  &c.Peak.Destinations,
		"peak_endpoints":     &c.Peak.Endpoints,
		"peak_sessions":      &c.Peak.Sessions,
	}
}

// A reader reads a description.
type reader struct {
	in       *attr.Decoder
	now      func() time.Duration
	version  int32
	left     map[string]int // entries, by kind, that were announced and not read yet
	attached int            // descriptors that belong to the entry that was read last
}

// newReader reads the header.
func newReader(r io.Reader, now func() time.Duration) (*reader, error) {
	d := &reader{in: attr.NewDecoder(r), now: now, left: map[string]int{}}
	d.in.SetMaxSize(maxEntry)
	list, err := d.in.Decode()
	if err != nil {
		return d, fmt.Errorf("read the description: %w", err)
	}
	f := fields{list: list}
	d.version = f.int("version", 0)
	for name, kind := range map[string]string{"bindings": binding, "sessions": session, "clients": client} {
		if n := f.int(name, 0); n > 0 {
			d.left[kind] = int(n)
		}
	}
	if f.err == nil && d.version < 1 {
		f.err = fmt.Errorf("version %d", d.version)
	}
	if f.err != nil {
		return d, fmt.Errorf("header of the description: %w", f.err)
	}
	return d, nil
}

// next reads the next entry, and returns its kind. The error is io.EOF at the
// end.
func (d *reader) next() (kind string, f fields, err error) {
	list, err := d.in.Decode()
	if err != nil {
		return "", f, err
	}
	f = fields{list: list, now: d.now}
	if d.version == 1 {
		kind, d.attached = d.nextOfVersion1(), 1
		if kind == binding {
			d.attached = 0
		}
	} else {
		kind, d.attached = f.string("entry"), int(f.int("descriptors", 0))
	}
	if d.attached < 0 || d.attached > maxAttached {
		f.err = fmt.Errorf("%d descriptors", d.attached)
	}
	if f.err != nil {
		return kind, f, fmt.Errorf("entry of the description: %w", f.err)
	}
	if d.left[kind] > 0 {
		d.left[kind]--
	}
	return kind, f, nil
}

// maxAttached bounds the descriptors of one entry.
const maxAttached = 16

// nextOfVersion1 returns the kind of the next entry: bindings come first, then
// sessions, then clients.
func (d *reader) nextOfVersion1() string {
	for _, kind := range []string{binding, session} {
		if d.left[kind] > 0 {
			return kind
		}
	}
	return client
}

func (d *reader) restoreBinding(f fields) (b cache.SavedBinding, err error) {
	b = cache.SavedBinding{Label: f.string("label"), Property: f.string("property"), Age: f.since("saved"), TTL: f.until("deadline")}
	if d.version == 1 { // the second label is that of the endpoint
		b.Endpoint = f.last("label")
	} else {
		b.Endpoint = f.string("endpoint")
	}
	return b, f.err
}

func restoreSession(f fields, fd int) (cache.SavedSession, error) {
	s := cache.SavedSession{Label: f.string("label"), Property: f.string("property"), Age: f.since("saved"), TTL: f.until("deadline"), FD: fd}
	return s, f.err
}

// restoreClient returns a client without its descriptors.
func restoreClient(f fields, announcement []byte) (Client, error) {
	c := Client{
		FD: -1, Session: -1,
		State:     State(cmp.Or(f.string("state"), string(BetweenRequests))),
		AckDue:    f.bool("ack_due"),
		Unread:    f.data("unread"),
		Unwritten: f.data("unwritten"),
		Left:      f.until("deadline"),
	}
	if f.bool("to_announce") { // version 1
		c.Unwritten = announcement
	}
	return c, f.err
}

func restoreCounts(f fields) (c Counts, err error) {
	c.Age = f.since("since")
	for name, n := range c.fields() {
		*n = int(f.long(name))
	}
	c.Took, c.Waited = f.histogram("took"), f.histogram("waited")
	return c, f.err
}

// fields are the attributes of an entry, which may be missing. The first one that
// cannot be understood leaves an error.
type fields struct {
	list attr.List
	now  func() time.Duration
	err  error
}

func (f *fields) keep(err error) { f.err = errors.Join(f.err, err) }

func (f *fields) string(name string) string {
	a, _ := f.list.Lookup(name)
	return string(a.Value)
}

func (f *fields) histogram(name string) histogram.Values {
	v, err := histogram.Parse(f.string(name))
	f.keep(err)
	return v
}

// last returns the last attribute with this name.
func (f *fields) last(name string) (value string) {
	for _, a := range f.list {
		if string(a.Name) == name {
			value = string(a.Value)
		}
	}
	return value
}

func (f *fields) int(name string, missing int32) int32 {
	a, found := f.list.Lookup(name)
	if !found {
		return missing
	}
	n, err := a.Int()
	f.keep(err)
	return n
}

func (f *fields) long(name string) int64 {
	a, found := f.list.Lookup(name)
	if !found {
		return 0
	}
	n, err := a.Long()
	f.keep(err)
	return n
}

func (f *fields) bool(name string) bool {
	a, found := f.list.Lookup(name)
	if !found {
		return false
	}
	b, err := a.Bool()
	f.keep(err)
	return b
}

func (f *fields) data(name string) []byte {
	a, found := f.list.Lookup(name)
	if !found || len(a.Value) == 0 {
		return nil
	}
	data, err := a.Data()
	f.keep(err)
	return data
}

// since returns how long ago a moment was, and until how far it is ahead. Both
// are zero where it is missing.
func (f *fields) since(name string) time.Duration {
	if at := f.long(name); at != 0 {
		return max(f.now()-time.Duration(at), 0)
	}
	return 0
}

func (f *fields) until(name string) time.Duration {
	if at := f.long(name); at != 0 {
		return time.Duration(at) - f.now()
	}
	return 0
}
