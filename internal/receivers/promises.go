// SPDX-License-Identifier: EPL-2.0

// Promises: connections that clients were told to open.

package receivers

import (
	"cmp"
	"slices"
	"time"
)

// A promise is a connection that a client was told to open.
type promise struct {
	receiver *receiver
	client   *Client
	at       time.Duration
	kept     bool // a snapshot has shown it
	done     bool // the client has connected by now, or will not
	doneAt   time.Duration
	saved    bool // the client has connected: it has saved the session
}

// endPromise notes that a client has connected by now, or will not. If no count has shown its
// connection, an earlier count may have taken it for the connection of another client. Then
// that client has yet to connect, and its promise is open again. If there is no such client,
// the next count shows whether this one has connected.
func (r *receiver) endPromise(p *promise, now time.Duration) {
	if p.client.promise = nil; p.kept {
		p.client = nil
		r.removePromise(p)
		return
	}
	p.done, p.doneAt, p.client = true, now, nil
	if last := len(r.kept) - 1; last >= 0 {
		q := r.kept[last]
		r.removePromise(p)
		r.kept = r.kept[:last]
		q.kept, q.at = false, max(q.at, p.at)
		r.addPromise(q)
	}
}

// addPromise adds a promise in the order of their times.
func (r *receiver) addPromise(p *promise) {
	i, _ := slices.BinarySearchFunc(r.promises, p.at, func(o *promise, at time.Duration) int {
		return cmp.Compare(o.at, at)
	})
	r.promises = slices.Insert(r.promises, i, p)
}

func (r *receiver) removePromise(p *promise) {
	is := func(o *promise) bool { return o == p }
	r.promises, r.kept = slices.DeleteFunc(r.promises, is), slices.DeleteFunc(r.kept, is)
	if p.client != nil {
		p.client.promise = nil
	}
}

// breakPromise forgets a promise that no count has shown. The connection may have begun, and
// ended before a count.
func (r *receiver) breakPromise(p *promise) {
	if !p.saved {
		r.state.totals.Refused++
	}
	at := p.at + promiseTime
	if p.done {
		at = p.doneAt
	}
	r.begin(at)
	r.removePromise(p)
}

// pruneDone forgets promises of clients that have connected or will not, if the last
// count began later.
func (s *Set) pruneDone(r *receiver) {
	for i := 0; i < len(r.promises); {
		if p := r.promises[i]; p.done && s.last != nil && p.doneAt < s.last.startedAt {
			r.breakPromise(p)
			continue
		}
		i++
	}
}

// keepPromise finds the promise that a new connection has kept: one whose client has
// connected by now, as no other connection will keep it. Otherwise it is the oldest one,
// so that the others last longest. If that is a mistake, endPromise corrects it.
func (r *receiver) keepPromise() {
	i := slices.IndexFunc(r.promises, func(p *promise) bool { return p.done })
	switch {
	case i >= 0:
		r.removePromise(r.promises[i])
	case len(r.promises) > 0:
		p := r.promises[0]
		r.promises, r.kept, p.kept = r.promises[1:], append(r.kept, p), true
	}
}

// notePromise remembers that a receiver has promises, for Shared.
func (s *Set) notePromise(r *receiver) {
	if s.config.Shared {
		s.promising[r] = struct{}{}
	}
}
