// SPDX-License-Identifier: EPL-2.0

// Package server answers the clients of the connection cache: it turns their
// requests into calls of the cache, and passes the descriptors.
package server

import (
	"net"
	"time"

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
}

// Serve converses with a client until it is gone, or cannot be understood.
func (s *Server) Serve(conn *net.UnixConn) {
	c := newConversation(s, fdpass.New(conn))
	defer c.conn.Close()
	if err := explain(c.run()); err != nil {
		c.warn(err)
	}
}
