// SPDX-License-Identifier: EPL-2.0

package cache

import "iter"

// A queue holds entries in the order of their arrival, and gives up any of
// them at once. The entries link themselves: an entry is in one queue at most.
type queue[T any] struct{ first, last *link[T] }

// A link is an entry's place in a queue.
type link[T any] struct {
	entry      *T
	prev, next *link[T]
}

func (q *queue[T]) empty() bool { return q.first == nil }

func (q *queue[T]) append(l *link[T]) {
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
	l.prev, l.next = nil, nil
}

// some returns up to max entries behind the first ones.
func (q *queue[T]) some(skip, max int) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for l := q.first; l != nil && max > 0; l = l.next {
			if skip > 0 {
				skip--
				continue
			}
			if max--; !yield(l.entry) {
				return
			}
		}
	}
}
