// SPDX-License-Identifier: EPL-2.0

package master

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
)

// A Reason says why Serve has returned.
type Reason string

// The reasons. The first two belong to the ordinary life of a daemon.
const (
	Idle       Reason = "no client for max_idle"
	Reload     Reason = "master has closed the status channel"
	Restart    Reason = "asked to hand over to a new process"
	Terminated Reason = "terminated by a signal"
	Orphaned   Reason = "master is gone"
	Served     Reason = "the client on standard input is gone" // option -S
)

// A Handler serves a client, who is connected by this descriptor, and returns at once. When
// the client is gone, the handler calls gone, and reports whether it was one for whom the
// process stays: max_idle counts from the last of those.
type Handler func(fd int, gone func(counts bool))

// grace is how long a process serves on after master has closed the status channel. At
// "postfix stop", and when the entry of the service is removed, a signal follows.
const grace = 200 * time.Millisecond

// Serve accepts clients and gives each to the handler, until there is a reason to end. At
// Reload and Restart it goes on accepting, until StopAccepting. Otherwise it accepts no more.
// Clients stay as they are.
func (p *Process) Serve(handle Handler) (Reason, error) {
	if p.Options.StandAlone {
		return p.serveStandardInput(handle)
	}
	s := &service{Process: p, handle: handle, reasons: make(chan Reason, 4)}
	p.service = s
	if p.Options.Listen == "" {
		s.since = time.Now()
		s.idle = time.AfterFunc(p.maxIdle, func() { s.end(Idle) })
		go func() {
			defer p.Log.ExitOnPanic()
			p.status.wait()
			s.end(Reload)
		}()
	}
	if p.Options.Listen != "" {
		defer os.Remove(p.Options.Listen)
	}
	signal.Notify(p.signals, syscall.SIGTERM, syscall.SIGINT)
	s.accept()
	for {
		select {
		case <-p.signals:
			s.stop()
			return Terminated, nil
		case reason := <-s.reasons:
			switch reason {
			case Reload:
				if ended := p.EndedWithin(grace); ended != "" {
					s.stop()
					return ended, nil
				}
				return Reload, nil
			case Restart:
				return Restart, nil
			}
			// A client may have come while the time ran out. Those who come now wait for
			// the next process.
			if s.stop(); s.isIdle() {
				return Idle, nil
			}
			s.accept()
		}
	}
}

// EndedWithin waits for this time, and returns early with a reason for which a process ends
// that cannot hand over: Terminated or Orphaned. It is for use after Serve.
func (p *Process) EndedWithin(limit time.Duration) Reason {
	const step = 10 * time.Millisecond
	for waited := time.Duration(0); ; waited += step {
		if !p.masterLives() {
			return Orphaned
		}
		select {
		case <-p.signals:
			return Terminated
		case <-time.After(min(step, limit)):
		}
		if waited >= limit {
			return ""
		}
	}
}

// masterLives reports whether the process that listens at our socket lives: it is the one
// that starts the next process.
func (p *Process) masterLives() bool {
	owner, err := fdpass.PeerOf(p.Listener())
	if err != nil {
		return true
	}
	// A child of a process that is gone has another parent. A process that is dead and not
	// waited for still has its number, so kill(2) is asked only where it is not our parent.
	if p.parent == owner.PID {
		return os.Getppid() == p.parent
	}
	return !errors.Is(unix.Kill(owner.PID, 0), unix.ESRCH)
}

// End makes Serve return, for this reason.
func (p *Process) End(reason Reason) { p.service.end(reason) }

// ClientCame counts a client who was accepted elsewhere like one of our own, and returns what
// to call when it is gone. It is for use while Serve runs and after it.
func (p *Process) ClientCame() (gone func(counts bool)) {
	p.service.begin()
	return p.service.gone
}

// StopAccepting makes clients wait in the accept queue, and Accept ends that.
func (p *Process) StopAccepting() { p.service.stop() }

// Accept accepts clients again.
func (p *Process) Accept() { p.service.accept() }

// HandleQueued gives the handler all clients in the accept queue for whom there are
// descriptors, while no others are accepted.
func (p *Process) HandleQueued() {
	for {
		fd, err := p.AcceptQueued()
		if err != nil {
			return
		}
		p.service.handle(fd, p.ClientCame())
	}
}

// AcceptQueued accepts one client from the accept queue. Where there is none, the error is
// fdpass.ErrAgain.
func (p *Process) AcceptQueued() (fd int, err error) {
	err = fdpass.ErrAgain
	for _, l := range p.listeners {
		raw, _ := l.SyscallConn() // no error, as the listener is open
		raw.Control(func(f uintptr) { fd, err = fdpass.Accept(int(f)) })
		if err != fdpass.ErrAgain {
			return fd, err
		}
	}
	return fdpass.None, err
}

func (p *Process) serveStandardInput(handle Handler) (Reason, error) {
	domain, err := unix.GetsockoptInt(0, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return "", fmt.Errorf("option -S: standard input is not a socket: %w", err)
	}
	if domain != unix.AF_UNIX {
		return "", errors.New("option -S: standard input is not a UNIX-domain socket")
	}
	gone := make(chan struct{})
	handle(0, func(bool) { close(gone) })
	<-gone
	return Served, nil
}

// A service is a process while it serves.
type service struct {
	*Process
	handle  Handler
	reasons chan Reason

	accepting sync.WaitGroup // goroutines that accept
	mu        sync.Mutex
	clients   int
	idle      *time.Timer // nil if the process does not end by itself
	since     time.Time   // when the last client who counts was gone
	warned    time.Time   // about a lack of resources
}

// end makes Serve return. Where there are reasons enough, one more says nothing.
func (s *service) end(reason Reason) {
	select {
	case s.reasons <- reason:
	default:
	}
}

// accept begins to accept clients.
func (s *service) accept() {
	for _, l := range s.listeners {
		l.SetDeadline(time.Time{})
		s.accepting.Go(func() {
			defer s.Log.ExitOnPanic()
			s.acceptFrom(l)
		})
	}
}

func (s *service) acceptFrom(l *os.File) {
	for failures := 0; ; {
		fd, err := acceptClient(l)
		switch {
		case err == nil:
			failures = 0
			s.begin()
			s.handle(fd, s.gone)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			failures++
			s.cannotAccept(err, failures > 1)
		}
	}
}

// acceptClient waits for a client. Its descriptor is not known to the runtime.
func acceptClient(l *os.File) (fd int, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return fdpass.None, err
	}
	waiting := raw.Read(func(f uintptr) bool {
		fd, err = fdpass.Accept(int(f))
		return err != fdpass.ErrAgain
	})
	if waiting != nil {
		return fdpass.None, waiting
	}
	return fd, err
}

// cannotAccept deals with a client that cannot be accepted at the moment. It waits in the
// accept queue. Where descriptors are short, and not for a moment only, the process makes room.
func (s *service) cannotAccept(err error, again bool) {
	short := fdpass.Shortage(err) && again
	s.mu.Lock()
	if now := time.Now(); now.Sub(s.warned) >= time.Minute {
		s.warned = now
		what := "trying again"
		if short {
			what = "making room"
		}
		s.Log.Warning("accept connection: %v; %s (such a warning comes once a minute)", err, what)
	}
	s.mu.Unlock() // what follows takes time, and clients come and go meanwhile
	if short && s.MakeRoom != nil {
		s.MakeRoom()
	}
	time.Sleep(10 * time.Millisecond) // there may be nothing to give up
}

func (s *service) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients++; s.clients == 1 && s.idle != nil {
		s.idle.Stop()
		s.status.worked()
	}
}

func (s *service) gone(counts bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if counts {
		s.since = time.Now()
	}
	if s.clients--; s.clients == 0 && s.idle != nil {
		s.idle.Reset(time.Until(s.since.Add(s.maxIdle)))
	}
}

// stop stops accepting: those who come now wait for the next process.
func (s *service) stop() {
	for _, l := range s.listeners {
		l.SetDeadline(time.Unix(1, 0))
	}
	s.accepting.Wait()
}

func (s *service) isIdle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients == 0
}

// watchdogSteps is how often the watchdog looks within its time.
const watchdogSteps = 10

// Watchdog ends the process if check does not return within limit. It calls
// check from time to time, as long as the process lives; check does a little of
// what the process is for.
//
// What counts is time in which the process runs: one that was stopped for long
// goes on when it is continued.
func (p *Process) Watchdog(limit time.Duration, check func()) {
	p.watch(limit, check, func() {
		p.Log.LogFatal("watchdog timeout: the process was stuck for %v", limit)
		p.Log.Flush(time.Second)
		os.Exit(1)
	})
}

func (p *Process) watch(limit time.Duration, check, bite func()) {
	var steps atomic.Int32 // since check returned last
	go func() {
		defer p.Log.ExitOnPanic()
		for {
			check()
			steps.Store(0)
			time.Sleep(limit / 3)
		}
	}()
	go func() {
		defer p.Log.ExitOnPanic()
		for steps.Add(1) <= watchdogSteps+watchdogSteps/3 {
			time.Sleep(limit / watchdogSteps)
		}
		bite()
	}()
}
