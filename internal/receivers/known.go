// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"net/netip"
	"sync"
	"time"
)

// What agents have saved is remembered for this time, and up to this number of entries
// of each kind.
const (
	memory   = time.Hour
	capacity = 10000
)

// known is what labels and properties have shown so far: the names of addresses, the
// addresses of lines, and where destinations lead to. It has a lock of its own, as each
// look-up asks it.
type known struct {
	mu           sync.RWMutex
	names        map[netip.Addr]knownAddress // by host_name= and host_addr=
	lines        map[netip.Addr]knownAddress // by labels with a line that is a member
	destinations map[string]*destination
}

type knownAddress struct {
	rule  int
	name  string
	until time.Duration
}

// A destination leads to a receiver.
type destination struct {
	label string

	// Guarded by the lock of known.
	receiver key
	until    time.Duration

	// Guarded by the lock of the Set.
	bindings map[string]time.Duration // endpoints that it leads to in the cache, and until when
	next     map[string]occasion      // endpoints that agents ask for on its behalf
}

// An occasion is when an agent asks for an endpoint.
type occasion int

const (
	askedFirst   occasion = 1 + iota // as the first one of a delivery
	askedNext                        // right after another one, before it connects
	askedUnknown                     // expected once, and not asked: never expect it again
)

// maxPerDestination bounds what is remembered of one destination.
const maxPerDestination = 16

func newKnown() known {
	return known{
		names:        map[netip.Addr]knownAddress{},
		lines:        map[netip.Addr]knownAddress{},
		destinations: map[string]*destination{},
	}
}

// address returns the rule that an address has by its name.
func (k *known) address(a netip.Addr, now time.Duration) int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return valid(k.names, a, now)
}

// line returns the rule to which labels with this address belong by another line.
func (k *known) line(a netip.Addr, now time.Duration) int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return valid(k.lines, a, now)
}

func valid(m map[netip.Addr]knownAddress, a netip.Addr, now time.Duration) int {
	if known, found := m[a]; found && known.until > now {
		return known.rule
	}
	return none
}

// addAddress remembers the rule of an address. An earlier rule goes before a later one.
func (k *known) addAddress(m map[netip.Addr]knownAddress, a netip.Addr, new knownAddress,
	now time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if valid(m, a, now) < new.rule {
		return
	}
	if _, found := m[a]; !found {
		makeRoom(m, func(v knownAddress) bool { return v.until <= now })
	}
	m[a] = new
}

// makeRoom makes room for one more entry: it deletes what has ended, or any entry.
func makeRoom[K comparable, V any](m map[K]V, ended func(V) bool) {
	if len(m) < capacity {
		return
	}
	for k, v := range m {
		if ended(v) {
			delete(m, k)
		}
	}
	for k := range m {
		if len(m) < capacity {
			break
		}
		delete(m, k)
	}
}

// destination returns a destination and the receiver that it leads to, or nil.
func (k *known) destination(label []byte, now time.Duration) (*destination, key) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if d := k.destinations[string(label)]; d != nil && d.until > now {
		return d, d.receiver
	}
	return nil, key{}
}

// addDestination returns the destination with this label, which leads to a receiver, as is
// remembered until then. What is remembered for longer already goes before it.
func (k *known) addDestination(label []byte, to key, until, now time.Duration) *destination {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.destinations[string(label)]
	if d == nil {
		makeRoom(k.destinations, func(d *destination) bool { return d.until <= now })
		d = &destination{label: string(label),
			bindings: map[string]time.Duration{}, next: map[string]occasion{}}
		k.destinations[d.label] = d
	}
	if until >= d.until {
		d.receiver, d.until = to, until
	}
	return d
}

// bind remembers that the cache leads from the destination to an endpoint.
func (d *destination) bind(endpoint []byte, until, now time.Duration) {
	if _, found := d.bindings[string(endpoint)]; !found && len(d.bindings) >= maxPerDestination {
		for label, end := range d.bindings {
			if end <= now {
				delete(d.bindings, label)
			}
		}
		if len(d.bindings) >= maxPerDestination {
			return
		}
	}
	d.bindings[string(endpoint)] = until
}

// ask remembers when an agent has asked for an endpoint.
func (d *destination) ask(endpoint string, q occasion) {
	switch old := d.next[endpoint]; {
	case old == askedUnknown:
	case old == 0 && len(d.next) >= maxPerDestination:
	default:
		d.next[endpoint] = max(old, q)
	}
}
