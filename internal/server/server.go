// SPDX-License-Identifier: EPL-2.0

// Package server answers the clients of the connection cache: it turns their
// requests into calls of the cache, and passes the descriptors. When the process
// is to be replaced, it hands clients and cache to the server that comes next.
package server

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/fdpass"
	"scache/internal/maillog"
)

// A Server answers clients, each independently of the others.
type Server struct {
	Cache *cache.Cache
	Log   *maillog.Logger

	// Announce makes the server speak first, as clients of Postfix 3.6 and
	// later expect and earlier ones do not understand.
	Announce bool

	// Timeout bounds one wait for a client that is in the middle of a request.
	Timeout time.Duration

	// Adopt has the process serve a client that a predecessor left. Without
	// it, the server takes nothing over.
	Adopt func(*net.UnixConn, func(*net.UnixConn))

	// SessionLimit tells how many sessions may be cached with this many
	// clients connected. Without it there is no limit.
	SessionLimit func(clients int) int

	// What an operator is told beside what the server knows itself.
	Version       string
	Started       time.Time
	LivenessCheck bool
	Goodbye       string

	mu          sync.Mutex
	clients     map[*conversation]bool
	leaving     []*conversation           // idle clients, for the successor
	connections int64                     // of clients, so far
	refused     int64                     // clients, so far
	handOver    atomic.Pointer[time.Time] // when clients stop being waited for
}

// Serve converses with a client until it is gone, cannot be understood, or is
// handed over.
func (s *Server) Serve(conn *net.UnixConn) {
	c := newConversation(s, fdpass.New(conn))
	if err := checkPeer(c.conn); err != nil {
		c.conn.Close()
		s.countRefused()
		s.Log.Warning("%v", err)
		return
	}
	c.toAnnounce = s.Announce
	s.converse(c)
}

// converse runs a conversation to its end.
func (s *Server) converse(c *conversation) {
	s.register(c)
	err := c.run()
	s.unregister(c, err == errHandOver)
	if err == errHandOver {
		return
	}
	c.conn.Close()
	if err := explain(err); err != nil {
		c.warn(err)
	}
}

func (s *Server) register(c *conversation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients == nil {
		s.clients = map[*conversation]bool{}
	}
	s.clients[c] = true
	s.connections++
	s.limitSessions()
}

func (s *Server) countRefused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
}

func (s *Server) unregister(c *conversation, leaving bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	if leaving {
		s.leaving = append(s.leaving, c)
	}
	s.limitSessions()
}

// limitSessions leaves room for the descriptors of clients.
func (s *Server) limitSessions() {
	if s.SessionLimit != nil {
		s.Cache.SetLimit(s.SessionLimit(len(s.clients)))
	}
}

// checkPeer tells whether a client may connect: as root, or as the user that
// this process runs as.
func checkPeer(conn *fdpass.Conn) error {
	fd, err := conn.FD()
	if err != nil {
		return err
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("refused a client with uid %d, pid %d: only root and uid %d may connect", peer.Uid, peer.Pid, os.Geteuid())
	}
	return nil
}
