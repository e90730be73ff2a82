// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// escape writes a label or property on one line, so that unescape returns it: a line
// end as \n, a backslash as \\, and a byte that cannot be shown, or is not UTF-8, as
// \xNN.
func escape(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r):
			for _, c := range []byte(text[:size]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteString(text[:size])
		}
		text = text[size:]
	}
	return b.String()
}

// unescape is the reverse of escape.
func unescape(text string) (string, error) {
	var b strings.Builder
	for {
		plain, rest, found := strings.Cut(text, `\`)
		b.WriteString(plain)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(rest, "n"):
			b.WriteByte('\n')
			text = rest[1:]
		case strings.HasPrefix(rest, `\`):
			b.WriteByte('\\')
			text = rest[1:]
		default:
			code, isHex := strings.CutPrefix(rest[:min(3, len(rest))], "x")
			c, err := strconv.ParseUint(code, 16, 8)
			if !isHex || len(code) != 2 || err != nil {
				return "", fmt.Errorf(`bad label %q: a backslash is followed by n, by another one, or by x and two hexadecimal digits`, text)
			}
			b.WriteByte(byte(c))
			text = rest[3:]
		}
	}
}

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
