// SPDX-License-Identifier: EPL-2.0

package server

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/handover"
)

// takeovers are those in progress. Each is received in a goroutine of its own,
// one after another, while the loops serve.
type takeovers struct {
	turn     sync.Mutex
	running  sync.WaitGroup
	mu       sync.Mutex
	stopped  bool
	stopping chan struct{} // closed when they are to stop waiting
}

// begin receives a message, unless the server is about to end.
func (t *takeovers) begin(receive func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	t.running.Go(receive)
	return true
}

// stop makes those that wait for something stop waiting, and returns when all
// have ended. What has arrived is received.
func (t *takeovers) stop() {
	t.mu.Lock()
	if !t.stopped {
		t.stopped = true
		close(t.stopping)
	}
	t.mu.Unlock()
	t.running.Wait()
}

// takeOver goes on with what a predecessor has left. The predecessor has gone:
// there is nobody to answer.
func (c *conversation) takeOver(list attr.List) error {
	s := c.worker.Server
	fd, err := c.socket.Take()
	if err == nil && (s.Came == nil || len(list) > 0 || !s.takeovers.begin(func() { s.receive(fd) })) {
		unix.Close(fd)
		err = errors.New("unexpected request")
	}
	if err != nil {
		c.warn(fmt.Errorf("request %s: %w", handover.Request, err))
		c.reply(statusBad)
		return nil
	}
	return errLeft
}

// receive receives what a predecessor has left.
func (s *Server) receive(fd int) {
	defer s.Log.ExitOnPanic()
	s.takeovers.turn.Lock()
	defer s.takeovers.turn.Unlock()
	h := &heir{Server: s}
	// Clients wait for the sessions to be there, but not for ever.
	inTime := time.AfterFunc(clientsWait, h.serveClients)
	r, err := handover.Receive(fd, h, BootTime, announcement, s.takeovers.stopping)
	inTime.Stop()
	h.serveClients()
	if err != nil {
		s.Log.Warning("take over from the previous process: %v", err)
	}
	s.mu.Lock()
	s.lost += r.Lost
	s.mu.Unlock()
	s.Log.Info("takeover: sessions=%d bindings=%d clients=%d lost=%d", r.Sessions, r.Bindings, r.Clients, r.Lost)
}

// clientsWait is how long clients that were left wait for all sessions. It is far
// from what they call a timeout, and enough for some ten thousand sessions.
const clientsWait = 100 * time.Millisecond

// An heir goes on with what a predecessor has left.
type heir struct {
	*Server
	mu      sync.Mutex
	serving bool
	waiting []handover.Client
}

// RestoreCounts is for package handover.
func (h *heir) RestoreCounts(c handover.Counts) {
	h.Cache.RestoreTotals(c.Totals)
	h.workers[0].took.Add(c.Took)
	h.Server.mu.Lock()
	defer h.Server.mu.Unlock()
	h.connections += c.Connections
	h.refused += c.Refused
	h.lost += c.Lost
	h.lostLines += c.LostLines
	h.since = time.Now().Add(-max(c.Age, h.counted()))
}

// RestoreBinding is for package handover.
func (h *heir) RestoreBinding(b cache.SavedBinding) { h.Cache.RestoreBinding(b) }

// RestoreSession is for package handover.
func (h *heir) RestoreSession(s cache.SavedSession) { h.Cache.RestoreSession(s) }

// RestoreClient is for package handover.
func (h *heir) RestoreClient(c handover.Client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving {
		h.resume(c)
	} else {
		h.waiting = append(h.waiting, c)
	}
}

func (h *heir) serveClients() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving {
		return
	}
	for _, c := range h.waiting {
		h.resume(c)
	}
	h.serving, h.waiting = true, nil
}

// resume goes on with a client. It was counted by whoever has accepted it.
func (s *Server) resume(left handover.Client) {
	c := newConversation(left.FD)
	c.gone = s.Came()
	c.state, c.session, c.ackDue = left.State, left.Session, left.AckDue
	c.unread, c.unwritten = left.Unread, left.Unwritten
	c.heard, c.full = true, true // what is unread comes before what arrives
	c.left = left.Left
	s.serve(c)
}

// check tells whether a conversation that was left can be gone on with.
func (c *conversation) check() error {
	hasSession := c.session != none
	needsSession := c.state == handover.DummyDue || c.state == handover.DescriptorGoing
	switch {
	case hasSession != needsSession:
		return errors.New("a session in hand does not go with its state")
	case c.state == handover.DescriptorDue:
		const empty = 1 // what a list without attributes takes
		if c.request = c.scan.Size(c.unread); c.request <= empty {
			return errors.New("the request that waits for a descriptor is missing")
		}
	case c.state != handover.BetweenRequests && !needsSession:
		return fmt.Errorf("unknown state %q", c.state)
	}
	return nil
}

// Leave stops serving, and returns what there is to go on with. The server does
// not accept clients any more, and is of no use afterwards.
func (s *Server) Leave() *handover.Estate {
	// A client that has not said anything yet may be a predecessor of ours, who
	// has left something that is not taken over yet.
	s.all(func(w *worker) {
		for c := range w.clients {
			if !c.heard {
				c.Ready()
			}
		}
	})
	s.takeovers.stop()
	e := &handover.Estate{}
	var mu sync.Mutex
	s.all(func(w *worker) {
		mu.Lock()
		defer mu.Unlock()
		for c := range w.clients {
			if left, ok := c.leave(); ok {
				e.Clients = append(e.Clients, left)
			}
		}
		w.loop.Stop()
	})
	for _, w := range s.workers {
		<-w.ended
	}
	all := s.Cache.TakeAll()
	e.Bindings, e.Sessions, e.Hits = all.Bindings, all.Sessions, s.Hits.leave()
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Counts = handover.Counts{Totals: all.Totals, Connections: s.connections, Refused: s.refused, Lost: s.lost, LostLines: s.lostLines + s.Log.Lost(),
		Took: s.took(), Age: s.counted()}
	return e
}

// leave turns a conversation into what another process can go on with.
func (c *conversation) leave() (handover.Client, bool) {
	w := c.worker
	if !c.finishListing() {
		c.end(errors.New("the list that it asks for is too long to be left to the next process; connection closed"))
		return handover.Client{}, false
	}
	left := c.watch.Remaining()
	w.remove(c)
	c.discount(true)
	c.refuseDescriptor()
	return handover.Client{
		FD: c.socket.FD(), State: c.state, Session: c.session, AckDue: c.ackDue,
		Unread: c.unread, Unwritten: c.unwritten, Left: left,
	}, true
}

// Meet returns what there is to go on with a client from the accept queue who
// has not been talked to.
func (s *Server) Meet(fd int) (handover.Client, bool) {
	c := s.meet(fd)
	if c == nil {
		return handover.Client{}, false
	}
	return handover.Client{FD: fd, State: c.state, Session: none, Unwritten: c.unwritten}, true
}

// CloseSessions closes sessions that could not be left.
func (s *Server) CloseSessions(sessions []cache.SavedSession) {
	all := make([]cache.Ended, len(sessions))
	for i, session := range sessions {
		all[i] = cache.Ended{FD: session.FD, Why: cache.Flushed}
	}
	if len(all) > 0 {
		s.Cache.Close(all)
	}
}

// BootTime returns the time since the machine was started, by the clock that all
// processes share.
func BootTime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
