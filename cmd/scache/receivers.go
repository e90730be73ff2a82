// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/master"
	"scache/internal/receivers"
	"scache/internal/server"
	"scache/internal/sockdiag"
)

// Clients give up after connection_cache_protocol_timeout. They are answered before.
const (
	answerMargin = time.Second
	minWait      = 500 * time.Millisecond
)

// newReceivers returns the limits of receivers, or nil if there are none.
func newReceivers(params parameters) *receivers.Set {
	return receivers.New(receivers.Config{
		Rules:      params.receivers,
		Wait:       max(params.protocolTimeout-answerMargin, minWait),
		Waiters:    params.receiverWaiters,
		Shared:     true,
		FirstPlace: uint64(server.BootTime()),
	})
}

// socketName returns a name of the listening socket, if there is one.
func socketName(p *master.Process) string {
	var socket unix.Stat_t
	if p.Options.Mode == master.StandAlone || unix.Fstat(p.Listener(), &socket) != nil {
		return ""
	}
	return fmt.Sprintf("socket %d", socket.Ino)
}

// countConnections returns what counts connections for the server, which calls it from one
// goroutine.
func countConnections() func(ports []uint16, add func(netip.AddrPort, uint64)) error {
	var socket *sockdiag.Socket
	return func(ports []uint16, add func(netip.AddrPort, uint64)) (err error) {
		if socket == nil {
			socket, err = sockdiag.Open()
		}
		if err == nil {
			err = socket.Dump(ports, func(c sockdiag.Connection) { add(c.Remote, c.Cookie) })
		}
		if errors.Is(err, sockdiag.ErrUnavailable) {
			return fmt.Errorf("%w: %w", server.ErrCannotCount, err)
		}
		return err
	}
}
