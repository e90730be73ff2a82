// SPDX-License-Identifier: EPL-2.0

package server

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"scache/attr"
	"scache/internal/control"
	"scache/internal/eventloop"
	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/receivers"
)

// A conversation is a client and everything that the server knows about it. It is data: no
// goroutine waits while the conversation waits, and it can be handed over to another process at
// any moment. It advances when input has arrived, or when there is room for output.
type conversation struct {
	worker  *worker
	number  int64 // in the order of their beginnings
	watch   eventloop.Watch
	socket  *fdpass.Socket
	onClose func(agent bool) // tells the process that the client is gone; nil after the call

	phase     handover.Phase
	session   int    // the descriptor that is being given to the client, or fdpass.None
	ackDue    bool   // the client has yet to acknowledge a descriptor
	unread    []byte // input that is not processed yet
	buffer    []byte // the conversation's own memory, where unread is kept between turns
	accounted int    // the size of buffer and unwritten, as the server knows it
	unwritten []byte // output that there was no room for
	scan      attr.Scanner
	request   int      // the size of the request at the head of unread that waits, or 0
	listing   *listing // the reply in progress, if it is a long one

	tooLong     bool          // the list that is arriving is too long, and discarded
	morePending bool          // there may be another request in unread
	gotInput    bool          // the client has sent something
	timeout     time.Duration // what remained of the wait for the client in another process

	coming *arrivals         // sessions of the same state that have not arrived, or nil
	client *receivers.Client // for the limiter, if there is one
	waited *handover.Wait    // what the limiter of another process knew, or nil
}

func newConversation(fd int) *conversation {
	return &conversation{socket: fdpass.NewSocket(fd),
		session: fdpass.None, phase: handover.BetweenRequests}
}

// requestsPerTurn bounds how many requests of one client are answered while others wait.
const requestsPerTurn = 16

// Ready is called by the loop.
func (c *conversation) Ready() {
	defer c.endOnPanic()
	if err := c.turn(); err != nil {
		c.end(err)
	}
}

// TimedOut is called by the loop.
func (c *conversation) TimedOut() {
	defer c.endOnPanic()
	c.end(errTimeout)
}

// endOnPanic is deferred while a conversation is served: a panic ends only this conversation.
func (c *conversation) endOnPanic() {
	if reason := recover(); reason != nil {
		c.server().Log.Panic(reason)
		c.end(nil)
		if s := c.server(); s.OnPanic != nil {
			s.OnPanic()
		}
	}
}

// Errors that end a conversation.
var (
	errTimeout = errors.New("timeout: the client has stopped in the middle of a request " +
		"(see ipc_timeout); connection closed")
	errUnread = errors.New("too much output is pending, as the client does not read it; " +
		"connection closed")
	errCutOff = errors.New("the client has closed the connection in the middle of a request")
)

func (c *conversation) server() *Server { return c.worker.server }

// turn reads once, processes the input, and writes once. While output is pending, nothing is
// read from the client.
func (c *conversation) turn() error {
	if err := c.write(); err != nil || len(c.unwritten) > 0 {
		return errors.Join(err, c.setWatch())
	}
	if err := c.read(); err != nil {
		return err
	}
	if err := c.advance(); err != nil {
		return err
	}
	return c.setWatch()
}

// read appends new input to unread.
func (c *conversation) read() error {
	if c.morePending || c.listing != nil || c.phase == handover.DescriptorGoing {
		return nil // the input that has arrived is processed first
	}
	in := c.worker.in[:]
	n, err := c.receive(in)
	switch {
	case err == fdpass.ErrAgain:
		return nil
	case err == io.EOF && c.inRequest() && !c.waits():
		return errCutOff
	case err != nil:
		return err
	}
	c.gotInput = true
	if len(c.unread) > 0 {
		c.buffer = append(c.unread, in[:n]...)
		c.unread = c.buffer
	} else {
		c.unread = in[:n:n] // storeUnread copies it
	}
	return nil
}

// receive reads once. While too many descriptors wait to be closed, it takes no more: a client
// that saves a session is told that this has failed.
func (c *conversation) receive(in []byte) (n int, err error) {
	if c.server().waitingToClose() > maxWaitingToClose {
		return c.socket.ReceiveBytes(in)
	}
	return c.socket.Receive(in)
}

// advance processes input as far as possible. It never waits. These are the phases, and what
// moves a conversation from one to the next; S is for the server, C for the client:
//
//	┌─────────────▶ BetweenRequests ◀──────────────────────────────────┐
//	│                │            │                                     │
//	│   C save_endp  │            │  C find_endp, find_dest             │
//	│   S dummy      │            │  S status=0, properties             │
//	│                ▼            ▼                                     │
//	│        DescriptorDue     DummyDue                                 │
//	│                │            │                                     │
//	│   C descriptor │            │  C dummy                            │
//	│   S status     │            ▼                                     │
//	└────────────────┘     DescriptorGoing ── S descriptor; C dummy ────┘
//
// Where a receiver has all connections that it allows, a client that asks with find_endp or
// find_dest, and for which there is no session, comes to waitsForConnection first. An answer
// of the limiter moves it on from there: see endWait. While the sessions of another process
// arrive, such a client can come to waitsForSessions, which ends when they are here.
//
// All other requests are answered at once. The last dummy of the client can come glued to its
// next request: ackDue remembers it.
func (c *conversation) advance() (err error) {
	more := true
	served := 0
	for ; more && err == nil && served < requestsPerTurn; served++ {
		switch {
		case c.listing != nil:
			err = c.continueListing()
			more = c.listing == nil // others are served meanwhile
		case c.phase == handover.BetweenRequests:
			more, err = c.answerNext()
		case c.phase == handover.DescriptorDue:
			more, err = c.takeDescriptor()
		case c.phase == handover.DummyDue:
			more, err = c.hearDummy()
		case c.phase == handover.DescriptorGoing:
			more, err = c.sendDescriptor()
		case c.waits():
			more, err = false, c.checkWait()
		}
		if err == nil && len(c.worker.out) > maxOut {
			err = c.write()
		}
		more = more && len(c.unwritten) == 0
	}
	c.morePending = served == requestsPerTurn
	c.storeUnread()
	if failed := c.write(); err == nil {
		err = failed
	}
	c.worker.measure()
	return err
}

// measure records the time of the requests that were answered since the last call: from
// the start of this turn of the loop until now.
func (w *worker) measure() {
	if w.answered > 0 {
		took := w.loop.Elapsed()
		for ; w.answered > 0; w.answered-- {
			w.took.Observe(took)
		}
	}
}

// maxOut bounds the output of a turn. More requests are answered when the client has read it.
const maxOut = 64 << 10

// answerNext answers the next list, if it is there.
func (c *conversation) answerNext() (more bool, err error) {
	list, size, tooLong := c.next()
	if size == 0 {
		return false, nil
	}
	consumed := size
	if tooLong {
		c.refuseTooLong()
	} else {
		err = c.answer(list)
	}
	if c.phase == handover.DescriptorDue || c.waits() {
		c.request, consumed = size, 0
	}
	c.unread = c.unread[consumed:]
	return !c.waits(), err
}

// takeDescriptor does what a request to save asks for, once the descriptor has
// arrived.
func (c *conversation) takeDescriptor() (more bool, err error) {
	if len(c.unread) == c.request {
		return false, nil
	}
	list := c.worker.parse(c.unread[:c.request])
	c.unread, c.request = c.unread[c.request+1:], 0
	c.phase = handover.BetweenRequests
	c.save(list[1:])
	return true, nil
}

// hearDummy processes the dummy by which the client asks for the session. The descriptor
// must not be sent earlier: the client reads ahead, and would lose it with the reply.
func (c *conversation) hearDummy() (more bool, err error) {
	list, size, _ := c.next()
	if size == 0 {
		return false, nil
	}
	if !isDummy(list) {
		return false, fmt.Errorf("%w; connection closed", list.Expect("dummy"))
	}
	c.unread = c.unread[size:]
	c.refuseDescriptor()
	c.phase = handover.DescriptorGoing
	return true, nil
}

// sendDescriptor sends the session to the client, after all output that comes before.
func (c *conversation) sendDescriptor() (more bool, err error) {
	if err := c.write(); err != nil || len(c.unwritten) > 0 {
		return false, err
	}
	switch err := c.socket.SendDescriptor(c.session); err {
	case fdpass.ErrAgain:
		return false, nil
	case nil:
		c.drop()
		c.phase, c.ackDue = handover.BetweenRequests, true
		return true, nil
	default:
		return false, err
	}
}

const (
	// maxRequest bounds the size of a request: the stock server takes properties of any size.
	maxRequest = 1<<20 + 64<<10

	// maxPending bounds the size of all incomplete requests and of all output that clients do
	// not read together, except for the first bytes of each.
	maxPending = 64 << 20
)

// next returns the next list and its size, which is 0 if it is not complete yet. If the list
// was too long, its contents are discarded.
func (c *conversation) next() (list attr.List, size int, tooLong bool) {
	size = c.scan.Size(c.unread)
	switch {
	case size == 0 &&
		(len(c.unread) > maxRequest || c.tooLong || c.server().pending.Load() > maxPending):
		c.tooLong = c.tooLong || len(c.unread) > len(c.worker.in)
		if c.tooLong {
			c.unread = c.scan.Discard(c.unread)
		}
		return nil, 0, false
	case size == 0:
		return nil, 0, false
	case c.tooLong || size > maxRequest:
		c.tooLong = false
		return nil, size, true
	}
	return c.worker.parse(c.unread[:size]), size, false
}

// refuseTooLong answers a list that was too long.
func (c *conversation) refuseTooLong() {
	c.refuseDescriptor()
	c.warn(fmt.Errorf("%w: more than %d bytes, or too many from all clients together",
		attr.ErrTooLong, maxRequest))
	c.reply(control.Bad)
}

// bufferSize bounds the memory that a conversation keeps while nothing is unread.
const bufferSize = 1 << 10

// storeUnread moves unread input to the front of the conversation's buffer. It may be in the
// buffer of the worker, where it was read.
func (c *conversation) storeUnread() {
	before := cap(c.buffer)
	switch {
	case len(c.unread) == 0:
		c.unread = nil
		if before > bufferSize {
			c.buffer = nil
		}
	case cap(c.buffer) > bufferSize && len(c.unread) <= bufferSize:
		c.buffer = slices.Clone(c.unread)
		c.unread = c.buffer
	default:
		if len(c.buffer) == 0 || &c.unread[0] != &c.buffer[0] {
			c.buffer = append(c.buffer[:0], c.unread...)
		}
		c.unread = c.buffer[:len(c.unread)]
	}
	c.account()
}

// account updates the server's sum of the buffers of all conversations.
func (c *conversation) account() {
	if now := cap(c.buffer) + cap(c.unwritten); now != c.accounted {
		c.server().pending.Add(int64(now - c.accounted))
		c.accounted = now
	}
}

// write writes pending output, as far as there is room.
func (c *conversation) write() error {
	w := c.worker
	out := w.out
	if len(c.unwritten) > 0 {
		c.unwritten = append(c.unwritten, out...)
		out = c.unwritten
	}
	for len(out) > 0 {
		n, err := c.socket.Send(out)
		if err == fdpass.ErrAgain {
			break
		}
		if err != nil {
			w.out = w.out[:0]
			return err
		}
		out = out[n:]
	}
	switch {
	case len(out) == 0:
		c.unwritten = nil
	case len(c.unwritten) > 0:
		c.unwritten = out
	default:
		c.unwritten = slices.Clone(out) // the rest of the worker's buffer
	}
	w.out = w.out[:0]
	if cap(w.out) > 2*maxOut {
		w.out = nil
	}
	c.account()
	if len(c.unwritten) > maxOut && c.server().pending.Load() > maxPending {
		return errUnread
	}
	return nil
}

// setWatch tells the loop what to wait for, and for how long. There is a timeout only for
// a client that has begun a request.
func (c *conversation) setWatch() error {
	if c.inRequest() && !c.waits() {
		c.watch.SetTimeout(c.server().Timeout)
	} else {
		c.watch.ClearTimeout()
	}
	blocked := len(c.unwritten) > 0 || c.phase == handover.DescriptorGoing
	if !blocked && (c.morePending || c.listing != nil) {
		c.watch.Again()
	}
	return c.watch.WaitToWrite(blocked)
}

// waits reports whether the client waits for the server, which answers its request later.
func (c *conversation) waits() bool {
	return c.phase == waitsForConnection || c.phase == waitsForSessions
}

func (c *conversation) inRequest() bool {
	return c.phase != handover.BetweenRequests || len(c.unread) > 0 || len(c.unwritten) > 0 ||
		c.listing != nil
}

// drop closes the session that the client has not received.
func (c *conversation) drop() {
	if c.session != fdpass.None {
		c.server().copies.closeFD(c.session)
		c.session = fdpass.None
	}
}

// end ends a conversation, because of err if that is not nil.
func (c *conversation) end(err error) {
	w := c.worker
	w.out = w.out[:0]
	if deservesWarning(err) {
		c.warn(err)
	}
	w.remove(c)
	c.endClient()
	c.drop()
	c.socket.Close()
	c.buffer, c.unwritten = nil, nil
	c.account()
	c.uncount(true)
}

// uncount calls onClose, the first time. An operator is not counted as a client, although
// its connection may stay open: then agent is false.
func (c *conversation) uncount(agent bool) {
	if c.onClose != nil {
		c.onClose(agent)
		c.onClose = nil
	}
}

// remove makes a worker forget a conversation.
func (w *worker) remove(c *conversation) {
	c.watch.Remove()
	delete(w.clients, c)
	w.count.Add(-1)
	w.server.unregister()
}

// deservesWarning reports whether to log why a conversation has ended. A client may close the
// connection between two requests, or without waiting for a reply.
func deservesWarning(err error) bool {
	return err != nil && err != io.EOF && !errors.Is(err, syscall.EPIPE) &&
		!errors.Is(err, syscall.ECONNRESET)
}

// warn logs an error of this client. The line has no name of the client: its socket
// has none.
func (c *conversation) warn(err error) { c.server().Log.Warning("scache client: %v", err) }
