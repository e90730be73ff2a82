// SPDX-License-Identifier: EPL-2.0

package server

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/eventloop"
	"scache/internal/fdpass"
	"scache/internal/maillog"
	"scache/internal/receivers"
)

// A limiter carries out what a [receivers.Set] decides: it counts connections, wakes the Set
// in time, closes sessions and watches processes. It posts answers to the loops of the clients
// that wait for them. Its methods are safe for concurrent use.
//
// Decisions come from event loops, from the cache and from the goroutines below. Answers are
// posted at once. Sessions are closed by one goroutine, because each session that
// the cache closes changes the Set, from which further decisions follow.
type limiter struct {
	*receivers.Set
	clock            func() time.Duration
	countConnections func(ports []uint16, add func(netip.AddrPort, uint64)) error
	log              *maillog.Logger
	cache            *cache.Cache
	loop             *eventloop.Loop // watches processes

	// watchers is the number of descriptors of processes. Sessions leave room for them and for
	// those of claims: limitSessions is called when the numbers have changed.
	watchers      atomic.Int64
	limitSessions func()

	// settle returns when the loops have read what has arrived.
	settle func()

	// openProcess returns a descriptor that can be read when a process has ended.
	openProcess func(pid int) (fd int, err error)

	claims      *claims
	running     sync.WaitGroup
	restored    chan struct{} // has an element when a state has been received
	stopping    chan struct{}
	stopOnce    sync.Once
	countWanted chan struct{} // a count is wanted
	closeWanted chan struct{} // there is something in closing

	mu      sync.Mutex
	coming  bool // a state is being received
	timer   *time.Timer
	wake    time.Duration // when the timer ends, or 0
	closing []string      // endpoints with a session to be closed
	watched map[int]*processWatch
}

func newLimiter(s *Server, clock func() time.Duration) *limiter {
	l := &limiter{
		Set: s.Receivers, clock: clock, countConnections: s.CountConnections, log: s.Log, cache: s.Cache,
		loop: s.workers[0].loop, stopping: make(chan struct{}),
		restored: make(chan struct{}, 1), countWanted: make(chan struct{}, 1),
		closeWanted: make(chan struct{}, 1),
		watched:     map[int]*processWatch{}, claims: newClaims(s.Socket), limitSessions: s.limitSessions,
		settle:      func() { s.all(func(*worker) {}) },
		openProcess: func(pid int) (int, error) { return unix.PidfdOpen(pid, 0) },
	}
	l.timer = time.AfterFunc(time.Hour, l.tick)
	l.timer.Stop()
	l.StopPromising()
	l.running.Go(l.keepCounting)
	l.running.Go(l.keepClosing)
	return l
}

// stop returns when nothing is carried out any more. The loops must have ended. Later calls do
// nothing.
func (l *limiter) stop() { l.stopOnce.Do(l.stopNow) }

func (l *limiter) stopNow() {
	close(l.stopping)
	l.running.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer.Stop()
	l.wake = 1 // earlier than any other time, so the timer is not started again
	for _, p := range l.watched {
		if p.fd != fdpass.None {
			unix.Close(p.fd)
		}
	}
}

// stateComes is called before the state of another process is received, and stateReceived when
// the loops have all of its clients. Meanwhile no client is told to connect.
func (l *limiter) stateComes() {
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.coming = true
		l.StopPromising()
	}
}

func (l *limiter) stateReceived() {
	if l != nil {
		l.mu.Lock()
		l.coming = false
		l.mu.Unlock()
		l.startPromising()
		select {
		case l.restored <- struct{}{}:
		default:
		}
	}
}

func (l *limiter) startPromising() { l.carryOut(l.StartPromising(l.clock())) }

// carryOut carries out decisions. It does not wait, and may be called with no lock held.
func (l *limiter) carryOut(d receivers.Decisions) {
	for _, a := range d.Answers {
		c := a.Client.Owner.(*conversation)
		c.worker.loop.Post(func() { c.endWait(a.Give != "") })
	}
	if d.Count {
		l.countWanted <- struct{}{} // there is one at a time
	}
	if d.Wake == 0 && len(d.Close) == 0 && len(d.Watch) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.Wake != 0 && (l.wake == 0 || d.Wake < l.wake) {
		l.wake = d.Wake
		l.timer.Reset(max(0, d.Wake-l.clock()))
	}
	for _, pid := range d.Watch {
		l.watch(pid)
	}
	if len(d.Close) > 0 {
		l.closing = append(l.closing, d.Close...)
		select {
		case l.closeWanted <- struct{}{}:
		default:
		}
	}
}

func (l *limiter) tick() {
	defer l.log.ExitOnPanic()
	l.mu.Lock()
	l.wake = 0
	l.mu.Unlock()
	l.carryOut(l.Tick(l.clock()))
}

// keepClosing closes sessions.
func (l *limiter) keepClosing() {
	defer l.log.ExitOnPanic()
	for {
		select {
		case <-l.closeWanted:
		case <-l.stopping:
			return
		}
		l.mu.Lock()
		labels := l.closing
		l.closing = nil
		l.mu.Unlock()
		for _, label := range labels {
			if !l.cache.EvictOldest(label) { // otherwise SessionDropped is called
				l.carryOut(l.NotClosed(l.clock(), label))
			}
		}
	}
}

// ErrCannotCount is wrapped by errors of CountConnections that will not pass by themselves.
var ErrCannotCount = errors.New("connections cannot be counted")

// claimInterval is how often connections are counted while receivers are claimed, although no
// client waits any more. As often, the listening socket is claimed while another process has it.
const claimInterval = 50 * time.Millisecond

// keepCounting counts connections when that is wanted. It does not begin before the state of
// an earlier process is there, if there is one: that has the connections that it has promised.
func (l *limiter) keepCounting() {
	defer l.log.ExitOnPanic()
	defer l.claims.close()
	if !l.awaitState() {
		return
	}
	works := l.countOnce() // later counts show what is new since
	for {
		var claimed <-chan time.Time
		if works && l.claims.any() {
			claimed = time.After(claimInterval)
		}
		select {
		case <-l.countWanted:
			if works {
				works = l.countOnce()
			}
		case <-claimed:
			works = l.countOnce()
		case <-l.stopping:
			return
		}
	}
}

// awaitState waits for the state of an earlier process. If none has begun to arrive within
// maxHold, there is none. It returns false if the server stops.
func (l *limiter) awaitState() bool {
	hold := time.NewTimer(maxHold)
	defer hold.Stop()
	for {
		select {
		case <-l.restored:
			return true
		case <-hold.C:
			l.settle() // this process may have had no processor meanwhile
			l.mu.Lock()
			coming := l.coming
			l.mu.Unlock()
			if !coming {
				l.startPromising()
				return true
			}
		case <-l.stopping:
			return false
		}
	}
}

// countOnce counts connections, and reports whether it makes sense to count again.
func (l *limiter) countOnce() bool {
	before := l.claims.number.Load()
	defer func() {
		if l.claims.number.Load() != before {
			l.limitSessions()
		}
	}()
	claimed := l.claims.claim(l.Shared(l.clock()))
	snapshot := l.NewSnapshot(l.clock())
	snapshot.Claimed = claimed
	err := l.countConnections(snapshot.Ports, snapshot.Add)
	switch {
	case err == nil:
		d := l.Apply(snapshot, l.clock())
		l.claims.release(l.Shared(l.clock()))
		l.carryOut(d)
	case errors.Is(err, ErrCannotCount):
		l.log.Warning("connections to receivers are estimated from now on, which misses those "+
			"of other programs: %v", err)
		l.claims.release(nil)
		l.claimSocket()
		l.carryOut(l.Estimate(l.clock()))
		return false
	default:
		l.log.Debug("%v", err) // it is tried again
		l.carryOut(l.CountFailed(l.clock()))
	}
	return true
}

// maxClaimWait is how long the claim of another process is waited for. It is longer than that
// process tries to hand over.
const maxClaimWait = 10 * time.Second

// claimSocket returns when no other process promises connections: it has ended, or its state has
// been received.
func (l *limiter) claimSocket() {
	for end := l.clock() + maxClaimWait; !l.claims.claimSocket() && l.clock() < end; {
		select {
		case <-time.After(claimInterval):
		case <-l.stopping:
			return
		}
	}
}

// SessionDropped is called when the cache has closed a session. It is for the Closer.
func (s *Server) SessionDropped(endpoint string) {
	if s.limiter != nil {
		s.limiter.carryOut(s.limiter.Dropped(s.limiter.clock(), endpoint))
	}
}

// A processWatch waits for the end of a process.
type processWatch struct {
	eventloop.Watch
	limiter *limiter
	pid, fd int
}

// processInterval is how often a process is looked for that cannot be waited for.
const processInterval = time.Second

// watch begins to wait for the end of a process. It is called with mu locked.
func (l *limiter) watch(pid int) {
	if l.watched[pid] != nil {
		return
	}
	p := &processWatch{limiter: l, pid: pid, fd: fdpass.None}
	l.watched[pid] = p
	l.loop.Post(p.begin)
}

// begin is called by the loop.
func (p *processWatch) begin() {
	var err error
	if p.fd, err = p.limiter.openProcess(p.pid); err == nil {
		if err = p.limiter.loop.Add(&p.Watch, p.fd, p); err == nil {
			p.limiter.addWatcher(+1)
			return
		}
		unix.Close(p.fd)
	}
	p.fd = fdpass.None
	if err == unix.ESRCH {
		p.ended()
		return
	}
	p.lookAgain() // descriptors may be short, or the kernel old
}

// Ready is called by the loop: the process has ended.
func (p *processWatch) Ready() {
	p.Remove()
	unix.Close(p.fd)
	p.limiter.addWatcher(-1)
	p.ended()
}

func (l *limiter) addWatcher(n int64) {
	l.watchers.Add(n)
	l.limitSessions()
}

// descriptors returns how many descriptors the limiter has that may be many.
func (l *limiter) descriptors() int {
	return int(l.watchers.Load()) + int(l.claims.number.Load())
}

// TimedOut is never called: the watch has no timeout.
func (p *processWatch) TimedOut() {}

// lookAgain looks for a process from time to time.
func (p *processWatch) lookAgain() {
	time.AfterFunc(processInterval, func() {
		defer p.limiter.log.ExitOnPanic()
		if unix.Kill(p.pid, 0) == unix.ESRCH {
			p.ended()
			return
		}
		p.limiter.loop.Post(p.begin)
	})
}

func (p *processWatch) ended() {
	l := p.limiter
	l.mu.Lock()
	delete(l.watched, p.pid)
	l.mu.Unlock()
	l.carryOut(l.ProcessEnded(l.clock(), p.pid))
}
