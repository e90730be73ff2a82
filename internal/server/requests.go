// SPDX-License-Identifier: EPL-2.0

package server

import (
	"errors"
	"fmt"
	"io"
	"time"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/control"
	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/topk"
)

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
	if c.server().Log.Verbose() {
		c.server().Log.Debug("request %s", request)
	}
	switch string(request) {
	case control.RequestSaveEndpoint:
		c.saveEndpoint(list)
		return nil
	case handover.Request:
		if c.takeOver(list) {
			return io.EOF // without a reply
		}
		return nil
	}
	c.refuseDescriptor() // no other request comes with one
	c.worker.answered++
	switch string(request) {
	case control.RequestFindEndpoint:
		c.findEndpoint(list)
	case control.RequestSaveDestination:
		c.saveDestination(list)
	case control.RequestFindDestination:
		c.findDestination(list)
	default:
		if answer, known := operatorRequests[string(request)]; known {
			if c.coming != nil { // operators are told of all sessions, and of what was counted
				c.await()
				return nil
			}
			c.uncount(false) // operators are not clients
			answer(c, list)
			return nil
		}
		c.server().Log.Warning("unrecognized request: \"%.100s\", ignored", request)
		c.reply(control.Bad)
	}
	return nil
}

// saveEndpoint asks for the descriptor, if the parameters of the request are right.
func (c *conversation) saveEndpoint(list attr.List) {
	if _, err := expectSave(list, "ttl", "label", "property"); err != nil {
		c.refuseDescriptor()
		c.warnParameter("scache_save_endp_service", err)
		c.reply(control.Bad)
		return
	}
	c.phase = handover.DescriptorDue
	c.worker.encode.String("dummy", "")
	c.worker.encode.End()
}

// save saves the session when the byte that comes with its descriptor has arrived.
func (c *conversation) save(list attr.List) {
	c.worker.answered++
	fd, err := c.socket.Take()
	if err != nil {
		c.server().Log.Warning("scache_save_endp_service: unable to receive file descriptor: %v", err)
		c.reply(control.NotFound)
		return
	}
	ttl, err := expectSave(list, "ttl", "label", "property")
	if err != nil { // in a request that the previous process has received
		c.server().copies.closeFD(fd)
		c.reply(control.Bad)
		return
	}
	c.saveSession(ttl, list[1].Value, list[2].Value, fd)
	c.server().Labels.endpoints.Count(list[1].Value, topk.Save)
	c.reply(control.OK)
}

func (c *conversation) saveDestination(list attr.List) {
	ttl, err := expectSave(list, "ttl", "label", "property", "label")
	if err != nil {
		c.warnParameter("scache_save_dest_service", err)
		c.reply(control.Bad)
		return
	}
	c.server().Cache.SaveBinding(ttl, list[1].Value, list[2].Value, list[3].Value)
	c.savedBinding(ttl, list[1].Value, list[2].Value, list[3].Value)
	c.server().Labels.destinations.Count(list[1].Value, topk.Save)
	c.reply(control.OK)
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

func (c *conversation) findEndpoint(list attr.List) {
	if err := list.Expect("label"); err != nil {
		c.warnParameter("scache_find_endp_service", err)
		c.reply(control.Bad, "")
		return
	}
	c.find(question{label: list[0].Value})
}

func (c *conversation) findDestination(list attr.List) {
	if err := list.Expect("label"); err != nil {
		c.warnParameter("scache_find_dest_service", err)
		c.reply(control.Bad, "", "")
		return
	}
	c.find(question{label: list[0].Value, byDestination: true})
}

// A question is what a client looks for: an endpoint or a destination with a session.
type question struct {
	label         []byte
	byDestination bool
}

// find looks into the cache and answers, unless the client has to wait.
func (c *conversation) find(q question) {
	if c.coming.concern(q, c.server().Cache) {
		c.await()
		return
	}
	s, found, waits := cache.Session{}, false, false
	if c.server().limiter == nil {
		s, found = c.worker.lookUp(q)
	} else {
		s, found, waits = c.findLimited(q)
	}
	if waits {
		c.phase = waitsForConnection
		return
	}
	c.answerFind(q, s, found)
}

func (w *worker) lookUp(q question) (s cache.Session, found bool) {
	if q.byDestination {
		return w.server.Cache.FindDestination(q.label)
	}
	return w.server.Cache.FindEndpoint(q.label)
}

func (c *conversation) answerFind(q question, s cache.Session, found bool) {
	labels := c.server().Labels
	table := labels.endpoints
	if q.byDestination {
		table = labels.destinations
	}
	labels.found(table, q.label, s, found)
	status := control.NotFound
	if found {
		status = control.OK
		c.give(s)
	}
	if q.byDestination {
		c.reply(status, s.DestinationProperty, s.Property)
	} else {
		c.reply(status, s.Property)
	}
}

// give keeps a session that was found until the client asks for its descriptor.
func (c *conversation) give(s cache.Session) {
	c.session, c.phase = s.FD, handover.DummyDue
}

// reply encodes a reply. What comes from requests holds no NUL, and fits. Where a property does
// not, the reply says that nothing was found.
func (c *conversation) reply(status control.Code, properties ...string) {
	out := c.worker.encode
	out.Int("status", int32(status))
	for _, property := range properties {
		out.String("property", property)
	}
	err := out.End()
	if err == nil {
		return
	}
	c.warn(fmt.Errorf("the reply cannot be encoded: %w", err))
	if c.phase == handover.DummyDue {
		c.drop()
		c.phase = handover.BetweenRequests
	}
	c.reply(control.NotFound, make([]string, len(properties))...)
}

func isDummy(list attr.List) bool {
	return len(list) == 1 && string(list[0].Name) == "dummy"
}

// refuseDescriptor closes a descriptor that does not belong to any request.
func (c *conversation) refuseDescriptor() {
	fd, err := c.socket.Take()
	if err == fdpass.ErrNone {
		return
	}
	if err == nil {
		c.server().copies.closeFD(fd)
	}
	c.warn(errors.New("unexpected file descriptor, closed"))
}

// warnParameter logs the error in a request, and then the line that the stock server
// logs for any such request.
func (c *conversation) warnParameter(service string, err error) {
	c.warn(err)
	c.server().Log.Warning("%s: bad or missing request parameter", service)
}
