// SPDX-License-Identifier: EPL-2.0

package server

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/control"
	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/receivers"
)

// takeOver begins to receive a state from the previous process, and reports whether it did.
// That process has exited, so there is no reply.
func (c *conversation) takeOver(list attr.List) (begun bool) {
	s := c.server()
	fd, err := c.socket.Take()
	begun = err == nil && s.Connected != nil && len(list) == 0 &&
		s.receptions.begin(func() { s.receive(fd) })
	if err == nil && !begun {
		unix.Close(fd)
		err = errors.New("unexpected request")
	}
	if err != nil {
		c.warn(fmt.Errorf("request %s: %w", handover.Request, err))
		c.reply(control.Bad)
		return false
	}
	s.uncountConnection()
	c.uncount(false) // the old process is not a client
	return true
}

// receptions are the states that are being received, each by a separate goroutine. One begins
// when the one before has ended. The loops serve clients meanwhile.
type receptions struct {
	active   sync.Mutex
	running  sync.WaitGroup
	mu       sync.Mutex
	stop     chan struct{} // closed while they are to stop waiting
	overtime chan struct{} // closed when they are to stop reading
	closed   bool          // none may begin
}

// maxOvertime is how long all receptions together may read on when the process is about to end.
// A state as servers send it takes some 100 ms.
const maxOvertime = time.Second

func (r *receptions) begin(receive func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.running.Go(receive)
	return true
}

// finish makes receptions stop waiting, and returns when all have ended. No reception can begin
// until reopen.
func (r *receptions) finish() {
	r.mu.Lock()
	if !r.closed {
		r.closed = true
		close(r.stop)
	}
	overtime := r.overtime
	r.mu.Unlock()
	timer := time.AfterFunc(maxOvertime, func() { close(overtime) })
	defer timer.Stop()
	r.running.Wait()
}

func (r *receptions) reopen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed, r.stop, r.overtime = false, make(chan struct{}), make(chan struct{})
}

// receive receives a state.
func (s *Server) receive(fd int) {
	defer s.Log.ExitOnPanic()
	s.receptions.active.Lock()
	defer s.receptions.active.Unlock()
	if s.ReceivingState != nil {
		defer s.ReceivingState()()
	}
	h := heldClients{server: s}
	s.limiter.stateComes()
	timer := time.AfterFunc(maxHold, h.releaseAll)
	defer timer.Stop()
	s.receptions.mu.Lock()
	stop, overtime := s.receptions.stop, s.receptions.overtime
	s.receptions.mu.Unlock()
	r := handover.Receiver{
		Now: bootClock(), Announcement: announcement, MakeRoom: s.MakeRoom,
		Stop: stop, Overtime: overtime,
	}.Receive(fd)
	for entry := range r.Entries() {
		s.restore(entry, r, &h)
	}
	h.releaseAll()
	s.all(func(*worker) {}) // the loops have the clients
	s.limiter.stateReceived()
	if r.Err != nil {
		s.Log.Warning("take over from the previous process: %v", r.Err)
	}
	if r.Refused != nil {
		s.Log.Warning(
			"take over from the previous process: counts are left out: %v", r.Refused)
	}
	s.mu.Lock()
	s.counts.Lost += int64(r.Lost)
	s.mu.Unlock()
	s.Log.Info("takeover: sessions=%d bindings=%d clients=%d lost=%d",
		r.Sessions, r.Bindings, r.Clients, r.Lost)
}

// restore puts an entry of a state where it belongs: a client among those that are held.
func (s *Server) restore(entry any, r *handover.Reception, h *heldClients) {
	switch e := entry.(type) {
	case *handover.Counts:
		s.continueCounts(&e.Values, e.Age)
		s.Cache.Expect(r.ExpectedSessions())
	case *handover.Client:
		h.add(e)
	case *cache.SavedBinding:
		s.Cache.RestoreBinding(*e)
	case *receivers.State:
		s.restoreReceivers(e)
	case *handover.Claim:
		s.restoreClaim(e)
	case *handover.Announced:
		if s.limiter == nil { // it counts sessions before it lets a client wait
			h.serveDuring(e)
		}
	case *cache.SavedSession:
		s.Cache.RestoreSession(*e)
		s.restoredSession(e.Label)
	case *handover.LabelCounts:
		h.sessionsArrived() // label counts come last
		s.Labels.restore(e)
	}
}

// resume serves a client that another process has served, or this one before it gave up a
// handover. It was counted when it was accepted. Its lookups wait for sessions that are coming,
// if any. The error says why it may not connect.
func (s *Server) resume(saved *handover.Client, coming *arrivals) error {
	c := newConversation(saved.FD)
	c.phase, c.session, c.ackDue = saved.Phase, saved.Session, saved.AckDue
	c.unread, c.unwritten = saved.Unread, slices.Clip(saved.Unwritten)
	c.gotInput, c.morePending = true, true // what is unread comes before what arrives
	c.coming = coming
	c.timeout, c.tooLong, c.waited = saved.Timeout, saved.TooLong, saved.Wait
	if err := s.checkPeer(saved.FD); err != nil {
		s.countRefused()
		c.drop()
		c.socket.Close()
		return err
	}
	c.onClose = s.Connected()
	s.serve(c)
	return nil
}

// check returns an error if a conversation that was handed over cannot continue.
func (c *conversation) check() error {
	hasSession := c.session != fdpass.None
	needsSession := c.phase == handover.DummyDue || c.phase == handover.DescriptorGoing
	switch {
	case hasSession != needsSession:
		return errors.New("the phase of the conversation does not fit its descriptors")
	case len(c.unread) > maxRequest+len(c.worker.in) || len(c.unwritten) > 2*maxUnwritten:
		return errors.New("too much input or output is pending")
	case c.phase == handover.DescriptorDue:
		const empty = 1 // the size of a list without attributes
		if c.request = c.scan.Size(c.unread); c.request <= empty {
			return errors.New("the request that waits for a descriptor is missing")
		}
	case c.phase != handover.BetweenRequests && !needsSession:
		return fmt.Errorf("unknown phase %q", c.phase)
	}
	return nil
}

// HandOver hands everything over to the next process. No client may be accepted meanwhile. If
// it returns an error, this server still owns everything and serves its clients; only lists that
// are too long to be handed over were cut off. Otherwise the server can no longer be used, and
// the result says what could not be sent. See [handover.Sender.Send] for partial.
func (s *Server) HandOver(
	sender *handover.Sender, partial bool,
) (result handover.Result, err error) {
	s.readNewClients()
	s.receptions.finish()
	resume := s.pause()
	s.finishListings()
	var queued []handover.Client
	s.Cache.Freeze(func(all cache.Snapshot) (moved bool) {
		state := s.state(all)
		claims := state.Claims
		result, queued, err = sender.Send(state, partial)
		for _, c := range claims {
			unix.Close(c.FD)
		}
		if err == nil {
			if len(all.Sessions) > maxSessionsToClose {
				go s.closeSessions(all.Sessions, result.Unsent) // or the exit does that
			} else {
				s.closeSessions(all.Sessions, result.Unsent)
			}
		}
		return err == nil
	})
	if err != nil {
		resume(nil)
		s.receptions.reopen()
		for i := range queued {
			if err := s.resume(&queued[i], nil); err != nil {
				s.Log.Warning("%v", err)
			}
		}
		return result, err
	}
	resume((*worker).stop)
	for _, w := range s.workers {
		<-w.ended
	}
	s.stopLimiter()
	s.Cache.ReleaseSessions(result.Unsent)
	return result, nil
}

// readNewClients reads from clients that have not sent anything yet: one of them may be a
// process that hands its state over to this one.
func (s *Server) readNewClients() {
	s.all(func(w *worker) {
		for c := range w.clients {
			if !c.gotInput {
				c.Ready()
			}
		}
	})
}

// pause makes all loops wait. The returned function lets them continue; each loop first calls
// last, if that is not nil.
func (s *Server) pause() (resume func(last func(*worker))) {
	var paused sync.WaitGroup
	var last func(*worker)
	release := make(chan struct{})
	for _, w := range s.workers {
		paused.Add(1)
		posted := w.loop.Post(func() {
			paused.Done()
			<-release
			if last != nil {
				last(w)
			}
		})
		if !posted {
			paused.Done()
		}
	}
	paused.Wait()
	return func(f func(*worker)) {
		last = f
		close(release)
	}
}

// finishListings turns the rest of listings into pending output: the next process cannot
// continue them. Those that are too long are cut off.
func (s *Server) finishListings() {
	budget := maxUnwritten
	for _, w := range s.workers {
		for c := range w.clients {
			if !c.finishListing(&budget) {
				c.end(errListTooLong)
			}
		}
	}
}

var errListTooLong = errors.New(
	"the list that it asks for is too long to be handed over; connection closed")

// state returns the state of the server. Its loops must be paused.
func (s *Server) state(all cache.Snapshot) *handover.State {
	var conversations []*conversation
	for _, w := range s.workers {
		conversations = slices.AppendSeq(conversations, maps.Keys(w.clients))
	}
	slices.SortFunc(conversations, func(a, b *conversation) int {
		return cmp.Compare(a.number, b.number)
	})
	state := &handover.State{Receivers: s.exportReceivers(), Claims: s.exportClaims(),
		Bindings: all.Bindings, Sessions: all.Sessions, Labels: s.Labels.save()}
	for _, c := range conversations {
		state.Clients = append(state.Clients, c.export())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	state.Counts = handover.Counts{Values: s.values(all.Totals), Age: s.counted()}
	return state
}

// export returns a conversation as data.
func (c *conversation) export() handover.Client {
	c.refuseDescriptor()
	phase := c.phase
	if c.waits() {
		phase = handover.BetweenRequests
	}
	return handover.Client{
		FD: c.socket.FD(), Phase: phase, Wait: c.exportWait(), Session: c.session, AckDue: c.ackDue,
		Unread: c.unread, Unwritten: c.unwritten, Timeout: c.watch.Remaining(), TooLong: c.tooLong,
	}
}

// Greet begins a conversation with a client from the accept queue, which the next process will
// serve. It reports whether the client may connect. If not, the client is disconnected.
func (s *Server) Greet(fd int) (handover.Client, bool) {
	c := s.greet(fd)
	if c == nil {
		return handover.Client{}, false
	}
	return handover.Client{
		FD: fd, Phase: c.phase, Session: fdpass.None, Unwritten: c.unwritten,
	}, true
}

// maxSessionsToClose is how many sessions that were sent are closed before the process exits.
// More would delay the new process, which master(8) starts afterwards.
const maxSessionsToClose = 256

// closeSessions closes this process's copies of the sessions that were sent. It does not wait
// for connections that linger.
func (s *Server) closeSessions(all, unsent []cache.SavedSession) {
	keep := map[int]bool{}
	for _, session := range unsent {
		keep[session.FD] = true
	}
	for _, session := range all {
		if !keep[session.FD] {
			s.copies.closeFD(session.FD)
		}
	}
}

// bootClock returns a function that returns BootTime without a system call.
func bootClock() func() time.Duration {
	now, start := BootTime(), time.Now()
	return func() time.Duration { return now + time.Since(start) }
}

// BootTime returns the time since the machine was started, by the clock that all processes
// share.
func BootTime() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
