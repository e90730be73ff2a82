// SPDX-License-Identifier: EPL-2.0

package main

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of what HTTP clients can make the exporter hold.
const (
	maxConnections = 100
	headerTimeout  = 10 * time.Second // for a request to arrive
	writeTimeout   = time.Minute      // for an answer to be made and read
	idleTimeout    = 5 * time.Minute  // between two requests: Prometheus asks every minute or so
)

// newServer returns an HTTP server with bounds.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		ConnState:         (&connections{limit: maxConnections}).changed,
	}
}

// connections bounds the number of connections. One that is too many closes the connection
// that has been without a request for the longest time. If all others are being answered,
// it is closed itself.
type connections struct {
	limit int

	mu      sync.Mutex
	all     map[net.Conn]uint64 // the change since which it has no request, or busy
	changes uint64
}

// busy stands for a connection with a request.
const busy = ^uint64(0)

// changed is called by the HTTP server.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[net.Conn]uint64{}
	}
	c.changes++
	_, known := c.all[conn]
	switch {
	case state == http.StateNew:
		c.all[conn] = c.changes
		if len(c.all) > c.limit {
			longest := conn
			for other, since := range c.all {
				if since < c.all[longest] {
					longest = other
				}
			}
			delete(c.all, longest)
			go longest.Close() // with TLS, it may wait for the client
		}
	case !known: // it was closed above
	case state == http.StateActive:
		c.all[conn] = busy
	case state == http.StateIdle:
		c.all[conn] = c.changes
	default:
		delete(c.all, conn)
	}
}
