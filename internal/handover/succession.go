// SPDX-License-Identifier: EPL-2.0

// Package handover is what a process leaves to the next one: clients in the
// middle of whatever they were saying, bindings, sessions, and counts.
//
// A process that is to be replaced leaves all it has to one that does not exist
// yet. It connects to the listening socket that it serves itself, which its
// parent keeps open, sends a message, and ends. The connection makes the parent
// start the next process, which accepts it as it accepts any client, reads the
// message, and goes on.
//
// The message is one request, "take_over", with one descriptor: an end of a
// socket pair in which one batch of descriptors waits. It has the description, a
// file that says what the other descriptors are; our own end of the connection,
// which so outlives this process, as the stock server does not survive a client
// that is gone before it was announced to, but sent something; and then ends of
// further socket pairs, in which the other descriptors wait in batches. To a
// server that does not know the request it is one request that it does not know,
// and the kernel closes what it does not take.
//
// [Leave] is the one end and [Receive] the other. The description is read by
// older and newer versions: see description.go.
package handover

import (
	"time"

	"scache/internal/cache"
	"scache/internal/histogram"
	"scache/internal/topk"
)

// Request is the name of the request.
const Request = "take_over"

// An Estate is what a process leaves.
type Estate struct {
	Counts   Counts
	Clients  []Client
	Bindings []cache.SavedBinding
	Sessions []cache.SavedSession
	Hits     []Hits
}

// Hits are the counts of a label, of one level.
type Hits struct {
	Level string
	topk.Entry
	Age time.Duration // since counting began
}

// Counts are those that an operator sees grow.
type Counts struct {
	cache.Totals
	Connections, Refused int              // of clients
	Lost                 int              // sessions and clients, at earlier takeovers
	LostLines            int              // of the log
	Took                 histogram.Values // requests
	Age                  time.Duration    // since when all of it counts
}

// A State is where the conversation with a client has stopped.
type State string

// The states.
const (
	BetweenRequests State = "between_requests" // the next list may have begun
	DescriptorDue   State = "descriptor_due"   // for the request that is the first of the unread bytes
	DummyDue        State = "dummy_due"        // the session is in hand
	DescriptorGoing State = "descriptor_going" // the session is in hand and asked for
)

// A Client is the conversation with one client.
type Client struct {
	FD        int // of its connection
	State     State
	Session   int           // the descriptor in hand, or -1
	AckDue    bool          // it has yet to acknowledge a descriptor
	Unread    []byte        // what it has said and was not understood yet
	Unwritten []byte        // what it is to hear first
	Left      time.Duration // of the wait for it, if not zero
}
