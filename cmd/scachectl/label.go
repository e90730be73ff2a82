// SPDX-License-Identifier: EPL-2.0

package main

import (
	"net"
	"strings"
)

// isMeant tells whether a text means a label: it is the whole of it, or the domain or
// address in it, which a delivery agent writes on the second line, behind the name of
// its service: with brackets and port, or without.
func isMeant(label, text string) bool {
	if strings.TrimRight(label, "\n") == strings.TrimRight(text, "\n") {
		return true
	}
	lines := strings.Split(label, "\n")
	return text != "" && len(lines) > 2 && (strings.EqualFold(lines[1], text) || strings.EqualFold(host(lines[1]), strings.Trim(text, "[]")))
}

// place returns what a label is called by, for short.
func place(label string) string {
	if lines := strings.Split(label, "\n"); len(lines) > 2 && lines[1] != "" {
		return host(lines[1])
	}
	return label
}

// host strips brackets and port, if there are any.
func host(text string) string {
	if host, port, err := net.SplitHostPort(text); err == nil && !strings.Contains(port, "/") {
		return host
	}
	return strings.Trim(text, "[]")
}
