// SPDX-License-Identifier: EPL-2.0

// Package server answers the clients of the connection cache: it turns their
// requests into calls of the cache, and passes the descriptors. When the process
// is to be replaced, it turns its conversations into data for the server that
// comes next.
//
// A few event loops, each with a worker, share the clients among them. The exchange
// between the server and one client is a conversation: a value that advances with the
// input. See advance for its phases.
//
// If receivers have limits, a limiter may make a client wait before it is told that
// nothing was found. What it decides is in package receivers.
package server

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/eventloop"
	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/histogram"
	"scache/internal/maillog"
	"scache/internal/receivers"
	"scache/internal/stats"
)

// A Server answers clients, each independently of the others.
type Server struct {
	Cache  *cache.Cache
	Labels *Labels
	Log    *maillog.Logger

	// Announce reports whether the server must speak first, as clients of Postfix 3.6 and
	// later expect and earlier ones do not understand. The first call may wait; clients wait
	// in the accept queue meanwhile. If Announce is nil, the server does not speak first.
	Announce func() bool

	// Timeout bounds one wait for a client that is in the middle of a request.
	Timeout time.Duration

	// Owner is a user who may connect beside root and the user that this
	// process runs as.
	Owner int

	// Connected tells the process about a client that another process has accepted. It
	// returns the function to call when the client is gone. If Connected is nil, the server
	// receives no state.
	Connected func() (gone func(agent bool))

	// ReceivingState is called before a state is received, if not nil. It returns the function
	// to call afterwards.
	ReceivingState func() (received func())

	// MakeRoom gives up descriptors that clients need more, if not nil.
	MakeRoom func()

	// Restart makes the process hand over to a new one. If it is nil, the request restart is
	// refused.
	Restart func()

	// OnPanic is called when a panic has ended a conversation, if not nil.
	OnPanic func()

	// SessionLimit returns how many sessions may be cached while this number of
	// clients is connected, and this number of descriptors is in use for other
	// things. If it is nil, there is no limit.
	SessionLimit func(clients, others int) int

	// These are for the reply to the request status.
	Version       string
	Started       time.Time
	LivenessCheck bool
	Goodbye       string

	// Receivers has the limits of receivers, or is nil. With it, the other three are needed.
	Receivers *receivers.Set

	// Socket is a name of the listening socket: the same in each process that has it, and of no
	// other socket.
	Socket string

	// CountConnections calls add with each connection of this machine to one of these remote
	// ports, and a number that no other connection has. See ErrCannotCount.
	CountConnections func(ports []uint16, add func(netip.AddrPort, uint64)) error

	// Discard closes sessions that are not to be cached.
	Discard func([]cache.Dropped)

	// Waiting returns how many descriptors of sessions wait for a close(2) that may block, if
	// not nil.
	Waiting func() int

	workers    []*worker
	receptions receptions
	limiter    *limiter     // nil without Receivers
	begun      atomic.Int64 // conversations, so far

	announceKnown atomic.Bool // Announce has returned
	copies        closeQueue  // descriptors that conversations close

	clients atomic.Int64 // number of clients that are connected
	pending atomic.Int64 // bytes of memory for input that is not processed, and output not read, yet
	mu      sync.Mutex
	counts  stats.Values // of previous processes, and of this one without its cache and loops
	since   time.Time    // when counting began; zero if it began with this process
}

// A worker serves its share of the clients, in an event loop.
type worker struct {
	server  *Server
	loop    *eventloop.Loop
	ended   chan struct{} // closed when the loop has
	clients map[*conversation]struct{}
	closeFD func(fd int) // closes descriptors that clients have sent in vain
	count   atomic.Int32 // number of clients, including those that are not in clients yet

	took     histogram.Histogram // time of requests, from the start of the turn to the reply
	answered int                 // number of requests that are not in took yet

	// All conversations share these buffers: each leaves them empty after its turn.
	in     [16 << 10]byte // input
	list   attr.List      // a list of the input
	encode *attr.Encoder  // writes to out
	out    []byte         // output
}

// Start starts event loops, with a clock that returns the time since some fixed moment.
func (s *Server) Start(loops int, clock func() time.Duration) error {
	s.receptions.reopen()
	for range loops {
		loop, err := newLoop(clock)
		if err != nil {
			return err
		}
		w := newWorker(s, loop)
		s.workers = append(s.workers, w)
	}
	if s.Receivers != nil {
		s.limiter = newLimiter(s, clock)
	}
	for _, w := range s.workers {
		go w.run()
	}
	return nil
}

// newLoop returns a new event loop. After a transient failure it tries again: master(8) waits
// for a minute before it starts a process again that has failed at its start.
func newLoop(clock func() time.Duration) (loop *eventloop.Loop, err error) {
	for range 5 {
		if loop, err = eventloop.New(clock); err == nil || !fdpass.Transient(err) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return loop, err
}

func newWorker(s *Server, loop *eventloop.Loop) *worker {
	w := &worker{
		server: s, loop: loop, ended: make(chan struct{}), clients: map[*conversation]struct{}{},
	}
	w.closeFD = s.copies.closeFD
	w.encode = attr.NewEncoder(w)
	w.encode.SetMaxSize(3 * maxRequest) // two properties of any length that a request can have
	return w
}

func (w *worker) run() {
	defer w.server.Log.ExitOnPanic()
	defer close(w.ended)
	if err := w.loop.Run(); err != nil {
		panic(err) // epoll_wait(2) fails: no client of this loop can be served any more
	}
}

// Write is for the encoder.
func (w *worker) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

// Accept serves the client on this descriptor. It calls gone once: when the client is
// gone, or when it makes a request that only operators make. The argument of gone is
// that of master.Handler. Accept may be called from any goroutine.
func (s *Server) Accept(fd int, gone func(agent bool)) {
	c := s.greet(fd)
	if c == nil {
		gone(false)
		return
	}
	c.onClose = gone
	s.serve(c)
}

// greet begins a conversation with a client. It returns nil if the client may not connect.
func (s *Server) greet(fd int) *conversation {
	if err := s.checkPeer(fd); err != nil {
		unix.Close(fd)
		s.countRefused()
		s.Log.Warning("%v", err)
		return nil
	}
	s.mu.Lock()
	s.counts.Connections++
	s.mu.Unlock()
	c := newConversation(fd)
	if s.announces(fd) {
		c.unwritten = announcement
	}
	return c
}

// announces reports whether the server must speak first to this client. It does not to the
// previous process, so a state is received before Announce has returned. To wait for it would
// take a third of the time for which clients wait at a reload.
func (s *Server) announces(fd int) bool {
	if s.Announce == nil || !s.announceKnown.Load() && handover.Requested(fd) {
		return false
	}
	announce := s.Announce()
	s.announceKnown.Store(true)
	return announce
}

// Announcement is what clients of Postfix 3.6 and later receive first.
const Announcement = "protocol\x00connection_cache_protocol\x00\x00"

var announcement = slices.Clip([]byte(Announcement)) // allocated once

// serve gives a client to the worker with the fewest clients.
func (s *Server) serve(c *conversation) {
	w := s.workers[0]
	for _, other := range s.workers[1:] {
		if other.count.Load() < w.count.Load() {
			w = other
		}
	}
	w.count.Add(1)
	c.number = s.begun.Add(1)
	s.register()
	w.loop.Post(func() { w.begin(c) })
}

func (w *worker) begin(c *conversation) {
	c.worker = w
	c.socket.CloseWith(w.closeFD)
	defer c.endOnPanic()
	w.clients[c] = struct{}{}
	c.beginClient()
	if err := w.loop.Add(&c.watch, c.socket.FD(), c); err != nil {
		// At the kernel's limit, this happens to all clients that connect.
		w.server.Log.WarningRarely(
			"watch connection: %v; closing it (such a warning comes once a minute)", err)
		c.end(nil)
		return
	}
	err := c.check()
	if err == nil {
		err = c.resumeWait()
	}
	if err == nil {
		err = c.turn() // there may be something to say, or to go on with
	}
	switch {
	case err != nil:
		c.end(err)
	case c.timeout != 0 && c.inRequest():
		c.watch.SetTimeout(max(c.timeout, 1)) // the time may be over already
	}
}

// parse returns the attributes of a list. They are valid until the next call.
func (w *worker) parse(msg []byte) attr.List {
	list := attr.Parse(w.list[:0], msg)
	if w.list = list; cap(list) > usualAttrs {
		w.list = nil
	}
	return list
}

// usualAttrs is more attributes than a usual request has. A longer list is not kept for reuse.
const usualAttrs = 16

// all runs a function in every loop, and waits until that is done.
func (s *Server) all(f func(*worker)) {
	var done sync.WaitGroup
	for _, w := range s.workers {
		done.Add(1)
		if !w.loop.Post(func() { defer done.Done(); f(w) }) {
			done.Done()
		}
	}
	done.Wait()
}

// Check returns when every loop and the cache have done something: it is for the watchdog.
func (s *Server) Check() {
	s.all(func(*worker) {})
	s.Cache.Expire()
}

// Stop ends all conversations, and the loops.
func (s *Server) Stop() {
	s.receptions.finish()
	s.all((*worker).stop)
	for _, w := range s.workers {
		<-w.ended
	}
	s.stopLimiter()
}

func (s *Server) stopLimiter() {
	if s.limiter != nil {
		s.limiter.stop()
	}
}

// stop ends all conversations and the loop.
func (w *worker) stop() {
	for c := range w.clients {
		c.end(nil)
	}
	w.loop.Stop()
}

// register counts a client, and unregister one that is gone. Sessions leave room for the
// descriptors of clients.
func (s *Server) register()   { s.countClients(+1) }
func (s *Server) unregister() { s.countClients(-1) }

func (s *Server) countClients(more int64) {
	s.clients.Add(more)
	s.limitSessions()
}

func (s *Server) limitSessions() {
	if s.SessionLimit == nil {
		return
	}
	s.Cache.SetLimit(func() int {
		others := 0
		if s.limiter != nil {
			others = s.limiter.descriptors()
		}
		return s.SessionLimit(int(s.clients.Load()), others)
	})
}

// waitingToClose returns how many descriptors wait for a close(2) that may block.
func (s *Server) waitingToClose() int {
	n := int(s.copies.waiting.Load())
	if s.Waiting != nil {
		n += s.Waiting()
	}
	return n
}

// Clients returns how many clients are connected.
func (s *Server) Clients() int { return int(s.clients.Load()) }

// counted returns the time since counting began. The caller holds mu.
func (s *Server) counted() time.Duration {
	if s.since.IsZero() {
		return time.Since(s.Started)
	}
	return time.Since(s.since)
}

func (s *Server) countRefused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Refused++
}

// checkPeer returns an error if a client may not connect.
func (s *Server) checkPeer(fd int) error {
	peer, err := fdpass.PeerOf(fd)
	if err != nil {
		return err
	}
	switch own := os.Geteuid(); peer.UID {
	case 0, own, s.Owner:
		return nil
	default:
		users := fmt.Sprintf("uid %d", own)
		if s.Owner != own && s.Owner != 0 {
			users = fmt.Sprintf("the uids %d and %d", own, s.Owner)
		}
		return fmt.Errorf("refused a client with uid %d, pid %d: only root and %s may connect",
			peer.UID, peer.PID, users)
	}
}
