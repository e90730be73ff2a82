// SPDX-License-Identifier: EPL-2.0

// How labels are shown and entered.

package main

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"scache/internal/control"
)

// A label is what smtp(8) or lmtp(8) writes into the label of a destination or endpoint,
// on a line each: see [parseLabel].
type label struct {
	service string
	sender  string // where connections depend on the sender
	nexthop string // of a destination, and of an endpoint with SASL
	host    string // of an endpoint with SASL
	address string // of an endpoint
	port    string // of an endpoint
	tls     int    // the security level: 0 none, 1 may, higher ones require TLS
	sasl    bool   // the connection may have been authenticated
}

// parseLabel parses a label. ok is false for labels of other programs. Depending on the
// version of Postfix and on main.cf, labels of delivery agents are
//
//	service [sender] nexthop                           [level …]   of a destination
//	service                             address port level […]     of an endpoint
//	service [sender] nexthop host       address port level […]     of an endpoint with SASL
func parseLabel(text string) (l label, ok bool) {
	lines := strings.Split(text, "\n")
	last := len(lines) - 1
	if last < 2 || lines[last] != "" || lines[0] == "" {
		return l, false
	}
	l.service, lines = lines[0], lines[1:last]
	if l.parseEndpoint(lines) {
		return l, true
	}
	numbers := len(lines)
	for numbers > 0 && isNumber(lines[numbers-1]) {
		numbers--
	}
	if numbers < len(lines) {
		l.tls = level(lines[numbers])
	}
	switch lines = lines[:numbers]; len(lines) {
	case 1:
		l.nexthop = lines[0]
	case 2:
		l.sender, l.nexthop, l.sasl = lines[0], lines[1], true
	}
	return l, l.nexthop != ""
}

// parseEndpoint looks for consecutive lines with address, port and level.
func (l *label) parseEndpoint(lines []string) bool {
	for i := 0; i+2 < len(lines); i++ {
		_, err := netip.ParseAddr(lines[i])
		if err != nil || !isNumber(lines[i+1]) || !isNumber(lines[i+2]) || !allNumbers(lines[i+3:]) {
			continue
		}
		switch i {
		case 0:
		case 2:
			l.nexthop, l.host = lines[0], lines[1]
		case 3:
			l.sender, l.nexthop, l.host = lines[0], lines[1], lines[2]
		default:
			continue
		}
		l.address, l.port, l.sasl = lines[i], lines[i+1], i > 0
		l.tls = level(lines[i+2])
		return true
	}
	return false
}

// level returns a TLS security level, which has one digit.
func level(text string) int {
	if n, err := strconv.Atoi(text); err == nil && n < 10 {
		return n
	}
	return 0
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}

func allNumbers(texts []string) bool {
	for _, text := range texts {
		if !isNumber(text) {
			return false
		}
	}
	return true
}

// String returns the short form, such as "smtp example.com" or
// "smtp 192.0.2.1:587 tls sasl". Different labels may have the same.
func (l label) String() string {
	text := l.service + " " + l.place()
	switch {
	case l.tls == 1:
		text += " tls=may"
	case l.tls > 1:
		text += " tls"
	}
	if l.sasl {
		text += " sasl"
	}
	return text
}

// place returns the nexthop or address, with a port other than 25.
func (l label) place() string {
	switch {
	case l.address == "":
		return strings.TrimSuffix(strings.TrimSuffix(l.nexthop, ":25"), ":smtp")
	case l.port == "25":
		return l.address
	}
	return net.JoinHostPort(l.address, l.port)
}

// raw returns the unescaped form of a label that was shown.
func raw(shown string) string {
	text, err := control.Unescape(shown)
	if err != nil {
		return shown
	}
	return text
}

// short returns the short form of a label that was shown, or the label itself if it has
// none.
func short(shown string) string {
	if l, ok := parseLabel(raw(shown)); ok {
		return control.Escape(l.String())
	}
	return shown
}

// A naming is how labels are shown: short, or whole.
type naming struct{ whole bool }

func (n naming) of(shown string) string {
	if n.whole {
		return shown
	}
	return short(shown)
}

// isMeant reports whether a text means a label. The text can be the whole label, its short
// form, or a nexthop, host or address in it, with or without brackets and port.
func isMeant(whole, text string) bool {
	if strings.TrimRight(whole, "\n") == strings.TrimRight(text, "\n") {
		return true
	}
	l, ok := parseLabel(whole)
	if !ok || text == "" {
		return false
	}
	if strings.EqualFold(l.String(), text) || strings.EqualFold(l.place(), text) {
		return true
	}
	for _, part := range []string{l.sender, l.nexthop, l.host, l.address} {
		if part != "" && (strings.EqualFold(part, text) ||
			strings.EqualFold(host(part), strings.Trim(text, "[]"))) {
			return true
		}
	}
	return false
}

// placeOf returns the domain or address of a label that was shown, or the label itself if it
// has none.
func placeOf(shown string) string {
	switch l, ok := parseLabel(raw(shown)); {
	case !ok:
		return shown
	case l.address != "":
		return l.address
	default:
		return control.Escape(host(l.nexthop))
	}
}

// host strips brackets and port, if there are any.
func host(text string) string {
	if host, port, err := net.SplitHostPort(text); err == nil && !strings.Contains(port, "/") {
		return host
	}
	return strings.Trim(text, "[]")
}
