// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/fdpass"
	"scache/internal/histogram"
)

// The description is a sequence of attribute lists. The first one is a header with the
// version and the number of entries of each kind; each of the others is an entry. An entry
// names its kind and the number of its descriptors, which are the next ones in the queues.
// Readers skip entries and attributes that they do not know; missing ones have a default.
// Times are in nanoseconds of CLOCK_BOOTTIME, the clock that all processes share.
//
// Version 2 is written. Versions 1 (see version1.go) and later ones are read.
const version = 2

// Kinds of entries.
const (
	kindCounts      = "counts"
	kindClient      = "client"
	kindBinding     = "binding"
	kindSession     = "session"
	kindLabelCounts = "hits"

	// See receivers.go.
	kindReceiverName        = "receiver_name"
	kindReceiverDestination = "receiver_destination"
	kindReceiverBegun       = "receiver_begun"
	kindReceiverHold        = "receiver_hold"
	kindReceiverTotal       = "receiver_total"
	kindReceiverClaim       = "receiver_claim"
)

// Bounds of a description. They are far above what a server writes: any process that can connect
// may send one.
const (
	maxEntrySize   = 16 << 20
	maxText        = 2 << 20 // labels and properties of a binding or session
	maxSize        = 1 << 30
	maxEntries     = 2 << 20
	maxAttributes  = 1000 // of one entry
	maxDescriptors = 16   // of one entry
)

// An entryWriter writes a description.
type entryWriter struct {
	*attr.Encoder
	now time.Duration
}

// writeState writes the description of a state. The entries with descriptors are in the order in
// which those are sent: clients, claims, sessions, and the clients from the accept queue.
func writeState(w io.Writer, s *State, queued []Client, now time.Duration) error {
	e := entryWriter{attr.NewEncoder(w), now}
	e.SetMaxSize(maxEntrySize)
	e.Int("version", version)
	e.Int("bindings", int32(len(s.Bindings)))
	e.Int("sessions", int32(len(s.Sessions)))
	e.Int("clients", int32(len(s.Clients)+len(queued)))
	if err := e.End(); err != nil {
		return err
	}
	if err := e.counts(&s.Counts); err != nil {
		return err
	}
	if err := e.receivers(&s.Receivers); err != nil {
		return err
	}
	if err := writeEach(s.Clients, e.client); err != nil {
		return err
	}
	if err := writeEach(s.Claims, e.receiverClaim); err != nil {
		return err
	}
	if err := writeEach(s.Bindings, e.binding); err != nil {
		return err
	}
	if err := writeEach(s.Sessions, e.session); err != nil {
		return err
	}
	if err := writeEach(queued, e.client); err != nil {
		return err
	}
	return writeEach(s.Labels, e.labelCounts)
}

func writeEach[T any](all []T, write func(*T) error) error {
	for i := range all {
		if err := write(&all[i]); err != nil {
			return err
		}
	}
	return nil
}

func (e entryWriter) begin(kind string, descriptors int32) {
	e.String("entry", kind)
	e.Int("descriptors", descriptors)
}

func (e entryWriter) time(name string, at time.Duration) { e.Long(name, int64(at)) }

func (e entryWriter) counts(c *Counts) error {
	e.begin(kindCounts, 0)
	e.time("since", e.now-c.Age)
	for name, n := range c.Continued() {
		e.Long(name, *n)
	}
	for name, t := range c.Times() {
		e.String(name, t.String())
	}
	return e.End()
}

func (e entryWriter) client(c *Client) error {
	e.begin(kindClient, int32(len(c.descriptors())))
	e.String("state", string(c.Phase))
	e.Bool("ack_due", c.AckDue)
	e.Data("unread", c.Unread)
	e.Data("unwritten", c.Unwritten)
	if c.TooLong {
		e.Bool("too_long", true)
	}
	if c.Timeout > 0 {
		e.time("deadline", e.now+c.Timeout)
	}
	if c.Wait != nil {
		e.wait(c.Wait)
	}
	return e.End()
}

func (e entryWriter) binding(b *cache.SavedBinding) error {
	e.begin(kindBinding, 0)
	e.String("label", b.Label)
	e.String("property", b.Property)
	e.String("endpoint", b.Endpoint)
	e.time("saved", e.now-b.Age)
	e.time("deadline", e.now+b.TTL)
	return e.End()
}

func (e entryWriter) session(s *cache.SavedSession) error {
	e.begin(kindSession, 1)
	e.String("label", s.Label)
	e.String("property", s.Property)
	e.time("saved", e.now-s.Age)
	e.time("deadline", e.now+s.TTL)
	return e.End()
}

// labelCounts writes the counts as numbers in the order of the events: there may be many labels,
// and clients wait meanwhile.
func (e entryWriter) labelCounts(h *LabelCounts) error {
	e.begin(kindLabelCounts, 0)
	e.String("level", h.Level)
	e.String("label", h.Label)
	e.time("since", e.now-h.Age)
	text := make([]byte, 0, 64)
	for _, n := range h.Counts {
		text = append(strconv.AppendInt(text, n, 10), ' ')
	}
	e.String("counts", string(text))
	e.Long("error", h.Error)
	return e.End()
}

// descriptors returns the descriptors of a client, in the order in which they are sent.
func (c *Client) descriptors() []int {
	if c.Session != fdpass.None {
		return []int{c.FD, c.Session}
	}
	return []int{c.FD}
}

// An entryReader reads a description.
type entryReader struct {
	in      *attr.Decoder
	now     func() time.Duration
	version int32
	read    int            // number of entries read so far
	missing map[string]int // number of entries, by kind, that are announced and not read yet
}

// newEntryReader reads the header.
func newEntryReader(r io.Reader, now func() time.Duration) (*entryReader, error) {
	e := &entryReader{in: attr.NewDecoder(r), now: now, missing: map[string]int{}}
	e.in.SetMaxSize(maxEntrySize)
	e.in.SetMaxAttrs(maxAttributes)
	list, err := e.in.Decode()
	if err != nil {
		return e, fmt.Errorf("read the description: %w", err)
	}
	f := attributes{list: list}
	e.version = f.int("version", 0)
	for name, kind := range map[string]string{
		"bindings": kindBinding, "sessions": kindSession, "clients": kindClient,
	} {
		n := f.int(name, 0)
		if n < 0 || n > maxEntries {
			f.note(fmt.Errorf("%d %s", n, name))
			continue
		}
		e.missing[kind] = int(n)
	}
	if e.version < 1 {
		f.note(fmt.Errorf("version %d", e.version))
	}
	if f.err != nil {
		return e, fmt.Errorf("header of the description: %w", f.err)
	}
	return e, nil
}

// next reads the next entry, and returns its kind and the number of its descriptors. The
// error is io.EOF at the end.
func (e *entryReader) next() (kind string, descriptors int, f attributes, err error) {
	list, err := e.in.Decode()
	if err != nil {
		return "", 0, f, err
	}
	f = attributes{list: list, now: e.now}
	if e.version == 1 {
		kind, descriptors = e.nextOfVersion1()
	} else {
		kind, descriptors = f.string("entry"), int(f.int("descriptors", 0))
	}
	e.read++
	switch {
	case f.err != nil:
	case kind == "":
		f.err = fmt.Errorf("no kind")
	case descriptors < 0 || descriptors > maxDescriptors:
		f.err = fmt.Errorf("%d descriptors", descriptors)
	case e.read > maxEntries:
		f.err = fmt.Errorf("more than %d entries", maxEntries)
	}
	if f.err != nil {
		return kind, 0, f, fmt.Errorf("entry of the description: %w", f.err)
	}
	if e.missing[kind] > 0 {
		e.missing[kind]--
	}
	return kind, descriptors, f, nil
}

func (e *entryReader) binding(f attributes) (cache.SavedBinding, error) {
	b := cache.SavedBinding{
		Label: f.string("label"), Property: f.string("property"), Endpoint: f.string("endpoint"),
		Age: f.since("saved"), TTL: f.until("deadline"),
	}
	if e.version == 1 {
		b.Endpoint = endpointOfVersion1(f)
	}
	return b, f.err
}

func readSession(f attributes, fd int) (cache.SavedSession, error) {
	s := cache.SavedSession{
		Label: f.string("label"), Property: f.string("property"),
		Age: f.since("saved"), TTL: f.until("deadline"), FD: fd,
	}
	return s, f.err
}

// readClient returns a client without its descriptors. announcement is the first output to a
// client that has received none yet. Descriptions of version 1 do not contain its bytes.
func readClient(f attributes, announcement []byte) (Client, error) {
	c := Client{
		FD: fdpass.None, Session: fdpass.None,
		Phase:     Phase(cmp.Or(f.string("state"), string(BetweenRequests))),
		AckDue:    f.bool("ack_due"),
		Unread:    f.data("unread"),
		Unwritten: f.data("unwritten"),
		TooLong:   f.bool("too_long"),
		Timeout:   f.until("deadline"),
	}
	if f.bool("to_announce") { // version 1
		c.Unwritten = announcement
	}
	c.Wait = readWait(&f)
	return c, f.err
}

func readCounts(f attributes) (c Counts, err error) {
	c.Age = f.since("since")
	for name, n := range c.Continued() {
		*n = f.long(name)
	}
	for name, t := range c.Times() {
		*t = f.histogram(name)
	}
	f.note(c.Check())
	if c.Age > f.now() {
		f.note(fmt.Errorf("counting began %v ago, before the machine was started", c.Age))
	}
	return c, f.err
}

func readLabelCounts(f attributes) (h LabelCounts, err error) {
	h.Level, h.Label = f.string("level"), f.string("label")
	h.Age, h.Error = f.since("since"), f.long("error")
	i := 0
	for text := range strings.FieldsSeq(f.string("counts")) {
		if i == len(h.Counts) {
			break // a later version may count more
		}
		n, err := strconv.ParseInt(text, 10, 64)
		f.note(err)
		h.Counts[i] = n
		i++
	}
	f.note(h.Check())
	return h, f.err
}

// attributes reads the attributes of an entry. A missing attribute has a default. err is the first
// error in a value.
type attributes struct {
	list attr.List
	now  func() time.Duration
	err  error
}

// note keeps an error, if it is the first one.
func (f *attributes) note(err error) { f.err = cmp.Or(f.err, err) }

func (f *attributes) string(name string) string {
	a, _ := f.list.Lookup(name)
	return string(a.Value)
}

func (f *attributes) histogram(name string) histogram.Values {
	v, err := histogram.Parse(f.string(name))
	f.note(err)
	return v
}

func (f *attributes) int(name string, missing int32) int32 {
	a, found := f.list.Lookup(name)
	if !found {
		return missing
	}
	n, err := a.Int()
	f.note(err)
	return n
}

func (f *attributes) long(name string) int64 {
	a, found := f.list.Lookup(name)
	if !found {
		return 0
	}
	n, err := a.Long()
	f.note(err)
	return n
}

func (f *attributes) bool(name string) bool {
	a, found := f.list.Lookup(name)
	if !found {
		return false
	}
	b, err := a.Bool()
	f.note(err)
	return b
}

func (f *attributes) data(name string) []byte {
	a, found := f.list.Lookup(name)
	if !found || len(a.Value) == 0 {
		return nil
	}
	data, err := a.Data()
	f.note(err)
	return data
}

// since returns the time since a past moment, and until the time until a future one, which is
// negative when that moment has come. Both are zero where the attribute is missing.
func (f *attributes) since(name string) time.Duration {
	if at := f.long(name); at != 0 {
		return max(f.now()-time.Duration(at), 0)
	}
	return 0
}

func (f *attributes) until(name string) time.Duration {
	if at := f.long(name); at != 0 {
		return cmp.Or(time.Duration(at)-f.now(), -1)
	}
	return 0
}
