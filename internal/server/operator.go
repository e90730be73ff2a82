// SPDX-License-Identifier: EPL-2.0

package server

import (
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/control"
	"scache/internal/histogram"
)

// operatorRequests are those of an operator.
var operatorRequests = map[string]func(*conversation, attr.List){
	control.RequestStatus:  (*conversation).tellStatus,
	control.RequestList:    (*conversation).tellAll,
	control.RequestFlush:   (*conversation).flushCache,
	control.RequestRestart: (*conversation).restart,
	control.RequestHits:    (*conversation).tellHits,
}

// tellStatus answers an operator who asks how the server is doing.
func (c *conversation) tellStatus(list attr.List) {
	if err := list.Expect(); err != nil {
		c.refuse(control.RequestStatus, err)
		return
	}
	out := c.worker.encode
	out.Int("status", statusOK)
	control.Encode(out, c.worker.status())
	out.End()
}

func (s *Server) status() control.Status {
	size, totals := s.Cache.Size(), s.Cache.Totals()
	s.mu.Lock()
	defer s.mu.Unlock()
	return control.Status{
		Version: s.Version,
		PID:     int64(os.Getpid()),
		Uptime:  control.Seconds(time.Since(s.Started)),

		Counted: control.Seconds(s.counted()),

		Clients:     s.clients.Load(),
		Connections: int64(s.connections),
		Refused:     int64(s.refused),
		Lost:        int64(s.lost),
		LostLines:   int64(s.lostLines + s.Log.Lost()),

		Sessions:         int64(size.Sessions),
		Endpoints:        int64(size.Endpoints),
		Destinations:     int64(size.Destinations),
		PeakSessions:     int64(max(size.Sessions, totals.Peak.Sessions)),
		PeakEndpoints:    int64(max(size.Endpoints, totals.Peak.Endpoints)),
		PeakDestinations: int64(max(size.Destinations, totals.Peak.Destinations)),

		DestinationHits:   int64(totals.Destination.Hits),
		DestinationMisses: int64(totals.Destination.Misses),
		EndpointHits:      int64(totals.Endpoint.Hits),
		EndpointMisses:    int64(totals.Endpoint.Misses),

		Saved:     int64(totals.Saved),
		TakenOver: int64(totals.TakenOver),
		Expired:   int64(totals.Ended[cache.Expired]),
		Dead:      int64(totals.Ended[cache.Dead]),
		Evicted:   int64(totals.Ended[cache.Evicted]),
		Flushed:   int64(totals.Ended[cache.Flushed]),

		EvictedBindings: int64(totals.EvictedBindings),

		Waited: totals.Waited,
		Took:   s.took(),

		SessionLimit:  int64(s.Cache.Limit()),
		TTLLimit:      control.Seconds(s.Cache.TTLLimit),
		ClientTimeout: control.Seconds(s.Timeout),
		LivenessCheck: s.LivenessCheck,
		Goodbye:       s.Goodbye != "",
		Announces:     s.Announce,
	}
}

// took returns how long requests took, in all loops.
func (s *Server) took() histogram.Values {
	var all histogram.Histogram
	for _, w := range s.workers {
		all.Add(w.took.Values())
	}
	return all.Values()
}

// remoteAddress returns the address of the remote end of a cached connection, if
// it is one of the Internet.
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

// flushCache drops what an operator does not want in the cache.
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
		sessions, bindings = c.worker.Cache.Clear()
	} else {
		sessions, bindings = c.worker.Cache.Flush(labels)
	}
	c.worker.Log.Info("flush: sessions=%d bindings=%d", sessions, bindings)
	out := c.worker.encode
	out.Int("status", statusOK)
	control.Encode(out, control.Flushed{Sessions: int64(sessions), Bindings: int64(bindings)})
	out.End()
}

// restart makes this process leave everything to a new one, this client included.
func (c *conversation) restart(list attr.List) {
	if err := list.Expect(); err != nil || c.worker.Restart == nil {
		c.refuse(control.RequestRestart, err)
		return
	}
	c.worker.Log.Info("restart: asked for by an operator")
	c.reply(statusOK)
	c.worker.Restart()
}

// refuse answers a request of an operator that is malformed, or cannot be served.
func (c *conversation) refuse(request string, err error) {
	if err != nil {
		c.warnParameter(request, err)
	}
	c.reply(statusBad)
}
