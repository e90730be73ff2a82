// SPDX-License-Identifier: EPL-2.0

package cache

import "time"

// A ListedBinding is a binding as Bindings saw it.
type ListedBinding struct {
	Destination, Property, Endpoint string
	Age, Remaining                  time.Duration // since it was saved last, and until it ends
}

// A ListedSession is a session as Sessions saw it.
type ListedSession struct {
	Endpoint, Property string
	Age, Remaining     time.Duration
	Description        string
}

// A BindingCursor is a place in a listing. The zero value is the beginning.
type BindingCursor struct{ cursor[binding] }

// A SessionCursor is a place in a listing. The zero value is the beginning.
type SessionCursor struct{ cursor[session] }

// Bindings returns up to max bindings, and moves the cursor behind them. Bindings of
// one destination come together and in the order of lookups. Bindings looks at a
// bounded number of entries and returns a bounded number of bytes, so it can return
// fewer than max: the listing ends when more is false. A binding that stays in the
// cache during the whole listing is listed once.
func (c *Cache) Bindings(at *BindingCursor, max int) (list []ListedBinding, more bool) {
	now := c.lock()
	defer c.unlock()
	slots := c.destinations.slots
	bytes := 0
	for room := listRoom; max > 0 && room > 0 && bytes < listBytes && at.slot < len(slots); room-- {
		var q *queue[binding]
		if d := slots[at.slot]; d != nil {
			q = &d.bindings
		}
		if b := at.next(q); b != nil {
			list = append(list, ListedBinding{
				b.destination.label, b.property, b.endpoint.label, now - b.saved, b.deadline - now,
			})
			max--
			bytes += len(b.destination.label) + len(b.property) + len(b.endpoint.label)
		}
	}
	return list, at.slot < len(slots)
}

// Sessions returns up to max sessions, as Bindings returns bindings: sessions of one
// endpoint come together and in the order of lookups. It calls describe with the
// cache locked: otherwise the session could be taken and its descriptor be reused.
func (c *Cache) Sessions(
	at *SessionCursor, max int, describe func(fd int) string,
) (list []ListedSession, more bool) {
	now := c.lock()
	defer c.unlock()
	slots := c.endpoints.slots
	bytes := 0
	for room := listRoom; max > 0 && room > 0 && bytes < listBytes && at.slot < len(slots); room-- {
		var q *queue[session]
		if ep := slots[at.slot]; ep != nil {
			q = &ep.sessions
		}
		if s := at.next(q); s != nil {
			list = append(list, ListedSession{
				s.endpoint.label, s.property, now - s.saved, s.deadline - now, describe(s.fd),
			})
			max--
			bytes += len(s.endpoint.label) + len(s.property)
		}
	}
	return list, at.slot < len(slots)
}

// The bounds of one step of a listing: it looks at listRoom slots and entries, and
// ends with the entry that makes the strings longer than listBytes.
const (
	listRoom  = 1000
	listBytes = 16 << 10
)

// A cursor is a place in a table of queues. It holds the entry that it visited last,
// and the sequence number of that entry. If the entry has left the cache meanwhile, the
// cursor starts again at the head of the queue and skips what it has listed.
type cursor[T any] struct {
	slot   int
	last   *link[T] // visited last, or nil at the beginning of a queue
	number uint64   // of last
	listed uint64   // the number of the entry that was listed last
}

// next moves the cursor to the next entry or the next slot. It returns the entry if
// it is to be listed.
func (c *cursor[T]) next(q *queue[T]) *T {
	var l *link[T]
	switch {
	case q == nil:
	case c.last != nil && c.last.sequence == c.number:
		l = c.last.next
	default:
		l = q.first
	}
	if l == nil {
		*c = cursor[T]{slot: c.slot + 1}
		return nil
	}
	c.last, c.number = l, l.sequence
	if l.sequence <= c.listed {
		return nil
	}
	c.listed = l.sequence
	return l.entry
}
