// SPDX-License-Identifier: EPL-2.0

package main

import (
	"os"
	"time"

	"scache/internal/master"
	"scache/internal/server"
)

// newServer returns a server with these parameters, and what closes its connections. clock
// returns the time since the start.
func newServer(
	p *master.Process, params parameters, start time.Time, clock func() time.Duration,
	alive func(fd int) bool,
) (*server.Server, *server.Closer) {
	labels := server.NewLabels(clock)
	closer := &server.Closer{Goodbye: params.goodbye, Labels: labels}
	s := &server.Server{
		Cache:        newCache(params, p, clock, closer, alive),
		Labels:       labels,
		Log:          p.Log,
		Timeout:      params.ipcTimeout,
		Owner:        p.Owner(),
		SessionLimit: sessionLimit(fileLimit(), params.sessionLimit),

		Version:       version,
		Started:       start,
		LivenessCheck: params.livenessCheck,
		Goodbye:       params.goodbye,

		Receivers:        newReceivers(params),
		Socket:           socketName(p),
		CountConnections: countConnections(),
		ReceivingState:   collectLess,
		Discard:          closer.Discard,
		Waiting:          closer.Waiting,
	}
	closer.Dropped = s.SessionDropped
	p.MakeRoom = func() {
		s.Cache.Evict(roomStep)
		closer.Wait(closeTimeout)
	}
	s.MakeRoom = p.MakeRoom
	if p.Options.Mode == master.UnderMaster { // or there is no next process
		s.OnPanic = func() { endAfterPanic(p, start) }
	}
	if p.Options.Mode != master.StandAlone {
		s.Connected = p.ClientCame
	}
	return s, closer
}

// endAfterPanic hands over to a new process after a panic has ended a conversation. If this
// process has just started, the state that it has received may be the cause. Then it exits
// without a handover, so that the next process does not receive this state.
func endAfterPanic(p *master.Process, start time.Time) {
	if time.Since(start) < 10*time.Second {
		p.Log.Flush(time.Second)
		os.Exit(2)
	}
	p.End(master.Restart)
}
