// SPDX-License-Identifier: EPL-2.0

// Package handover moves the state of a server to the next process: clients in the middle of
// their requests, bindings, sessions and counts.
//
// The next process does not exist yet: master(8) starts it when a client connects and the old
// process has exited. So the old process becomes such a client itself. It connects to the
// socket that it serves, sends one request with one descriptor, and exits. Everything else
// waits in the kernel, in socket pairs, until the new process reads it.
//
// The connection to the socket is one of the descriptors that are sent, so it stays open after
// the exit. Otherwise the stock server, if that is the next process, would crash: it does so
// when a client disconnects before the server has announced itself. A server that does not
// know the request answers with an error. The kernel then closes the descriptors.
//
//	old process                            kernel                        new process
//	1 acquires memory file, sockets
//	2 stops accepting, pauses its loops
//	3 queues the descriptors ───────────▶  socket pairs ───────────┐
//	4 empties the accept queue ─────────▶  socket pairs            │
//	  connects, writes the description ─▶  memory file, connection │
//	5 sends "take_over", exits ─────────▶  accept queue ───────────┴──▶  [Receiver]
//
// Until step 5 has succeeded, the old process owns everything: it can give up at any point and
// continue to serve. Afterwards it owns nothing. The clients in the accept queue go over like
// the others: the new process must receive the state before it serves them.
//
// The old process uses a [Sender], the new one a [Receiver], which has nothing to do with the
// receivers of package receivers. The format of the description is in format.go; older and newer
// versions can read it.
//
// This package does steps 1 and 3 to 5. In the old process, handOver in cmd/scache decides when
// to try, and Server.HandOver in package server stops the clients. In the new process, the
// request starts Server.receive.
package handover

import (
	"time"

	"scache/internal/cache"
	"scache/internal/receivers"
	"scache/internal/stats"
	"scache/internal/topk"
)

// Request is the name of the request.
const Request = "take_over"

// A State is what a server hands over.
type State struct {
	Counts    Counts
	Receivers receivers.State
	Clients   []Client
	Claims    []Claim
	Bindings  []cache.SavedBinding
	Sessions  []cache.SavedSession
	Labels    []LabelCounts
}

// A Claim is the right of a server to promise connections to a receiver: a socket, whose name
// no other server can have.
type Claim struct {
	Receiver string
	FD       int
}

// LabelCounts are the counts of one label at one level of the cache.
type LabelCounts struct {
	Level string
	topk.Entry
	Age time.Duration // since counting began
}

// Counts are the counters that the next process continues.
type Counts struct {
	stats.Values
	Age time.Duration // since counting began
}

// A Phase is a point in the conversation with a client at which the server waits for it.
type Phase string

// The phases, by their names in the description.
const (
	BetweenRequests Phase = "between_requests" // the next list may have arrived in part
	DescriptorDue   Phase = "descriptor_due"   // for the request at the head of the unread bytes
	DummyDue        Phase = "dummy_due"        // before the session can be sent
	DescriptorGoing Phase = "descriptor_going" // the session is being sent
)

// A Client is the conversation with one client.
type Client struct {
	FD        int // of its connection
	Phase     Phase
	Session   int           // the descriptor of the session that it is being given, or fdpass.None
	AckDue    bool          // the client has yet to acknowledge a descriptor
	Unread    []byte        // input that is not processed yet
	Unwritten []byte        // output that the client has not received yet; it is sent first
	TooLong   bool          // the list that is arriving is too long, and only its end is kept
	Timeout   time.Duration // what remains of the wait for the client, if not zero
	Wait      *Wait         // for a connection to a receiver, or nil
}

// A Wait is what is known of a client as one of a receiver.
type Wait struct {
	receivers.ClientState

	// Pending is set if the request at the head of the unread bytes is one that waits for a
	// connection. A process that knows no receivers answers it at once.
	Pending bool
}
