// SPDX-License-Identifier: EPL-2.0

// Package topk counts what happens to the busiest labels, in bounded memory for any
// number of labels. The algorithm is Space-Saving (Metwally, Agrawal and El Abbadi, 2005).
//
// In a full table, a new label gets the entry of the label with the fewest events. It starts
// with that number of events as its error. So the true count of a label is between
// Sum and Sum + Error. Every label with more than 1/size of all events is in the table.
package topk

import (
	"fmt"
	"sync"
	"time"
)

// An Event is what may happen to a label.
type Event int

// The events. Their order is that of the counts in the state which a process hands over
// to the next one: new events come last.
const (
	Hit     Event = iota // a lookup found a session
	Miss                 // a lookup found none
	Save                 // a session or a binding was saved
	Expired              // the time to live of a session or binding was over
	Dead                 // the remote end had closed a session before a client asked for it
	Flushed              // an operator had a session or binding dropped
	Evicted              // a session or binding was dropped to make room for others
	events
)

// Counts are the numbers of the events.
type Counts [events]int64

// Sum returns the number of all events.
func (c Counts) Sum() (n int64) {
	for _, x := range c {
		n += x
	}
	return n
}

// An Entry is what was counted for a label.
type Entry struct {
	Label string
	Counts
	Error int64         // how many events may be missing
	Since time.Duration // when counting began
}

// most bounds the counts of a label that are taken over, so that sums do not overflow.
const most = 1 << 53

// Check returns an error if these counts cannot be true.
func (e *Entry) Check() error {
	if e.Error < 0 || e.Error > most {
		return fmt.Errorf("an error of %d in the counts of a label is out of range", e.Error)
	}
	for _, n := range e.Counts {
		if n < 0 || n > most {
			return fmt.Errorf("a count of %d of a label is out of range", n)
		}
	}
	return nil
}

// A Table counts for a bounded number of labels. Its methods are safe for concurrent use.
type Table struct {
	size int
	now  func() time.Duration

	mu      sync.Mutex
	entries map[string]*entry
	fewest  *group // the first group
	free    *group // a group that is not in use, or nil
}

// An entry is in the group of those with the same number of events, errors included.
type entry struct {
	Entry
	group      *group
	prev, next *entry
}

// Groups are in a list, in the order of the number of events.
type group struct {
	events     int64
	first      *entry
	prev, next *group
}

// New returns an empty table for size labels. The clock returns the time since some fixed
// moment.
func New(size int, now func() time.Duration) *Table {
	return &Table{size: size, now: now, entries: make(map[string]*entry, size)}
}

// maxLabel bounds the length of labels, and so the memory. Of a longer label, only the
// beginning is kept.
const maxLabel = 512

// Count counts an event.
func (t *Table) Count(label []byte, e Event) {
	label = label[:min(len(label), maxLabel)]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entry(label).Counts[e]++
}

// CountString is Count.
func (t *Table) CountString(label string, e Event) { t.Count([]byte(label), e) }

// Restore adds what another table has counted for a label. Counts that cannot be true are
// ignored.
func (t *Table) Restore(e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := e.Sum()
	if e.Check() != nil || sum == 0 {
		return
	}
	label := e.Label[:min(len(e.Label), maxLabel)]
	own := t.entry([]byte(label))
	for event, n := range e.Counts {
		own.Counts[event] += n
	}
	own.Error += e.Error
	own.Since = min(own.Since, e.Since)
	t.move(own, sum+e.Error-1) // t.entry has moved it by 1
}

// entry returns the entry of a label, moved up by one event.
func (t *Table) entry(label []byte) *entry {
	e := t.entries[string(label)]
	switch {
	case e != nil:
	case len(t.entries) < t.size:
		e = &entry{Entry: Entry{Label: string(label), Since: t.now()}}
		t.entries[e.Label] = e
	default:
		e = t.fewest.first
		delete(t.entries, e.Label)
		e.Entry = Entry{Label: string(label), Error: e.group.events, Since: t.now()}
		t.entries[e.Label] = e
	}
	t.move(e, 1)
	return e
}

// move moves an entry to the group with the given number of events more.
func (t *Table) move(e *entry, more int64) {
	from := e.group
	events := more
	after := (*group)(nil) // the group before the new one
	next := t.fewest
	if from != nil {
		events += from.events
		after, next = from, from.next
	}
	for next != nil && next.events < events {
		after, next = next, next.next
	}
	if next == nil || next.events != events {
		next = t.insert(events, after, next)
	}
	if from != nil {
		t.leave(e)
	}
	e.group, e.prev, e.next = next, nil, next.first
	if e.next != nil {
		e.next.prev = e
	}
	next.first = e
}

// insert inserts an empty group into the list.
func (t *Table) insert(events int64, after, before *group) *group {
	g := t.free
	if g == nil {
		g = &group{}
	}
	t.free = nil
	*g = group{events: events, prev: after, next: before}
	if after == nil {
		t.fewest = g
	} else {
		after.next = g
	}
	if before != nil {
		before.prev = g
	}
	return g
}

// leave removes an entry from its group, and the group from the list if it is empty then.
func (t *Table) leave(e *entry) {
	g := e.group
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		g.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	}
	if g.first != nil {
		return
	}
	if g.prev != nil {
		g.prev.next = g.next
	} else {
		t.fewest = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	}
	t.free = g
}

// Entries returns what was counted, in no particular order.
func (t *Table) Entries() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Entry, 0, len(t.entries))
	for _, e := range t.entries {
		all = append(all, e.Entry)
	}
	return all
}
