// SPDX-License-Identifier: EPL-2.0

package main

import (
	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/master"
	"scache/internal/server"
)

// enlargeTable makes the kernel enlarge the table of descriptors once for all. In a
// process with threads that takes it some ten milliseconds each time, in which a
// process that takes over would keep clients waiting: it is done meanwhile.
func enlargeTable() {
	const enough = 1 << 15 // a quarter of a megabyte
	files := unix.Rlimit{}
	unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, int(min(files.Cur, enough))-1); err == nil {
		unix.Close(fd)
	}
}

// handOver leaves all there is to the process that serves the socket next. Where no
// descriptor is left, it takes those of the loops, which have ended, and then those
// of the clients, who go first.
func handOver(p *master.Process, s *server.Server) {
	p.AcceptWaiting()
	estate := s.Leave()
	clients, sessions := len(estate.Clients), len(estate.Sessions)
	if clients+sessions+len(estate.Bindings) == 0 {
		return
	}
	owner, err := fdpass.PeerOf(p.Listener())
	if err != nil {
		p.Log.Warning("cannot leave anything to the next process: %v", err)
		s.CloseSessions(estate.Sessions)
		return
	}
	rest, err := handover.Leave(handover.Route{
		Path: p.Socket(), Owner: owner, Now: server.BootTime(),
		NextInLine: func() (handover.Client, error) {
			for {
				fd, err := p.NextInLine()
				if err != nil {
					return handover.Client{}, err
				}
				if c, ok := s.Meet(fd); ok {
					clients++
					return c, nil
				} // it was a stranger's
			}
		},
	}, estate)
	if err != nil {
		p.Log.Warning("cannot leave %d of %d sessions and %d of %d clients to the next process: %v",
			len(rest), sessions, clients-len(estate.Clients), clients, err)
	}
	s.CloseSessions(rest)
}
