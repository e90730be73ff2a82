// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"net/netip"
	"time"

	"scache/internal/receivers"
)

// receivers writes what is known of receivers. There is an entry for each name of an address,
// each destination and each connection that has begun lately. Others are for processes with a
// connection that the kernel does not show, and for the totals of each rule.
func (e entryWriter) receivers(s *receivers.State) error {
	if err := writeEach(s.Names, e.receiverName); err != nil {
		return err
	}
	if err := writeEach(s.Destinations, e.receiverDestination); err != nil {
		return err
	}
	if err := writeEach(s.Begun, e.receiverBegun); err != nil {
		return err
	}
	if err := writeEach(s.Holds, e.receiverHold); err != nil {
		return err
	}
	return writeEach(s.Totals, e.receiverTotal)
}

func (e entryWriter) receiverName(n *receivers.KnownName) error {
	e.begin(kindReceiverName, 0)
	e.String("address", n.Address.String())
	e.String("name", n.Name)
	e.time("deadline", e.now+n.Remaining)
	return e.End()
}

func (e entryWriter) receiverDestination(d *receivers.KnownDestination) error {
	e.begin(kindReceiverDestination, 0)
	e.String("label", d.Label)
	e.String("endpoint", d.Endpoint)
	e.time("deadline", e.now+d.Remaining)
	e.time("binding_deadline", e.now+d.Binding)
	return e.End()
}

func (e entryWriter) receiverBegun(b *receivers.KnownBegun) error {
	e.begin(kindReceiverBegun, 0)
	e.String("receiver", b.Receiver)
	if b.Address.IsValid() {
		e.String("address", b.Address.String())
	}
	e.time("since", e.now-b.Age)
	return e.End()
}

func (e entryWriter) receiverHold(h *receivers.KnownHold) error {
	e.begin(kindReceiverHold, 0)
	e.String("receiver", h.Receiver)
	if h.Address.IsValid() {
		e.String("address", h.Address.String())
	}
	e.Int("pid", int32(h.PID))
	return e.End()
}

func (e entryWriter) receiverTotal(t *receivers.RuleTotals) error {
	e.begin(kindReceiverTotal, 0)
	e.String("receiver", t.Receiver)
	e.Long("new", t.Counts.New)
	e.Long("given", t.Counts.Given)
	e.Long("overflows", t.Counts.Overflows)
	e.Long("refused", t.Counts.Refused)
	e.Long("closed", t.Counts.Closed)
	e.String("waited", t.Waited.String())
	return e.End()
}

func (e entryWriter) receiverClaim(c *Claim) error {
	e.begin(kindReceiverClaim, 1)
	e.String("receiver", c.Receiver)
	return e.End()
}

// readReceivers returns the part of a State that an entry has, or nil.
func readReceivers(kind string, f attributes) (*receivers.State, error) {
	s := &receivers.State{}
	switch kind {
	case kindReceiverName:
		s.Names = []receivers.KnownName{{
			Address: f.address("address"), Name: f.string("name"), Remaining: f.until("deadline"),
		}}
	case kindReceiverDestination:
		s.Destinations = []receivers.KnownDestination{{
			Label: f.string("label"), Endpoint: f.string("endpoint"),
			Remaining: f.until("deadline"), Binding: f.until("binding_deadline"),
		}}
	case kindReceiverBegun:
		s.Begun = []receivers.KnownBegun{{
			Receiver: f.string("receiver"), Address: f.address("address"), Age: f.since("since"),
		}}
	case kindReceiverHold:
		s.Holds = []receivers.KnownHold{{
			Receiver: f.string("receiver"), Address: f.address("address"), PID: int(f.int("pid", 0)),
		}}
	case kindReceiverTotal:
		s.Totals = []receivers.RuleTotals{{
			Receiver: f.string("receiver"),
			Counts: receivers.Totals{
				New: f.long("new"), Given: f.long("given"), Overflows: f.long("overflows"),
				Refused: f.long("refused"), Closed: f.long("closed"),
			},
			Waited: f.histogram("waited"),
		}}
	default:
		return nil, f.err
	}
	return s, f.err
}

// address returns an address, which is not valid where the attribute is missing.
func (f *attributes) address(name string) (a netip.Addr) {
	if text := f.string(name); text != "" {
		var err error
		a, err = netip.ParseAddr(text)
		f.note(err)
	}
	return a
}

// wait writes attributes of a client. Versions that do not know them see a client whose
// request was not answered yet.
func (e entryWriter) wait(w *Wait) {
	e.Bool("wait_pending", w.Pending)
	e.Bool("wait_in_line", w.Waiting)
	e.Bool("wait_settled", w.Settled)
	e.Long("wait_place", int64(w.Place))
	e.String("wait_destination", w.Destination)
	e.String("wait_label", w.Label)
	e.time("wait_since", e.now-w.Waited)
	e.time("wait_until", e.now+w.Remaining)
	for _, label := range w.Asked {
		e.String("wait_asked", label)
	}
	if w.Promised != "" {
		e.String("wait_promised", w.Promised)
		e.time("wait_promised_at", e.now-w.PromiseAge)
	}
}

// maxWait bounds times in what is read: no client waits for that long.
const maxWait = 24 * time.Hour

func readWait(f *attributes) *Wait {
	if _, found := f.list.Lookup("wait_pending"); !found {
		return nil
	}
	w := &Wait{Pending: f.bool("wait_pending"), ClientState: receivers.ClientState{
		Waiting: f.bool("wait_in_line"), Settled: f.bool("wait_settled"),
		Place: uint64(f.long("wait_place")), Destination: f.string("wait_destination"),
		Label: f.string("wait_label"), Waited: min(f.since("wait_since"), maxWait),
		Remaining: min(max(f.until("wait_until"), 0), maxWait), Promised: f.string("wait_promised"),
		PromiseAge: f.since("wait_promised_at"),
	}}
	for _, a := range f.list {
		if string(a.Name) == "wait_asked" {
			w.Asked = append(w.Asked, string(a.Value))
		}
	}
	return w
}
