// SPDX-License-Identifier: EPL-2.0

package server

import (
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/control"
)

// operatorRequests are the requests that only operators make.
var operatorRequests = map[string]func(*conversation, attr.List){
	control.RequestStatus:  (*conversation).tellStatus,
	control.RequestList:    (*conversation).tellAll,
	control.RequestFlush:   (*conversation).flushCache,
	control.RequestRestart: (*conversation).restart,
	control.RequestHits:    (*conversation).tellLabelCounts,

	control.RequestReceivers: (*conversation).tellReceivers,
}

// tellStatus answers the request status.
func (c *conversation) tellStatus(list attr.List) {
	if err := list.Expect(); err != nil {
		c.refuse(control.RequestStatus, err)
		return
	}
	out := c.worker.encode
	out.Int("status", int32(control.OK))
	control.Encode(out, c.server().status())
	out.End()
}

// status returns the state of the server.
func (s *Server) status() control.Status {
	size, totals := s.Cache.Size(), s.Cache.Totals()
	limit, memory := s.Cache.Limit(), s.Cache.Memory()
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.values(totals)
	v.Clients = s.clients.Load()
	v.Sessions = int64(size.Sessions)
	v.Endpoints = int64(size.Endpoints)
	v.Destinations = int64(size.Destinations)
	v.PeakSessions = max(v.PeakSessions, v.Sessions)
	v.PeakEndpoints = max(v.PeakEndpoints, v.Endpoints)
	v.PeakDestinations = max(v.PeakDestinations, v.Destinations)
	v.SessionLimit = int64(limit)
	v.Memory, v.MemoryLimit = memory.Used, memory.Limit
	return control.Status{
		Version: s.Version,
		PID:     int64(os.Getpid()),
		Uptime:  control.Seconds(time.Since(s.Started)),
		Counted: control.Seconds(s.counted()),

		Values: v,

		TTLLimit:      control.Seconds(s.Cache.TTLLimit()),
		ClientTimeout: control.Seconds(s.Timeout),
		LivenessCheck: s.LivenessCheck,
		Goodbye:       s.Goodbye != "",
		Announces:     s.announceKnown.Load() && s.Announce(), // without waiting
	}
}

// remoteAddress returns the address of the remote end of a cached connection, or "" if
// that is not an Internet address.
func remoteAddress(fd int) string {
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return ""
	}
	switch peer := peer.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(peer.Addr), uint16(peer.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(peer.Addr).Unmap(), uint16(peer.Port)).String()
	}
	return ""
}

// flushCache answers the request flush: it drops what has one of the labels, or everything
// if there are none.
func (c *conversation) flushCache(list attr.List) {
	var labels []string
	for _, a := range list {
		if string(a.Name) != "label" {
			c.refuse(control.RequestFlush, list.Expect("label"))
			return
		}
		labels = append(labels, string(a.Value))
	}
	var sessions, bindings int
	if len(labels) == 0 {
		sessions, bindings = c.server().Cache.Clear()
	} else {
		sessions, bindings = c.server().Cache.Flush(labels)
	}
	c.server().Log.Info("flush: sessions=%d bindings=%d", sessions, bindings)
	out := c.worker.encode
	out.Int("status", int32(control.OK))
	control.Encode(out, control.Flushed{Sessions: int64(sessions), Bindings: int64(bindings)})
	out.End()
}

// restart answers the request restart: this process hands everything over to a new one,
// including this client.
func (c *conversation) restart(list attr.List) {
	if err := list.Expect(); err != nil || c.server().Restart == nil {
		c.refuse(control.RequestRestart, err)
		return
	}
	c.server().Log.Info("restart: asked for by an operator")
	c.reply(control.OK)
	c.server().Restart()
}

// refuse answers a request of an operator that is malformed or cannot be served.
func (c *conversation) refuse(request string, err error) {
	if err != nil {
		c.warnParameter(request, err)
	}
	c.reply(control.Bad)
}
