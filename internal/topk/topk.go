// SPDX-License-Identifier: EPL-2.0

// Package topk counts what happens to the busiest labels: in bounded memory, however
// many there are, by the algorithm Space-Saving (Metwally, Agrawal and El Abbadi,
// 2005). A label that is not among those that are counted takes the place of the one
// with the fewest events, and inherits their number as its error: a label has had at
// least as many events as its counts say, and at most so many and its error. Whatever
// makes up more than one event in size is certainly among them.
package topk

import (
	"sync"
	"time"
)

// An Event is what may happen to a label.
type Event int

// The events.
const (
	Hit     Event = iota // it was looked up, and a session was given away
	Miss                 // it was looked up in vain
	Save                 // a session or a binding was saved
	Expired              // one was closed or forgotten as its time to live was over
	Dead                 // one was found closed by the remote end
	Flushed              // one was dropped for an operator, or had to make room
	events
)

// Counts are how many of each event there were.
type Counts [events]int64

// Sum returns how many there were in all.
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
	Error int64         // events that may be missing, at the most
	Since time.Duration // when counting began
}

// A Table counts for so many labels. Its methods are safe for concurrent use.
type Table struct {
	size int
	now  func() time.Duration

	mu      sync.Mutex
	entries map[string]*entry
	fewest  *group // the first of all groups
	free    *group // one that is not used, for the next time
}

// An entry is in the group of those with as many events, its error included.
type entry struct {
	Entry
	group      *group
	prev, next *entry
}

// A group is in a list by number.
type group struct {
	events     int64
	first      *entry
	prev, next *group
}

// New returns an empty table. The clock returns the time since some fixed moment.
func New(size int, now func() time.Duration) *Table {
	return &Table{size: size, now: now, entries: make(map[string]*entry, size)}
}

// maxLabel bounds a label, and so the memory: of a longer one, it is the beginning that
// is counted.
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

// Restore goes on with what another table has counted.
func (t *Table) Restore(e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := e.Sum()
	if sum <= 0 {
		return
	}
	own := t.entry([]byte(e.Label))
	for what, n := range e.Counts {
		own.Counts[what] += n
	}
	own.Error += e.Error
	own.Since = min(own.Since, e.Since)
	t.move(own, sum+e.Error-1) // one is there already
}

// entry returns that of a label, with one more event.
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

// move moves an entry up by so many events.
func (t *Table) move(e *entry, more int64) {
	from := e.group
	events := more
	after := (*group)(nil) // the group behind which the new one is
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

// leave takes an entry out of its group. An empty group does not exist.
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

// Entries returns what was counted, in no order.
func (t *Table) Entries() []Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Entry, 0, len(t.entries))
	for _, e := range t.entries {
		all = append(all, e.Entry)
	}
	return all
}
