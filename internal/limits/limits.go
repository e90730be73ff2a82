// SPDX-License-Identifier: EPL-2.0

// Package limits says how many idle sessions an endpoint may have, and for how long,
// by rules in main.cf: receivers limit connections, each in its own way.
package limits

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"scache/internal/mailconf"
)

// A Limit is what an endpoint may have. Zero is no limit.
type Limit struct {
	Sessions int
	TTL      time.Duration // of each
}

// String writes a limit as in a rule, and nothing for none.
func (l Limit) String() string {
	switch {
	case l == Limit{}:
		return ""
	case l.TTL == 0:
		return strconv.Itoa(l.Sessions)
	}
	return fmt.Sprintf("%d/%ds", l.Sessions, l.TTL/time.Second)
}

// Rules say which limit an endpoint has: the first one that matches its label counts.
type Rules []rule

type rule struct {
	line    string       // of the label, or * for any label
	network netip.Prefix // of an address that is a line, if valid
	limit   Limit
}

// Parse reads rules, separated by commas or white space: pattern=sessions or
// pattern=sessions/ttl. A pattern is a line of a label, such as an address, a network
// such as 192.0.2.0/24, or *. Endpoints without a rule of their own may have this number of
// sessions, unless it is 0.
func Parse(text string, sessions int) (Rules, error) {
	var all Rules
	for _, field := range mailconf.Fields(text) {
		r, err := parseRule(field)
		if err != nil {
			return nil, fmt.Errorf("bad rule %q: %w", field, err)
		}
		all = append(all, r)
	}
	if sessions > 0 {
		all = append(all, rule{line: "*", limit: Limit{Sessions: sessions}})
	}
	return all, nil
}

func parseRule(text string) (r rule, err error) {
	i := strings.LastIndexByte(text, '=')
	if i < 1 {
		return r, fmt.Errorf("want pattern=sessions or pattern=sessions/ttl")
	}
	pattern, value := text[:i], text[i+1:]
	number, ttl, hasTTL := strings.Cut(value, "/")
	sessions, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return r, fmt.Errorf("want a number of sessions, not %q", number)
	}
	r.limit.Sessions = int(sessions)
	if hasTTL {
		parsed, ok := mailconf.ParseTime(ttl)
		if !ok || parsed <= 0 {
			return r, fmt.Errorf("want a time such as 5s, not %q", ttl)
		}
		r.limit.TTL = parsed
	}
	r.line = pattern
	isPath := pattern[0] == '/' || strings.HasPrefix(pattern, "unix:") // of a socket
	if strings.Contains(pattern, "/") && !isPath {
		if r.network, err = netip.ParsePrefix(pattern); err != nil {
			return r, fmt.Errorf("want a network such as 192.0.2.0/24: %w", err)
		}
		r.network = r.network.Masked()
	}
	return r, nil
}

// For returns the limit of an endpoint.
func (all Rules) For(label string) Limit {
	if len(all) == 0 {
		return Limit{}
	}
	lines := strings.Split(label, "\n")
	for _, r := range all {
		if r.matches(lines) {
			return r.limit
		}
	}
	return Limit{}
}

func (r rule) matches(lines []string) bool {
	if r.line == "*" {
		return true
	}
	for _, line := range lines {
		if line == r.line {
			return true
		}
		if r.network.IsValid() {
			if address, err := netip.ParseAddr(line); err == nil && r.network.Contains(address.Unmap()) {
				return true
			}
		}
	}
	return false
}
