// SPDX-License-Identifier: EPL-2.0

package master

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// A Reason says why Serve has returned.
type Reason string

// The reasons. The first two belong to the ordinary life of a daemon.
const (
	Idle       Reason = "no client for max_idle"
	Reload     Reason = "master has closed the status channel" // reload, or its death
	Terminated Reason = "terminated by a signal"
	Served     Reason = "the client on standard input is gone" // option -S
)

// Serve accepts clients and handles each in a goroutine of its own, until there
// is a reason to end. Then it accepts no more, and leaves those it has as they
// are: they end with the process.
func (p *Process) Serve(handle func(*net.UnixConn)) (Reason, error) {
	if p.Options.StandAlone {
		return p.serveStandardInput(handle)
	}
	s := &service{Process: p, handle: handle, reasons: make(chan Reason, 3)}
	p.service = s
	if p.Options.Listen == "" {
		s.idle = time.AfterFunc(p.maxIdle, func() { s.reasons <- Idle })
		go func() {
			defer p.Log.ExitOnPanic()
			p.status.wait()
			s.reasons <- Reload
		}()
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	s.accept()
	for {
		select {
		case <-signals:
			s.stop()
			return Terminated, nil
		case reason := <-s.reasons:
			// A client may have come while the time ran out. Those who come
			// now wait for the next process.
			if s.stop(); reason != Idle || s.isIdle() {
				return reason, nil
			}
			s.accept()
		}
	}
}

// Adopt handles a client that was accepted elsewhere, like one of our own. It is
// for use while Serve runs.
func (p *Process) Adopt(conn *net.UnixConn, handle func(*net.UnixConn)) {
	p.service.begin()
	go p.service.serve(conn, handle)
}

// WaitForClients waits until no client is handled any more. It is for use after
// Serve.
func (p *Process) WaitForClients() { p.service.handling.Wait() }

func (p *Process) serveStandardInput(handle func(*net.UnixConn)) (Reason, error) {
	conn, err := net.FileConn(os.Stdin)
	if err != nil {
		return "", fmt.Errorf("option -S: standard input is not a socket: %w", err)
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return "", errors.New("option -S: standard input is not a UNIX-domain socket")
	}
	handle(uc)
	return Served, nil
}

// A service is a process while it serves.
type service struct {
	*Process
	handle  func(*net.UnixConn)
	reasons chan Reason

	accepting sync.WaitGroup // goroutines that accept
	handling  sync.WaitGroup // and those that handle a client
	mu        sync.Mutex
	clients   int
	idle      *time.Timer // nil if the process does not end by itself
	warned    time.Time   // about a lack of resources
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

func (s *service) acceptFrom(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		switch {
		case err == nil:
			s.begin()
			go s.serve(conn, s.handle)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case !errors.Is(err, syscall.ECONNABORTED):
			s.outOfResources(err)
		}
	}
}

// outOfResources deals with a client that cannot be accepted, most likely for
// want of a descriptor. The client waits in line meanwhile.
func (s *service) outOfResources(err error) {
	s.mu.Lock()
	if now := time.Now(); now.Sub(s.warned) >= time.Minute {
		s.warned = now
		s.Log.Warning("accept connection: %v; making room (such a warning comes once a minute)", err)
	}
	s.mu.Unlock() // what follows takes time, and clients come and go meanwhile
	if s.MakeRoom != nil {
		s.MakeRoom()
	}
	time.Sleep(10 * time.Millisecond) // as long as there is nothing else to give up
}

func (s *service) serve(conn *net.UnixConn, handle func(*net.UnixConn)) {
	defer s.Log.ExitOnPanic()
	defer s.end()
	handle(conn)
}

func (s *service) begin() {
	s.handling.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients++; s.clients == 1 && s.idle != nil {
		s.idle.Stop()
		s.status.worked()
	}
}

func (s *service) end() {
	s.handling.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients--; s.clients == 0 && s.idle != nil {
		s.idle.Reset(s.maxIdle)
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

// Watchdog ends the process if check does not return within limit. It calls
// check from time to time, as long as the process lives; check does a little of
// what the process is for.
func (p *Process) Watchdog(limit time.Duration, check func()) {
	bite := time.AfterFunc(limit, func() {
		p.Log.Fatal("watchdog timeout: the process was stuck for %v", limit)
		p.Log.Flush(time.Second)
		os.Exit(1)
	})
	go func() {
		defer p.Log.ExitOnPanic()
		for {
			check()
			bite.Reset(limit)
			time.Sleep(limit / 3)
		}
	}()
}
