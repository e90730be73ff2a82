// SPDX-License-Identifier: EPL-2.0

package server

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/eventloop"
	"scache/internal/fdpass"
	"scache/internal/handover"
)

// A conversation is what the server and one client say to each other. All that
// it needs to go on is here, as data, and nothing waits for it: it moves on when
// something has arrived, or there is room to say something.
type conversation struct {
	worker *worker
	watch  eventloop.Watch
	socket *fdpass.Socket
	gone   func(counts bool) // to be called when the client is gone, or nil if it was

	state     handover.State
	session   int    // the descriptor in hand, or none, by the state
	ackDue    bool   // the client has yet to acknowledge a descriptor
	unread    []byte // what the client has said, and was not understood yet
	store     []byte // the conversation's own memory, where it is kept between turns
	unwritten []byte // what the client is to hear, and there was no room for
	scan      attr.Scanner
	request   int           // the size of the request at the head of unread that waits for a descriptor
	listing   *listing      // the reply in progress, if it is a long one
	full      bool          // there may be another request in unread
	heard     bool          // the client has said something
	left      time.Duration // of the wait that a predecessor has begun
}

const none = -1

func newConversation(fd int) *conversation {
	return &conversation{socket: fdpass.NewSocket(fd), session: none, state: handover.BetweenRequests}
}

// requestsPerTurn bounds what one client has answered while others wait.
const requestsPerTurn = 16

// Ready is for the loop.
func (c *conversation) Ready() {
	if err := c.turn(); err != nil {
		c.end(err)
	}
}

// TimedOut is for the loop.
func (c *conversation) TimedOut() { c.end(errTimeout) }

// Errors that end a conversation.
var (
	errTimeout = errors.New("timeout: the client has stopped in the middle of a request (see ipc_timeout); connection closed")
	errCutOff  = errors.New("the client has closed the connection in the middle of a request")
	errLeft    = errors.New("the connection is served elsewhere") // and there is nothing to warn about
)

// turn reads once, goes on as far as that goes, and writes once. A client that
// does not read what it is told is not read either.
func (c *conversation) turn() error {
	if err := c.flush(); err != nil || len(c.unwritten) > 0 {
		return errors.Join(err, c.wait())
	}
	if err := c.read(); err != nil {
		return err
	}
	if err := c.advance(); err != nil {
		return err
	}
	return c.wait()
}

// read reads what has arrived, behind what is there already.
func (c *conversation) read() error {
	if c.full || c.listing != nil || c.state == handover.DescriptorGoing {
		return nil // there is something else to do first
	}
	in := c.worker.in[:]
	n, err := c.socket.Receive(in)
	switch {
	case err == fdpass.ErrAgain:
		return nil
	case err == io.EOF && c.inRequest():
		return errCutOff
	case err != nil:
		return err
	}
	c.heard = true
	if len(c.unread) > 0 {
		c.store = append(c.unread, in[:n]...)
		c.unread = c.store
	} else {
		c.unread = in[:n:n] // until keep
	}
	return nil
}

// advance goes on with what has arrived, as far as it goes.
func (c *conversation) advance() (err error) {
	more := true
	served := 0
	for ; more && err == nil && served < requestsPerTurn; served++ {
		switch {
		case c.listing != nil:
			err = c.continueListing()
			more = c.listing == nil // others are served meanwhile
		case c.state == handover.BetweenRequests:
			more, err = c.answerNext()
		case c.state == handover.DescriptorDue:
			more, err = c.takeDescriptor()
		case c.state == handover.DummyDue:
			more, err = c.hearDummy()
		case c.state == handover.DescriptorGoing:
			more, err = c.sendDescriptor()
		}
		if err == nil && len(c.worker.out) > maxOut {
			err = c.flush()
		}
		more = more && len(c.unwritten) == 0
	}
	c.full = served == requestsPerTurn
	c.keep()
	if unsaid := c.flush(); err == nil {
		err = unsaid
	}
	c.worker.measure()
	return err
}

// measure counts how long the requests took that were answered since it was called
// last. A turn of the loop is when they were noticed.
func (w *worker) measure() {
	if w.answered > 0 {
		took := w.loop.Elapsed()
		for ; w.answered > 0; w.answered-- {
			w.took.Observe(took)
		}
	}
}

// maxOut bounds what is said at once: then the client has to listen.
const maxOut = 64 << 10

// answerNext answers the next list, if it is there.
func (c *conversation) answerNext() (more bool, err error) {
	list, size, err := c.next()
	if size == 0 || err != nil {
		return false, err
	}
	consumed := size
	err = c.answer(list)
	if c.state == handover.DescriptorDue {
		c.request, consumed = size, 0
	}
	c.unread = c.unread[consumed:]
	return true, err
}

// takeDescriptor does what a request to save asks for, once the descriptor has
// arrived.
func (c *conversation) takeDescriptor() (more bool, err error) {
	if len(c.unread) == c.request {
		return false, nil
	}
	list := c.worker.parse(c.unread[:c.request])
	c.unread, c.request = c.unread[c.request+1:], 0
	c.state = handover.BetweenRequests
	c.save(list[1:])
	return true, nil
}

// hearDummy waits for the client to ask for the descriptor in hand. A descriptor
// that is sent before the client has read the reply is lost: it reads ahead.
func (c *conversation) hearDummy() (more bool, err error) {
	list, size, err := c.next()
	if size == 0 || err != nil {
		return false, err
	}
	if !isDummy(list) {
		return false, fmt.Errorf("%w; connection closed", list.Expect("dummy"))
	}
	c.unread = c.unread[size:]
	c.refuseDescriptor()
	c.state = handover.DescriptorGoing
	return true, nil
}

// sendDescriptor gives the descriptor in hand away, when all that was to be said
// before is written.
func (c *conversation) sendDescriptor() (more bool, err error) {
	if err := c.flush(); err != nil || len(c.unwritten) > 0 {
		return false, err
	}
	switch err := c.socket.SendDescriptor(c.session); err {
	case fdpass.ErrAgain:
		return false, nil
	case nil:
		c.drop()
		c.state, c.ackDue = handover.BetweenRequests, true
		return true, nil
	default:
		return false, err
	}
}

// next returns the next list and its size, which is 0 if it is not there yet.
func (c *conversation) next() (attr.List, int, error) {
	size := c.scan.Size(c.unread)
	if size > attr.DefaultMaxSize || size == 0 && len(c.unread) >= attr.DefaultMaxSize {
		return nil, 0, fmt.Errorf("%w: more than %d bytes; connection closed", attr.ErrTooLong, attr.DefaultMaxSize)
	}
	if size == 0 {
		return nil, 0, nil
	}
	return c.worker.parse(c.unread[:size]), size, nil
}

// storeSize bounds the memory that a conversation keeps while nothing is unread.
const storeSize = 1 << 10

// keep moves what is left unread to the front of the conversation's own memory:
// it was read into that of the worker.
func (c *conversation) keep() {
	if len(c.unread) == 0 {
		c.unread = nil
		if cap(c.store) > storeSize {
			c.store = nil
		}
		return
	}
	if len(c.store) == 0 || &c.unread[0] != &c.store[0] {
		c.store = append(c.store[:0], c.unread...)
	}
	c.unread = c.store[:len(c.unread)]
}

// flush writes what is to be said, as far as there is room.
func (c *conversation) flush() error {
	w := c.worker
	out := w.out
	if len(out)+len(c.unwritten) == 0 {
		return nil
	}
	if len(c.unwritten) > 0 {
		c.unwritten = append(slices.Clip(c.unwritten), out...)
		out = c.unwritten
	}
	w.out = w.out[:0]
	for len(out) > 0 {
		n, err := c.socket.Send(out)
		if err == fdpass.ErrAgain {
			break
		}
		if err != nil {
			return err
		}
		out = out[n:]
	}
	c.unwritten = append([]byte(nil), out...)
	if cap(w.out) > 2*maxOut {
		w.out = nil
	}
	return nil
}

// wait says what to wait for, and for how long. Only a client that has begun a
// request is waited for with a limit.
func (c *conversation) wait() error {
	if c.inRequest() {
		c.watch.SetTimeout(c.worker.Timeout)
	} else {
		c.watch.ClearTimeout()
	}
	blocked := len(c.unwritten) > 0 || c.state == handover.DescriptorGoing
	if !blocked && (c.full || c.listing != nil) {
		c.watch.Again()
	}
	return c.watch.WaitToWrite(blocked)
}

func (c *conversation) inRequest() bool {
	return c.state != handover.BetweenRequests || len(c.unread) > 0 || len(c.unwritten) > 0 || c.listing != nil
}

// drop closes the descriptor in hand.
func (c *conversation) drop() {
	if c.session != none {
		unix.Close(c.session)
		c.session = none
	}
}

// end ends a conversation.
func (c *conversation) end(err error) {
	w := c.worker
	w.out = w.out[:0]
	if deservesWarning(err) {
		c.warn(err)
	}
	w.remove(c)
	c.drop()
	c.socket.Close()
	c.discount(true)
}

// discount tells that the client is gone, or that it does not count.
func (c *conversation) discount(counted bool) {
	if c.gone != nil {
		c.gone(counted)
		c.gone = nil
	}
}

// remove makes a worker forget a conversation.
func (w *worker) remove(c *conversation) {
	c.watch.Remove()
	delete(w.clients, c)
	w.count.Add(-1)
	w.unregister()
}

// deservesWarning tells whether the end of a conversation is worth a warning: not
// that of a client that has heard all it asked for, or did not stay to hear.
func deservesWarning(err error) bool {
	return err != nil && err != io.EOF && err != errLeft && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET)
}

// warn logs what is wrong with this client. There is no name to give: its
// socket has none.
func (c *conversation) warn(err error) { c.worker.Log.Warning("scache client: %v", err) }
