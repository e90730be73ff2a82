// SPDX-License-Identifier: EPL-2.0

package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/fdpass"
	"scache/internal/operator"
)

// The status of a reply.
const (
	statusOK = iota
	statusBad
	statusFail
)

// A conversation is what the server and one client say to each other.
type conversation struct {
	*Server
	conn     *fdpass.Conn
	in       *attr.Decoder
	out      *attr.Encoder
	deadline time.Time // of conn

	busy       bool // with a request
	toAnnounce bool // the client waits for the announcement
	ackDue     bool // the client has yet to acknowledge a descriptor
}

func newConversation(s *Server, conn *fdpass.Conn) *conversation {
	c := &conversation{Server: s, conn: conn}
	c.in = attr.NewDecoder(c)
	c.out = attr.NewEncoder(conn)
	c.out.SetMaxSize(3 * attr.DefaultMaxSize) // two properties, as long as they come
	return c
}

// errHandOver ends a conversation that a successor is to go on with.
var errHandOver = errors.New("handed over")

// run answers requests, one after another, until the client is gone.
func (c *conversation) run() error {
	for {
		if c.handOver.Load() != nil && c.in.Buffered() == 0 {
			return errHandOver
		}
		if err := c.announce(); err != nil {
			return err
		}
		list, err := c.in.Decode()
		if errors.Is(err, os.ErrDeadlineExceeded) && c.in.Buffered() == 0 {
			c.setDeadline(time.Time{}) // of an earlier request: nothing is late
			continue
		}
		if err != nil {
			return err
		}
		c.busy = true
		c.limitWait()
		if err := c.answer(list); err != nil {
			return err
		}
		c.busy = false
	}
}

// announce says which protocol this is, where that is to be said.
func (c *conversation) announce() error {
	if !c.toAnnounce {
		return nil
	}
	c.toAnnounce = false
	c.out.String("protocol", "connection_cache_protocol")
	return c.out.End()
}

// explain makes the end of a conversation into something worth a warning: not
// the end of a client that has heard all it asked for, or did not stay to hear.
func explain(err error) error {
	switch {
	case err == io.EOF, errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return nil
	case err == io.ErrUnexpectedEOF:
		return errors.New("the client has closed the connection in the middle of a request")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("timeout: the client has stopped in the middle of a request (see ipc_timeout); connection closed")
	case err == attr.ErrTooLong:
		return fmt.Errorf("%w: more than %d bytes; connection closed", err, attr.DefaultMaxSize)
	}
	return err
}

// Read is for the decoder. Only a client that has begun a request is waited for
// with a limit. What is written in between has the same limit.
func (c *conversation) Read(p []byte) (int, error) {
	waiting := c.busy || c.in.Buffered() > 0
	if waiting {
		c.limitWait()
	}
	n, err := c.conn.Read(p)
	if waiting && errors.Is(err, os.ErrDeadlineExceeded) && c.handOver.Load() != nil {
		// HandOver has woken us; there may be time left for this request.
		c.limitWait()
		n, err = c.conn.Read(p)
	}
	return n, err
}

// limitWait limits what comes next to Timeout, or half as much again: so it
// seldom has to do anything.
func (c *conversation) limitWait() {
	if now := time.Now(); c.handOver.Load() == nil && c.deadline.Sub(now) < c.Timeout {
		c.setDeadline(now.Add(c.Timeout + c.Timeout/2))
	}
	if end := c.handOver.Load(); end != nil { // possibly from just now
		c.setDeadline(*end)
	}
}

func (c *conversation) setDeadline(t time.Time) {
	c.deadline = t
	c.conn.SetDeadline(t)
}

// answer answers one list of the client. An error ends the conversation.
func (c *conversation) answer(list attr.List) error {
	if c.ackDue {
		c.ackDue = false
		if isDummy(list) {
			c.refuseDescriptor()
			return nil
		}
	}
	if len(list) == 0 || string(list[0].Name) != "request" {
		c.refuseDescriptor()
		c.warn(list.Expect("request"))
		return nil
	}
	request, list := list[0].Value, list[1:]
	if c.Log.Verbose() {
		c.Log.Debug("request %s", request)
	}
	switch string(request) {
	case "save_endp":
		return c.saveEndpoint(list)
	case "take_over":
		return c.takeOver(list)
	}
	c.refuseDescriptor()
	switch string(request) {
	case "find_endp":
		return c.findEndpoint(list)
	case "save_dest":
		return c.saveDestination(list)
	case "find_dest":
		return c.findDestination(list)
	case operator.RequestStatus:
		return c.tellStatus(list)
	case operator.RequestList:
		return c.tellAll(list)
	case operator.RequestFlush:
		return c.flush(list)
	}
	c.Log.Warning("unrecognized request: \"%.100s\", ignored", request)
	return c.reply(statusBad)
}

func (c *conversation) saveEndpoint(list attr.List) error {
	ttl, err := expectSave(list, "ttl", "label", "property")
	if err != nil {
		c.refuseDescriptor()
		c.warnParameter("scache_save_endp_service", err)
		return c.reply(statusBad)
	}
	fd, err := c.receiveDescriptor()
	if fdpass.IsRefusal(err) {
		c.Log.Warning("scache_save_endp_service: unable to receive file descriptor: %v", err)
		return c.reply(statusFail)
	}
	if err != nil {
		return err
	}
	c.Cache.SaveSession(ttl, list[1].Value, list[2].Value, fd)
	return c.reply(statusOK)
}

func (c *conversation) saveDestination(list attr.List) error {
	ttl, err := expectSave(list, "ttl", "label", "property", "label")
	if err != nil {
		c.warnParameter("scache_save_dest_service", err)
		return c.reply(statusBad)
	}
	c.Cache.SaveBinding(ttl, list[1].Value, list[2].Value, list[3].Value)
	return c.reply(statusOK)
}

// expectSave checks the parameters of a request to save. The first one is the
// time to live.
func expectSave(list attr.List, names ...string) (time.Duration, error) {
	if err := list.Expect(names...); err != nil {
		return 0, err
	}
	seconds, err := list[0].Int()
	if err == nil && seconds <= 0 {
		err = fmt.Errorf("the value of attribute %s is not positive: %d", names[0], seconds)
	}
	return time.Duration(seconds) * time.Second, err
}

func (c *conversation) findEndpoint(list attr.List) error {
	if err := list.Expect("label"); err != nil {
		c.warnParameter("scache_find_endp_service", err)
		return c.reply(statusBad, "")
	}
	s, found := c.Cache.FindEndpoint(list[0].Value)
	if !found {
		return c.reply(statusFail, "")
	}
	defer unix.Close(s.FD)
	if err := c.reply(statusOK, s.Property); err != nil {
		return err
	}
	return c.sendDescriptor(s.FD)
}

func (c *conversation) findDestination(list attr.List) error {
	if err := list.Expect("label"); err != nil {
		c.warnParameter("scache_find_dest_service", err)
		return c.reply(statusBad, "", "")
	}
	s, found := c.Cache.FindDestination(list[0].Value)
	if !found {
		return c.reply(statusFail, "", "")
	}
	defer unix.Close(s.FD)
	if err := c.reply(statusOK, s.DestinationProperty, s.Property); err != nil {
		return err
	}
	return c.sendDescriptor(s.FD)
}

func (c *conversation) reply(status int32, properties ...string) error {
	c.out.Int("status", status)
	for _, property := range properties {
		c.out.String("property", property)
	}
	return c.out.End()
}

// receiveDescriptor asks for a descriptor, and waits for its byte.
func (c *conversation) receiveDescriptor() (int, error) {
	c.out.String("dummy", "")
	if err := c.out.End(); err != nil {
		return 0, err
	}
	if _, err := c.in.ReadByte(); err != nil {
		return 0, unexpected(err)
	}
	return c.conn.Take()
}

// sendDescriptor sends a descriptor once the client has read the reply before
// it: the client reads ahead, and would lose a descriptor that comes too soon.
func (c *conversation) sendDescriptor(fd int) error {
	list, err := c.in.Decode()
	if err != nil {
		return unexpected(err)
	}
	if !isDummy(list) {
		return fmt.Errorf("%w; connection closed", list.Expect("dummy"))
	}
	c.refuseDescriptor()
	c.ackDue = true
	return c.conn.Send(fd)
}

func isDummy(list attr.List) bool {
	return len(list) == 1 && string(list[0].Name) == "dummy"
}

// unexpected is for errors in the middle of a request.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// refuseDescriptor closes a descriptor that nobody asked for.
func (c *conversation) refuseDescriptor() {
	fd, err := c.conn.Take()
	if err == fdpass.ErrNone {
		return
	}
	if err == nil {
		unix.Close(fd)
	}
	c.warn(errors.New("unexpected file descriptor, closed"))
}

// warnParameter logs what is wrong with a request, and then what the stock
// server says of any such request.
func (c *conversation) warnParameter(service string, err error) {
	c.warn(err)
	c.Log.Warning("%s: bad or missing request parameter", service)
}

// warn logs what is wrong with this client. There is no name to give: its
// socket has none.
func (c *conversation) warn(err error) { c.Log.Warning("scache client: %v", err) }
