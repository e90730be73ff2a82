// SPDX-License-Identifier: EPL-2.0

package cache

// A queue holds entries in the order of their arrival. Any entry can be removed in
// constant time: the entries link themselves, and an entry is in at most one queue.
type queue[T any] struct{ first, last *link[T] }

// A link is an entry's place in a queue.
type link[T any] struct {
	entry      *T
	prev, next *link[T]
	sequence   uint64 // rises along the queue of a destination or endpoint; 0 outside
}

func (q *queue[T]) empty() bool { return q.first == nil }

func (q *queue[T]) append(l *link[T], sequence uint64) {
	l.sequence = sequence
	l.prev = q.last
	if q.last != nil {
		q.last.next = l
	} else {
		q.first = l
	}
	q.last = l
}

func (q *queue[T]) remove(l *link[T]) {
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		q.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		q.last = l.prev
	}
	l.prev, l.next, l.sequence = nil, nil, 0
}
