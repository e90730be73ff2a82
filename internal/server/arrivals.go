// SPDX-License-Identifier: EPL-2.0

// What clients wait for while a state is received.

package server

import (
	"sync"
	"time"

	"scache/internal/cache"
	"scache/internal/handover"
)

// maxHold is how long the clients of a state wait for its sessions. It is far below the timeouts
// of clients, and long enough to receive some ten thousand sessions. A limiter waits for as long
// after the start for a state that begins to arrive: see awaitState.
const maxHold = 100 * time.Millisecond

// heldClients are the clients of a state. They are served as soon as all bindings and the labels
// of its sessions are known. Then their lookups wait if they may be for a session that has not
// arrived. Without that knowledge, the clients wait.
type heldClients struct {
	server  *Server
	mu      sync.Mutex
	coming  *arrivals          // what requests wait for, or nil
	arrived bool               // all sessions
	over    bool               // nothing is waited for any more
	refused bool               // one of them may not connect
	clients []*handover.Client // that are held
}

// serveDuring serves the clients while these sessions arrive.
func (h *heldClients) serveDuring(coming *handover.Announced) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.over {
		h.waitFor(newArrivals(coming.Labels, coming.More))
	}
}

// sessionsArrived serves the clients, and answers lookups that wait. Operators wait for what was
// counted.
func (h *heldClients) sessionsArrived() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.arrived && !h.over {
		h.arrived = true
		h.waitFor(newArrivals(nil, false))
	}
}

// releaseAll serves the clients, and answers requests that wait.
func (h *heldClients) releaseAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	h.waitFor(nil)
}

// waitFor serves the clients, whose requests wait for these sessions from now on. The caller holds
// mu.
func (h *heldClients) waitFor(next *arrivals) {
	before := h.coming
	h.coming = next
	for _, c := range h.clients {
		h.resume(c)
	}
	h.clients = nil
	if before != nil {
		h.server.endArrivals(before, next)
	}
}

func (h *heldClients) add(c *handover.Client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.coming != nil || h.over {
		h.resume(c)
	} else {
		h.clients = append(h.clients, c)
	}
}

// resume serves a client. Of those who may not connect, the first one is logged: there may be
// thousands.
func (h *heldClients) resume(c *handover.Client) {
	err := h.server.resume(c, h.coming)
	if err != nil && !h.refused {
		h.server.Log.Warning("%v", err)
	}
	h.refused = h.refused || err != nil
}

// waitsForSessions is the phase of a client whose request has to wait until the sessions of its
// state, or counts, have arrived. The request is at the head of the unread bytes.
// Descriptions do not have this phase: see waitsForConnection.
const waitsForSessions handover.Phase = "waits_for_sessions"

// arrivals are the labels of sessions whose descriptors are being received. A lookup is answered
// at once if none of them concerns it.
type arrivals struct {
	labels map[string]struct{}
	more   bool // there are sessions with other labels, too
}

func newArrivals(labels []string, more bool) *arrivals {
	a := &arrivals{labels: make(map[string]struct{}, len(labels)), more: more}
	for _, label := range labels {
		a.labels[label] = struct{}{}
	}
	return a
}

// concern reports whether one of the sessions may be the answer to a question. All bindings
// have arrived. Nil stands for no sessions.
func (a *arrivals) concern(q question, all *cache.Cache) bool {
	switch {
	case a == nil:
		return false
	case a.more:
		return true
	case len(a.labels) == 0:
		return false
	case q.byDestination:
		return all.HasDestination(q.label)
	}
	_, isComing := a.labels[string(q.label)]
	return isComing
}

// await makes the client wait for the sessions of its state.
func (c *conversation) await() {
	c.phase = waitsForSessions
	c.worker.answered-- // for now
}

// endArrivals answers the requests that wait for these sessions, unless they have to wait for
// the next ones.
func (s *Server) endArrivals(a, next *arrivals) {
	for _, w := range s.workers {
		w.loop.Post(func() {
			for c := range w.clients {
				if c.coming == a {
					c.endArrivals(next)
				}
			}
		})
	}
}

func (c *conversation) endArrivals(next *arrivals) {
	c.coming = next
	if c.phase != waitsForSessions {
		return
	}
	defer c.endOnPanic()
	c.phase, c.request = handover.BetweenRequests, 0 // it is answered as if it had just arrived
	err := c.advance()
	if err == nil {
		err = c.setWatch()
	}
	if err != nil {
		c.end(err)
	}
}
