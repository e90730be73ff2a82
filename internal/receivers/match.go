// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"bytes"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

// none stands for no rule. It is greater than the index of each rule, so the least one
// of several is the first that matches.
const none = math.MaxInt

// A matcher finds the rule of an address, a host name or a line of a label. It does not
// change, and takes no lock.
type matcher struct {
	starts  []netip.Addr   // of ranges of addresses, in order
	owners  []int          // the rule of each range
	words   map[string]int // lines of labels
	hosts   map[string]int // in lower case; domains begin with a dot
	any     int
	longest int // word, in bytes
}

func newMatcher(rules Rules) *matcher {
	m := &matcher{words: map[string]int{}, hosts: map[string]int{}, any: none}
	var bounds []netip.Addr
	for i, r := range rules {
		if r.Name == Any {
			m.any = i
		}
		for _, n := range r.Networks {
			bounds = append(bounds, n.Addr())
			if next := lastAddress(n).Next(); next.IsValid() {
				bounds = append(bounds, next)
			}
		}
		for _, w := range r.Words {
			addFirst(m.hosts, strings.ToLower(w), i)
			if w[0] != '.' {
				addFirst(m.words, w, i)
				m.longest = max(m.longest, len(w))
			}
		}
	}
	slices.SortFunc(bounds, netip.Addr.Compare)
	for _, b := range slices.Compact(bounds) {
		owner := slices.IndexFunc(rules, func(r Rule) bool {
			return slices.ContainsFunc(r.Networks, func(n Prefix) bool { return n.Contains(b) })
		})
		if owner < 0 {
			owner = none
		}
		m.starts, m.owners = append(m.starts, b), append(m.owners, owner)
	}
	return m
}

func addFirst(m map[string]int, word string, i int) {
	if _, found := m[word]; !found {
		m[word] = i
	}
}

func lastAddress(n Prefix) netip.Addr {
	b := n.Addr().AsSlice()
	for i := n.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// address returns the rule whose networks have an address.
func (m *matcher) address(a netip.Addr) int {
	i, found := slices.BinarySearchFunc(m.starts, a, netip.Addr.Compare)
	if !found {
		i--
	}
	if i < 0 || m.starts[i].BitLen() != a.BitLen() {
		return none
	}
	return m.owners[i]
}

// host returns the rule that has a host name, or a domain above it.
func (m *matcher) host(name string) int {
	if len(m.hosts) == 0 {
		return none
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	best := none
	for i := 0; i >= 0; {
		if rule, found := m.hosts[name[i:]]; found {
			best = min(best, rule)
		}
		dot := strings.IndexByte(name[min(i+1, len(name)):], '.')
		if dot < 0 {
			break
		}
		i += 1 + dot
	}
	return best
}

// labelLine returns the rule that has a line of this label as a member.
func (m *matcher) labelLine(label []byte) int {
	if len(m.words) == 0 {
		return none
	}
	best := none
	for len(label) > 0 {
		var l []byte
		l, label, _ = bytes.Cut(label, newline)
		if len(l) <= m.longest {
			if rule, found := m.words[string(l)]; found {
				best = min(best, rule)
			}
		}
	}
	return best
}

var newline = []byte("\n")

// endpointAddress returns the remote address that a label has as one of its lines, such as
// "192.0.2.1" or "[192.0.2.1]:25". The port is behind it or in the next line, or 0 if there
// is none.
func endpointAddress(label []byte) (netip.AddrPort, bool) {
	for len(label) > 0 {
		end, isCandidate := scanLine(label)
		l := label[:end]
		label = label[min(end+1, len(label)):]
		if !isCandidate {
			continue
		}
		host, port := splitPort(l)
		if port == nil {
			port, _, _ = bytes.Cut(label, newline)
		}
		if a, ok := parseAddress(host); ok {
			return netip.AddrPortFrom(a, parsePort(port)), true
		}
	}
	return netip.AddrPort{}, false
}

// scanLine returns the length of the first line, and reports whether it is worth parsing
// as an address: it has three dots or two colons.
func scanLine(label []byte) (end int, isCandidate bool) {
	dots, colons := 0, 0
	for i, c := range label {
		switch c {
		case '\n':
			return i, dots >= 3 || colons >= 2
		case '.':
			dots++
		case ':':
			colons++
		}
	}
	return len(label), dots >= 3 || colons >= 2
}

// destinationHost returns the host that a label has as a line "[host]" or "[host]:port":
// mail goes to this host, without a look-up of MX records. The port is 0 if there is none.
func destinationHost(label []byte) (host string, port uint16) {
	for len(label) > 0 {
		var l []byte
		l, label, _ = bytes.Cut(label, newline)
		if h, p := splitPort(l); len(l) > 0 && l[0] == '[' && len(h) < len(l) {
			return string(h), parsePort(p)
		}
	}
	return "", 0
}

// destinationPort returns the port that a label has behind a host in brackets, or 0.
func destinationPort(label []byte) uint16 {
	_, port := destinationHost(label)
	return port
}

// splitPort splits "[host]:port". Without brackets, all of it is the host.
func splitPort(l []byte) (host, port []byte) {
	if len(l) == 0 || l[0] != '[' {
		return l, nil
	}
	end := bytes.IndexByte(l, ']')
	if end < 0 {
		return l, nil
	}
	host, port = l[1:end], l[end+1:]
	if len(port) == 0 || port[0] != ':' {
		return host, nil
	}
	return host, port[1:]
}

// parseAddress parses an address without allocating memory.
func parseAddress(b []byte) (netip.Addr, bool) {
	if !looksLikeAddress(b) {
		return netip.Addr{}, false
	}
	if len(b) > 5 && string(b[:5]) == "IPv6:" {
		b = b[5:]
	}
	// The string is not kept beyond the call, except in an error, which is dropped.
	a, err := netip.ParseAddr(unsafe.String(unsafe.SliceData(b), len(b)))
	if a.Is6() {
		a = a.WithZone("").Unmap()
	}
	return a, err == nil
}

// looksLikeAddress reports whether it is worth parsing: errors allocate memory.
func looksLikeAddress(b []byte) bool {
	dots, colons, other := 0, 0, 0
	if len(b) < 2 || len(b) > 64 {
		return false
	}
	for _, c := range b {
		switch {
		case c == '.':
			dots++
		case c == ':':
			colons++
		case c < '0' || c > '9':
			other++
		}
	}
	return colons > 1 || dots == 3 && other == 0
}

func parsePort(b []byte) uint16 {
	if len(b) == 0 || len(b) > 5 {
		return 0
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	if n > math.MaxUint16 {
		return 0
	}
	return uint16(n)
}

// property returns the value of a line "name=value".
func property(text []byte, name string) (string, bool) {
	for len(text) > 0 {
		var l []byte
		l, text, _ = bytes.Cut(text, newline)
		if len(l) > len(name) && l[len(name)] == '=' && string(l[:len(name)]) == name {
			return string(l[len(name)+1:]), true
		}
	}
	return "", false
}

// messagesCarried returns how many messages a connection has carried, by its property.
func messagesCarried(text []byte) int {
	value, _ := property(text, "reuse_count")
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return 1
	}
	return int(n) + 1
}
