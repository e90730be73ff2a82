// SPDX-License-Identifier: EPL-2.0

package server

import (
	"bufio"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/operator"
)

// tellStatus answers an operator who asks how the server is doing.
func (c *conversation) tellStatus(list attr.List) error {
	if err := list.Expect(); err != nil {
		return c.refuse(operator.RequestStatus, err)
	}
	c.out.Int("status", statusOK)
	operator.Encode(c.out, c.status())
	return c.out.End()
}

func (s *Server) status() operator.Status {
	size, totals := s.Cache.Size(), s.Cache.Totals()
	s.mu.Lock()
	defer s.mu.Unlock()
	return operator.Status{
		Version: s.Version,
		PID:     int64(os.Getpid()),
		Uptime:  operator.Seconds(time.Since(s.Started)),

		Clients:     int64(len(s.clients)),
		Connections: s.connections,
		Refused:     s.refused,

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

		SessionLimit:  int64(s.Cache.Limit()),
		TTLLimit:      operator.Seconds(s.Cache.TTLLimit),
		ClientTimeout: operator.Seconds(s.Timeout),
		LivenessCheck: s.LivenessCheck,
		Goodbye:       s.Goodbye != "",
		Announces:     s.Announce,
	}
}

// tellAll answers an operator who asks for all that is in the cache.
func (c *conversation) tellAll(list attr.List) error {
	if err := list.Expect(); err != nil {
		return c.refuse(operator.RequestList, err)
	}
	bindings, sessions := c.Cache.List(remoteAddress)
	w := bufio.NewWriter(c.conn)
	out := attr.NewEncoder(w)
	out.SetMaxSize(maxEntry)
	out.Int("status", statusOK)
	if err := out.End(); err != nil {
		return err
	}
	for _, b := range bindings {
		operator.EncodeEntry(out, operator.Binding{Destination: b.Destination, Endpoint: b.Endpoint, Property: b.Property, Age: operator.Seconds(b.Age), Left: operator.Seconds(b.Left)})
		if err := out.End(); err != nil {
			return err
		}
	}
	for _, s := range sessions {
		operator.EncodeEntry(out, operator.Session{Endpoint: s.Endpoint, Property: s.Property, Remote: s.Description, Age: operator.Seconds(s.Age), Left: operator.Seconds(s.Left)})
		if err := out.End(); err != nil {
			return err
		}
	}
	operator.EncodeEntry(out, operator.End{})
	if err := out.End(); err != nil {
		return err
	}
	return w.Flush()
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

// flush drops what an operator does not want in the cache.
func (c *conversation) flush(list attr.List) error {
	var sessions, bindings int
	switch {
	case len(list) == 0:
		sessions, bindings = c.Cache.Clear()
	case list.Expect("label") == nil:
		sessions, bindings = c.Cache.Flush(string(list[0].Value))
	default:
		return c.refuse(operator.RequestFlush, list.Expect("label"))
	}
	c.Log.Info("flush: sessions=%d bindings=%d", sessions, bindings)
	c.out.Int("status", statusOK)
	operator.Encode(c.out, operator.Flushed{Sessions: int64(sessions), Bindings: int64(bindings)})
	return c.out.End()
}

// refuse answers a malformed request of an operator.
func (c *conversation) refuse(request string, err error) error {
	c.warnParameter(request, err)
	return c.reply(statusBad)
}
