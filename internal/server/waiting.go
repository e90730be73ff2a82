// SPDX-License-Identifier: EPL-2.0

package server

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/control"
	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/receivers"
)

// waitsForConnection is the phase of a client that waits for a connection to a receiver: its
// request, at the head of the unread bytes, is answered later. Descriptions do not have this
// phase. There it is BetweenRequests, so that a process that knows no receivers answers the
// request as if it had just arrived.
const waitsForConnection handover.Phase = "waits_for_connection"

// beginClient prepares a conversation for the limiter.
func (c *conversation) beginClient() {
	if c.server().limiter == nil {
		return
	}
	c.client = &receivers.Client{Owner: c}
	if peer, err := fdpass.PeerOf(c.socket.FD()); err == nil {
		c.client.PID = int(peer.PID)
	}
}

// endClient tells the limiter that the client is gone.
func (c *conversation) endClient() {
	if l := c.server().limiter; l != nil && c.client != nil {
		l.carryOut(l.Gone(c.client, l.clock()))
	}
}

// findLimited looks into the cache, and asks the limiter about it.
func (c *conversation) findLimited(q question) (s cache.Session, found, waits bool) {
	l := c.server().limiter
	if q.byDestination {
		l.carryOut(l.Begin(c.client, l.clock()))
	}
	if s, found = c.worker.lookUp(q); found {
		l.carryOut(l.Found(c.client, l.clock(), s.Endpoint))
		return s, true, false
	}
	verdict, d := receivers.NotFound, receivers.Decisions{}
	if q.byDestination {
		verdict, d = l.FindDestination(c.client, l.clock(), q.label)
	} else {
		verdict, d = l.FindEndpoint(c.client, l.clock(), q.label)
	}
	l.carryOut(d)
	if verdict == receivers.NotFound {
		return s, false, false
	}
	l.cache.UncountMiss(q.byDestination) // this lookup goes on
	return c.follow(verdict, q)
}

// follow does what the limiter says: it may have a session for the client. A lookup that waits
// counts once, when it ends.
func (c *conversation) follow(
	verdict receivers.Verdict, q question,
) (s cache.Session, found, waits bool) {
	l := c.server().limiter
	for verdict == receivers.Take {
		if q.byDestination {
			s, found = l.cache.FindBound(q.label, c.client.Given())
		} else {
			s, found = l.cache.FindAgain(q.label)
		}
		var d receivers.Decisions
		verdict, d = l.Served(c.client, l.clock(), found)
		l.carryOut(d)
		if found {
			return s, true, false
		}
	}
	if verdict == receivers.NotFound {
		l.cache.CountMiss(q.byDestination)
	}
	return s, false, verdict == receivers.Wait
}

// endWait is called by the loop when the limiter has an answer for a client that waits: there
// is a session for it, or none. The client may be gone.
func (c *conversation) endWait(isGiven bool) {
	if _, isHere := c.worker.clients[c]; !isHere || c.phase != waitsForConnection {
		return
	}
	defer c.endOnPanic()
	verdict := receivers.NotFound
	if isGiven {
		verdict = receivers.Take
	}
	c.answerWaiting(verdict)
	err := c.advance()
	if err == nil {
		err = c.setWatch()
	}
	if err != nil {
		c.end(err)
	}
}

// answerWaiting answers the request that waits, unless the limiter makes it wait on.
func (c *conversation) answerWaiting(verdict receivers.Verdict) {
	q, err := c.waitingQuestion()
	if err != nil {
		panic(err) // it was checked when the wait began
	}
	s, found, waits := c.follow(verdict, q)
	if waits {
		return
	}
	c.phase = handover.BetweenRequests
	c.worker.answered++
	c.answerFind(q, s, found)
	c.unread, c.request = c.unread[c.request:], 0
}

// waitingQuestion returns the question that waits, at the head of the unread bytes.
func (c *conversation) waitingQuestion() (q question, err error) {
	list := c.worker.parse(c.unread[:c.request])
	if err := list.Expect("request", "label"); err != nil {
		return q, err
	}
	switch request := string(list[0].Value); request {
	case control.RequestFindEndpoint, control.RequestFindDestination:
		byDestination := request == control.RequestFindDestination
		return question{label: list[1].Value, byDestination: byDestination}, nil
	default:
		return q, fmt.Errorf("request %q waits", request)
	}
}

// checkWait bounds what a client sends while it waits. Clients send nothing then, but may
// have sent several requests at once.
func (c *conversation) checkWait() error {
	if len(c.unread) > c.request+maxRequest {
		return errors.New("the client sends too much while it waits; connection closed")
	}
	return nil
}

// resumeWait goes on where the limiter of another process has stopped.
func (c *conversation) resumeWait() error {
	l, saved := c.server().limiter, c.waited
	c.waited = nil
	if l == nil || saved == nil {
		return nil
	}
	if saved.Pending {
		c.request = c.scan.Size(c.unread)
		if c.request == 0 {
			return errors.New("the request that waits for a connection is missing")
		}
		if _, err := c.waitingQuestion(); err != nil {
			return err
		}
	}
	verdict, d := l.RestoreClient(c.client, l.clock(), saved.ClientState)
	l.carryOut(d)
	if saved.Pending {
		c.phase = waitsForConnection
		if verdict != receivers.Wait {
			c.answerWaiting(verdict)
		}
	}
	return nil
}

// exportWait returns what the next process needs of the limiter, or nil.
func (c *conversation) exportWait() *handover.Wait {
	l := c.server().limiter
	if l == nil {
		return nil
	}
	state, isActive := l.ExportClient(c.client, l.clock())
	if !isActive {
		return nil
	}
	return &handover.Wait{ClientState: state, Pending: c.phase == waitsForConnection}
}

// savedBinding tells the limiter that a client has saved a binding.
func (c *conversation) savedBinding(ttl time.Duration, label, property, endpoint []byte) {
	if l := c.server().limiter; l != nil {
		if longest := l.cache.TTLLimit(); longest > 0 {
			ttl = min(ttl, longest)
		}
		l.SaveDestination(c.client, l.clock(), ttl, label, property, endpoint)
	}
}

// saveSession puts a session into the cache, unless a limit of its receiver says not to keep it.
func (c *conversation) saveSession(ttl time.Duration, label, property []byte, fd int) {
	l := c.server().limiter
	if l == nil {
		c.server().Cache.SaveSession(ttl, label, property, fd)
		return
	}
	keep, longest, d := l.Save(c.client, l.clock(), label, property)
	l.carryOut(d)
	if !keep {
		c.server().Discard([]cache.Dropped{{FD: fd, Why: cache.Evicted, Endpoint: string(label)}})
		return
	}
	if longest > 0 {
		ttl = min(ttl, longest)
	}
	c.server().Cache.SaveSession(ttl, label, property, fd)
	l.carryOut(l.Saved(c.client, l.clock(), string(label)))
}

// restoredSession tells the limiter about a session that another process had in its cache.
func (s *Server) restoredSession(endpoint string) {
	if l := s.limiter; l != nil {
		l.carryOut(l.Saved(nil, l.clock(), endpoint))
	}
}

// exportReceivers returns what the limiter of the next process needs beside its clients.
func (s *Server) exportReceivers() receivers.State {
	if s.limiter == nil {
		return receivers.State{}
	}
	return s.limiter.Export(s.limiter.clock())
}

// exportClaims returns copies of the claims of the limiter.
func (s *Server) exportClaims() []handover.Claim {
	if s.limiter == nil {
		return nil
	}
	return s.limiter.claims.copies()
}

// restoreClaim takes over a claim, and its descriptor.
func (s *Server) restoreClaim(c *handover.Claim) {
	if s.limiter == nil {
		unix.Close(c.FD)
		return
	}
	s.limiter.claims.adopt(c)
}

// restoreReceivers takes over what the limiter of another process knew.
func (s *Server) restoreReceivers(state *receivers.State) {
	if l := s.limiter; l != nil {
		l.carryOut(l.Restore(l.clock(), *state))
	}
}

// receiverOf returns the name of the receiver of an endpoint, or nothing.
func (s *Server) receiverOf(endpoint string) string {
	if s.limiter == nil {
		return ""
	}
	name, _ := s.limiter.Receiver(s.limiter.clock(), []byte(endpoint))
	return name
}

// tellReceivers answers an operator who asks for the receivers.
func (c *conversation) tellReceivers(list attr.List) {
	if err := list.Expect(); err != nil {
		c.refuse(control.RequestReceivers, err)
		return
	}
	c.reply(control.OK)
	if l := c.server().limiter; l != nil {
		for _, r := range l.Stats(l.clock()) {
			control.EncodeEntry(c.worker.encode, control.Receiver{
				Name: r.Name, Limits: r.Limits.String(), Estimate: r.Estimate,
				Number: int64(r.Receivers), Open: int64(r.Open), Idle: int64(r.Idle),
				Limit: int64(r.Limits.Connections), Waiting: int64(r.Waiting),
				NewPerMinute: int64(r.NewPerMinute), New: r.New, Given: r.Given,
				Closed: r.Closed, Overflows: r.Overflows, Refused: r.Refused,
				Waited: r.Waited.String(),
			})
			c.worker.encode.End()
		}
	}
	control.EncodeEntry(c.worker.encode, control.End{})
	c.worker.encode.End()
}
