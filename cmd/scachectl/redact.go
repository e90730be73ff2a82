// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
)

// A redactor replaces names and addresses in text. It always replaces the same name by the same
// word.
type redactor struct {
	words map[string]string
	count map[string]int
	host  string // of this machine
}

func newRedactor() *redactor {
	host, _ := os.Hostname()
	return &redactor{words: map[string]string{}, count: map[string]int{}, host: host}
}

// candidates are mail addresses, addresses of both families, and names with a dot. A word
// after a slash or before one is part of a path.
var candidates = regexp.MustCompile(
	`[^\s@<>"'=,;:{}\[\]()\\]+@[A-Za-z0-9.\-_]+` + // a mail address
		`|[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f.:]*(?:/\d+)?` + // maybe IPv6
		`|[\p{L}\p{N}_\-/]+(?:\.[\p{L}\p{N}_\-/]+)+`) // maybe IPv4, or a name

// keptSuffixes are the suffixes of names that are files, not hosts.
var keptSuffixes = []string{".cf", ".pid", ".log", ".txt", ".so", ".service", ".saved"}

// labelled matches service and name in a table of labels.
var labelled = regexp.MustCompile(`(?m)^((?:smtp|lmtp|relay)[\w\-]* )(\S+)`)

// redact replaces what it finds.
func (r *redactor) redact(text string) string {
	text = labelled.ReplaceAllStringFunc(text, func(found string) string {
		service, name, _ := strings.Cut(found, " ")
		if candidates.MatchString(name) || strings.HasPrefix(name, "unix:") || service == "" {
			return service + " " + name // candidates replaces the rest
		}
		return service + " " + r.word("name", name)
	})
	text = candidates.ReplaceAllStringFunc(text, r.replace)
	if len(r.host) > 2 && !strings.Contains(r.host, ".") && r.host != "localhost" {
		text = regexp.MustCompile(`\b`+regexp.QuoteMeta(r.host)+`\b`).ReplaceAllString(text,
			r.word("host", r.host))
	}
	return text
}

func (r *redactor) replace(found string) string {
	text := strings.TrimRight(found, ".:")
	rest := found[len(text):]
	switch address, err := netip.ParseAddr(text); {
	case strings.Contains(text, "@"):
		return r.word("mail", text) + rest
	case err == nil && address.IsLoopback(), err == nil && address.IsUnspecified():
		return found
	case err == nil:
		return r.word("address", address.String()) + rest
	case isNetwork(text):
		return r.word("network", text) + rest
	case strings.Contains(text, ":"), strings.HasPrefix(text, "/"):
		return found // a time, or a path
	case strings.Contains(text, "/"):
		parts := strings.Split(text, "/")
		for i, part := range parts {
			if strings.Contains(part, ".") {
				parts[i] = r.replace(part)
			}
		}
		return strings.Join(parts, "/") + rest
	case isVersion(text), slices.ContainsFunc(keptSuffixes,
		func(s string) bool { return strings.HasSuffix(text, s) }):
		return found
	}
	return r.word("name", strings.ToLower(text)) + rest
}

func isNetwork(text string) bool {
	_, err := netip.ParsePrefix(text)
	return err == nil
}

// isVersion reports whether a text is a number with dots, such as 3.7.11 or 0.0, or the
// release of a kernel or of Go.
func isVersion(text string) bool {
	return regexp.MustCompile(`^(go|v)?\d+\.\d+([.\-][\w\-]+)*$`).MatchString(text) ||
		regexp.MustCompile(`^\d+(\.\d+)?(s|ms|µs|/s|%)$`).MatchString(text)
}

// word returns the word for a text.
func (r *redactor) word(kind, text string) string {
	if r.words[text] == "" {
		r.count[kind]++
		r.words[text] = fmt.Sprintf("%s-%d", kind, r.count[kind])
	}
	return r.words[text]
}
