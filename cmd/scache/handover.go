// SPDX-License-Identifier: EPL-2.0

package main

import (
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/master"
	"scache/internal/server"
)

// growFDTable makes the kernel grow the table of descriptors to its final size. In a process
// with threads, each growth takes some ten milliseconds, in which clients would wait while a
// state is received. So it is done once, in the background, and after EnterJail: that changes
// the user of all threads, and waits for one that is in a system call.
func growFDTable() {
	const enough = 1 << 15 // descriptors, which take a quarter of a megabyte
	last := int(min(fileLimit(), enough)) - 1
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, last); err == nil {
		unix.Close(fd)
	}
}

// newSender returns the sender for the handover to the next process. It has acquired in advance
// what it needs, if that was possible: later the process may have no descriptors left.
func newSender(p *master.Process, s *server.Server) (*handover.Sender, error) {
	owner, err := fdpass.PeerOf(p.Listener())
	if err != nil {
		return nil, err
	}
	sender := &handover.Sender{
		Path: p.Socket(), Owner: owner, Now: server.BootTime, Pause: time.Sleep,
		AcceptQueued: func() (handover.Client, error) {
			for {
				fd, err := p.AcceptQueued()
				if err != nil {
					return handover.Client{}, err
				}
				if c, ok := s.Greet(fd); ok {
					return c, nil
				}
			}
		},
	}
	if err := sender.Acquire(0); err != nil {
		p.Log.Debug("%v", err) // it is tried again
	}
	return sender, nil
}

// Times of a handover. The process serves clients meanwhile.
const (
	firstPause  = 10 * time.Millisecond
	maxPause    = time.Second
	acquireTime = 5 * time.Second
	attempts    = 3 // to send; the last one sends what can be sent
)

// handOver hands everything over to the next process, and reports whether it did. If there will
// be no next process, or if the handover fails, this process still has all clients and sessions.
func handOver(p *master.Process, s *server.Server, sender *handover.Sender) (done bool) {
	if !acquire(p, s, sender) {
		return false
	}
	pause := firstPause
	for attempt := 1; ; attempt++ {
		p.StopAccepting()
		p.HandleQueued() // a client there may be a process with a state: see readNewClients
		result, err := s.HandOver(sender, attempt == attempts)
		if err == nil {
			if result.Err != nil {
				p.Log.Warning("cannot hand over %d of %d sessions and %d of %d clients: %v",
					len(result.Unsent), result.Sessions+len(result.Unsent),
					result.LostClients, result.Clients+result.LostClients, result.Err)
			}
			return true
		}
		if attempt == attempts || !fdpass.Transient(err) {
			p.Log.Warning("cannot hand over %d sessions and %d clients to the next process: %v",
				s.Cache.Size().Sessions, s.Clients(), err)
			return false
		}
		p.Log.Debug("cannot hand over to the next process; trying again: %v", err)
		p.Accept()
		if ended := p.EndedWithin(pause); ended != "" {
			p.StopAccepting()
			return false
		}
		pause *= 10
	}
}

// acquire acquires what the sender needs, while clients are served. It reports whether there will
// be a next process. What it could not acquire, Send tries to acquire again.
func acquire(p *master.Process, s *server.Server, sender *handover.Sender) (next bool) {
	logged := false
	for pause, waited := firstPause, time.Duration(0); ; pause = min(2*pause, maxPause) {
		err := sender.Acquire(s.Cache.Size().Sessions)
		if err == nil || waited >= acquireTime || !fdpass.Transient(err) {
			return true
		}
		if !logged {
			logged = true
			p.Log.Warning("prepare to hand over to the next process: %v; trying again for %v", err,
				acquireTime)
		}
		if fdpass.Shortage(err) {
			p.MakeRoom()
		}
		if ended := p.EndedWithin(pause); ended != "" {
			p.StopAccepting()
			return false
		}
		waited += pause
	}
}
