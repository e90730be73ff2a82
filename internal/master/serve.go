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

// A Handler begins to serve the client on this descriptor, and returns at once. When the client
// is gone, gone must be called. agent is false for an operator: max_idle begins when the last
// delivery agent is gone.
type Handler func(fd int, gone func(agent bool))

// grace is how long a process continues to serve after master has closed the status channel. At
// "postfix stop", and when the entry of the service is removed, a signal follows.
const grace = 200 * time.Millisecond

// Serve accepts clients and gives each to the handler, until there is a reason to end. After
// Reload and Restart, clients are still accepted until StopAccepting: the caller hands them over
// to the next process. After other reasons they are not. Serve does not disconnect clients.
func (p *Process) Serve(handle Handler) (Reason, error) {
	if p.Options.Mode == StandAlone {
		return p.serveStandardInput(handle)
	}
	s := &service{Process: p, handle: handle, reasons: make(chan Reason, 4)}
	p.service = s
	if p.Options.Mode == UnderMaster {
		s.since = time.Now()
		s.idle = time.AfterFunc(p.maxIdle, func() { s.end(Idle) })
		go func() {
			defer p.Log.ExitOnPanic()
			p.status.wait()
			s.end(Reload)
		}()
	}
	if p.Options.Mode == Listening {
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
			// A client may have connected at the last moment. Clients that connect now wait
			// for the next process.
			if s.stop(); s.isIdle() {
				return Idle, nil
			}
			s.accept()
		}
	}
}

// EndedWithin waits for this time. It returns early if no next process will be started, with
// the reason: Terminated or Orphaned. It is for use after Serve has begun.
func (p *Process) EndedWithin(pause time.Duration) Reason {
	const step = 10 * time.Millisecond
	for waited := time.Duration(0); ; waited += step {
		if !p.masterLives() {
			return Orphaned
		}
		select {
		case <-p.signals:
			return Terminated
		case <-time.After(min(step, pause)):
		}
		if waited >= pause {
			return ""
		}
	}
}

// masterLives reports whether master(8) lives, which starts the next process. It is the process
// that has called listen(2) on our socket.
func (p *Process) masterLives() bool {
	owner, err := fdpass.PeerOf(p.Listener())
	if err != nil {
		return true
	}
	// If our parent has died, we have another parent. kill(2) would still find a dead process
	// that was not waited for, so it is used only if master is not our parent.
	if p.parent == owner.PID {
		return os.Getppid() == p.parent
	}
	return !errors.Is(unix.Kill(owner.PID, 0), unix.ESRCH)
}

// End makes Serve return this reason.
func (p *Process) End(reason Reason) { p.service.end(reason) }

// ClientCame counts a client that another process has accepted. It returns the function to call
// when the client is gone. It is for use while Serve runs and after it.
func (p *Process) ClientCame() (gone func(agent bool)) {
	p.service.begin()
	return p.service.gone
}

// StopAccepting makes new clients wait in the accept queue, until Accept.
func (p *Process) StopAccepting() { p.service.stop() }

// Accept accepts clients again.
func (p *Process) Accept() { p.service.accept() }

// HandleQueued accepts all clients in the accept queue, as far as there are descriptors, and
// gives them to the handler. It is for use after StopAccepting.
func (p *Process) HandleQueued() {
	for {
		fd, err := p.AcceptQueued()
		if err != nil {
			return
		}
		p.service.handle(fd, p.ClientCame())
	}
}

// AcceptQueued accepts one client from the accept queue. If the queue is empty, the error is
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
	since     time.Time   // when the last delivery agent was gone
}

// end makes Serve return. If the channel is full, Serve has other reasons to return.
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

// acceptClient waits for a client. The poller of the runtime does not know its descriptor.
func acceptClient(l *os.File) (fd int, err error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return fdpass.None, err
	}
	readErr := raw.Read(func(f uintptr) bool {
		fd, err = fdpass.Accept(int(f))
		return err != fdpass.ErrAgain
	})
	if readErr != nil {
		return fdpass.None, readErr
	}
	return fd, err
}

// cannotAccept deals with a client that cannot be accepted at the moment. It waits in the
// accept queue. Where descriptors are short, the process makes room; but if those of the
// machine are, only when that lasts.
func (s *service) cannotAccept(err error, again bool) {
	short := errors.Is(err, unix.EMFILE) || fdpass.Shortage(err) && again
	what := "trying again"
	if short {
		what = "making room"
	}
	s.Log.WarningRarely("accept connection: %v; %s (such a warning comes once a minute)", err, what)
	if short && s.MakeRoom != nil {
		s.MakeRoom()
	}
	time.Sleep(10 * time.Millisecond) // there may be nothing to give up
}

// begin counts a client, and gone one that is gone.
func (s *service) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients++; s.clients == 1 && s.idle != nil {
		s.idle.Stop()
		s.status.worked()
	}
}

func (s *service) gone(agent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if agent {
		s.since = time.Now()
	}
	if s.clients--; s.clients == 0 && s.idle != nil {
		s.idle.Reset(time.Until(s.since.Add(s.maxIdle)))
	}
}

// stop stops accepting: clients that connect now wait in the accept queue.
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

// Watchdog calls check from time to time, and ends the process if check does not
// return within the timeout. check must use what the process needs to serve clients.
//
// The timeout does not include time in which the process is stopped by a signal.
func (p *Process) Watchdog(timeout time.Duration, check func()) {
	p.watch(timeout, check, func() {
		p.Log.LogFatal("watchdog timeout: the process was stuck for %v", timeout)
		p.Log.Flush(time.Second)
		os.Exit(1)
	})
}

// watch is Watchdog with a function to call after the timeout.
func (p *Process) watch(timeout time.Duration, check, bite func()) {
	var steps atomic.Int32 // since check returned last
	go func() {
		defer p.Log.ExitOnPanic()
		for {
			check()
			steps.Store(0)
			time.Sleep(timeout / 3)
		}
	}()
	go func() {
		defer p.Log.ExitOnPanic()
		for steps.Add(1) <= watchdogSteps+watchdogSteps/3 {
			time.Sleep(timeout / watchdogSteps)
		}
		bite()
	}()
}
