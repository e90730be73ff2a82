// SPDX-License-Identifier: EPL-2.0

package control

// RequestReceivers asks for the receivers that have limits.
const RequestReceivers = "receivers"

// A Receiver is an entry of connection_cache_receivers, and what has happened to it. For the
// entry of each other address, the numbers are sums.
type Receiver struct {
	Name     string `json:"name"`
	Limits   string `json:"limits"`    // as in main.cf
	Estimate bool   `json:"estimate"`  // the kernel does not count connections
	Number   int64  `json:"receivers"` // with any connection or client; it can exceed 1 for *

	Open         int64 `json:"open"`           // connections of this machine
	Idle         int64 `json:"idle"`           // sessions in the cache, which are open, too
	Limit        int64 `json:"limit"`          // of open connections, or 0
	Waiting      int64 `json:"waiting"`        // clients
	NewPerMinute int64 `json:"new_per_minute"` // connections

	New       int64  `json:"new"`       // clients that were told to connect
	Given     int64  `json:"given"`     // sessions given to clients that waited
	Closed    int64  `json:"closed"`    // idle sessions that made room
	Overflows int64  `json:"overflows"` // clients whose time was over
	Refused   int64  `json:"refused"`   // clients that were told to connect, and did not
	Waited    string `json:"waited"`    // a histogram of how long clients have waited
}
