// SPDX-License-Identifier: EPL-2.0

// Package handover moves the state of a server to the next process: clients in the middle of
// their requests, bindings, sessions and counts.
//
// The next process does not exist yet: master(8) starts it when a client connects and the old
// process has exited. So the old process becomes such a client itself. It connects to the
// socket that it serves, sends one request with one descriptor, and exits. All else waits in
// the kernel, in socket pairs, until the new process reads it. The connection to the socket
// is among the descriptors, so that it stays open after the exit: the stock server crashes if
// a client disconnects before the server has announced itself. A server that does not know
// the request answers with an error, and the kernel closes what it was sent.
//
//	old process                            kernel                        new process
//	1 acquires memory file, sockets
//	2 stops accepting, pauses its loops
//	3 queues the descriptors ───────────▶  socket pairs ───────────┐
//	4 connects, writes the description ─▶  memory file, connection │
//	5 sends "take_over", exits ─────────▶  accept queue ───────────┴──▶  [Receive]
//
// Until step 5 has succeeded, the old process owns everything: it can give up at any point and
// serve on. Afterwards it owns nothing. [Sender] is the old process, [Receiver] the new one;
// format.go has the format of the description, which older and newer versions can read.
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
	Bindings  []cache.SavedBinding
	Sessions  []cache.SavedSession
	Hits      []Hits
}

// Hits are the counts of a label, of one level.
type Hits struct {
	Level string
	topk.Entry
	Age time.Duration // since counting began
}

// Counts are the numbers that the next process continues, and the time since when they count.
type Counts struct {
	stats.Values
	Age time.Duration
}

// A Phase is a point in the conversation with a client at which the server waits for it.
type Phase string

// The phases, by their names in the description.
const (
	BetweenRequests Phase = "between_requests" // the next list may have begun
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
	Unread    []byte        // input that was not processed yet
	Unwritten []byte        // output that comes first
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
