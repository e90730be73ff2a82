// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"cmp"
	"slices"

	"scache/internal/cache"
	"scache/internal/fdpass"
)

// The description is there as a whole, and quickly read. Descriptors may take much longer, as
// the kernel may have to grow the table of descriptors of the process. So entries are read ahead
// of their descriptors, and those without any come first: a server that knows all bindings, and
// the labels of all sessions, can answer most requests of clients before a session has arrived.

// Announced has the labels of the sessions that come later. More is set if there are others,
// and other bindings, too.
type Announced struct {
	Labels []string
	More   bool
}

// Bounds of what is read ahead. The rest is read when it is needed.
const (
	maxAhead     = 1 << 17 // entries
	maxAheadText = 64 << 20
)

// An item is an entry of the description, without its descriptors.
type item struct {
	kind        string
	descriptors int
	entry       any   // as it is yielded; nil if it is not understood, or too long
	err         error // why nothing after it can be used
	text        int   // its size
}

// readAhead reads the description, as far as the counts of labels, which come last.
func (r *Reception) readAhead() {
	a := &Announced{}
	var first, others []item
	for n, text := 0, 0; !a.More; n++ {
		i, err := r.readItem()
		if err != nil {
			r.aheadErr = err
			break
		}
		if i.descriptors > 0 || i.err != nil || i.kind == kindLabelCounts {
			others = append(others, i)
		} else {
			first = append(first, i)
		}
		if i.kind == kindLabelCounts {
			break
		}
		if s, isSession := i.entry.(*cache.SavedSession); isSession {
			a.Labels = append(a.Labels, s.Label)
		}
		text += i.text
		a.More = n == maxAhead-1 || text > maxAheadText
	}
	missing := r.entries.missing
	a.More = a.More || missing[kindSession]+missing[kindBinding] > 0
	r.ahead = slices.Concat(first, []item{{entry: a}}, others)
}

// nextItem returns the next item.
func (r *Reception) nextItem() (i item, err error) {
	switch {
	case len(r.ahead) > 0:
		i, r.ahead = r.ahead[0], r.ahead[1:]
		return i, nil
	case r.aheadErr != nil:
		return i, r.aheadErr
	}
	return r.readItem()
}

// readItem reads an item from the description.
func (r *Reception) readItem() (i item, err error) {
	if r.stopped() {
		return i, errStopped
	}
	kind, descriptors, a, err := r.entries.next()
	if err != nil {
		return i, err
	}
	i = item{kind: kind, descriptors: descriptors}
	for _, attribute := range a.list {
		i.text += len(attribute.Value)
	}
	i.entry, i.err = r.parse(kind, a)
	return i, nil
}

// parse returns an entry without its descriptors. It is nil if it is of no known kind, or too
// long.
func (r *Reception) parse(kind string, a attributes) (entry any, err error) {
	text := 0
	switch kind {
	case kindCounts:
		c, err := readCounts(a)
		return r.orRefuse(&c, err), nil
	case kindLabelCounts:
		c, err := readLabelCounts(a)
		return r.orRefuse(&c, err), nil
	case kindBinding:
		b, bad := r.entries.binding(a)
		entry, err, text = &b, bad, len(b.Label)+len(b.Property)+len(b.Endpoint)
	case kindSession:
		s, bad := readSession(a, fdpass.None)
		entry, err, text = &s, bad, len(s.Label)+len(s.Property)
	case kindClient:
		c, bad := readClient(a, r.Announcement)
		entry, err = &c, bad
	case kindReceiverClaim:
		name := a.string("receiver")
		entry, err, text = &Claim{name, fdpass.None}, a.err, len(name)
	default:
		if s, err := readReceivers(kind, a); s != nil {
			return r.orRefuse(s, err), nil
		}
	}
	if err != nil || text > maxText {
		return nil, err
	}
	return entry, nil
}

// orRefuse returns an entry with counts, or nil if they cannot be true. It has no descriptors,
// so the entries behind it can be read.
func (r *Reception) orRefuse(entry any, err error) any {
	if err != nil {
		r.Refused = cmp.Or(r.Refused, err)
		return nil
	}
	return entry
}
