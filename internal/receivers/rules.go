// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Rules say which endpoints belong to which receiver, and what limits it has. The first
// rule that matches counts.
type Rules []Rule

// A Rule describes a receiver.
type Rule struct {
	Name     string   // or Any
	Networks []Prefix // and addresses
	Words    []string // host names, domains with a leading dot, lines of labels
	Limits   Limits
}

// A Prefix is a network, or an address.
type Prefix = netip.Prefix

// Any is the name of the rule for each other address by itself.
const Any = "*"

// Limits are those of one receiver. Connections, New and Messages are no limit if zero,
// and Time as well. Idle is none if negative.
type Limits struct {
	Connections int           // of this machine, in use or idle
	New         int           // connections begun within NewTime
	NewTime     time.Duration //
	Messages    int           // that one connection carries
	Idle        int           // sessions in the cache; 0 keeps none
	Time        time.Duration // that a session stays in the cache at most
}

// unlimited is what a rule without limits has.
var unlimited = Limits{Idle: -1}

// Parse reads the value of connection_cache_receivers, expanded: entries in braces, each
// with a name, members and limits, separated by commas or white space.
func Parse(text string) (Rules, error) {
	var all Rules
	for {
		text = strings.TrimLeft(text, separators)
		if text == "" {
			return all, nil
		}
		entry, rest, err := cutEntry(text)
		if err != nil {
			return nil, err
		}
		r, err := parseRule(entry)
		if err == nil {
			err = all.check(r)
		}
		if err != nil {
			return nil, fmt.Errorf("receiver { %s }: %w", shorten(entry), err)
		}
		all, text = append(all, r), rest
	}
}

const separators = ", \t\r\n"

// check reports an error if a rule cannot follow these.
func (all Rules) check(r Rule) error {
	for _, earlier := range all {
		switch earlier.Name {
		case r.Name:
			return fmt.Errorf("the name %q is used twice: want another one", r.Name)
		case Any:
			return fmt.Errorf("it is behind {%s}, which matches each address: "+
				"want {%s} as the last entry", Any, Any)
		}
	}
	return nil
}

// cutEntry returns what is within the first pair of braces, and what is behind it.
func cutEntry(text string) (entry, rest string, err error) {
	if text[0] != '{' {
		word, _, _ := strings.Cut(text, "{")
		return "", "", fmt.Errorf("%q is not in braces: want { name, members, limits }",
			shorten(strings.Trim(word, separators)))
	}
	end := strings.IndexAny(text[1:], "{}")
	if end < 0 || text[1+end] == '{' {
		return "", "", fmt.Errorf("%q: want a closing brace before the next opening one",
			shorten(text))
	}
	return text[1 : 1+end], text[2+end:], nil
}

// shorten makes what an error quotes fit on a line.
func shorten(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > 80 {
		return strings.ToValidUTF8(text[:80], "") + "…"
	}
	return text
}

func parseRule(entry string) (Rule, error) {
	words := strings.FieldsFunc(entry, func(r rune) bool {
		return strings.ContainsRune(separators, r)
	})
	if len(words) == 0 {
		return Rule{}, fmt.Errorf("it is empty: want a name, members and limits")
	}
	r := Rule{Name: words[0], Limits: unlimited}
	if !isName(r.Name) {
		return Rule{}, fmt.Errorf("%q: want first a name, of letters, digits and any of . _ -, "+
			"or %s for each other address", r.Name, Any)
	}
	set := map[string]bool{}
	for _, word := range words[1:] {
		name, value, isLimit := strings.Cut(word, "=")
		var err error
		switch {
		case !isLimit && r.Name == Any:
			err = fmt.Errorf("%s stands for each other address: want limits only", Any)
		case !isLimit:
			err = r.addMember(word)
		case set[name]:
			err = fmt.Errorf("this limit is given twice")
		default:
			set[name] = true
			err = r.Limits.set(name, value)
		}
		if err != nil {
			return Rule{}, fmt.Errorf("%q: %w", word, err)
		}
	}
	if len(r.Networks)+len(r.Words) == 0 && r.Name != Any {
		return Rule{}, fmt.Errorf("it has no members: want networks, addresses, host names, " +
			"domains with a leading dot, or lines of a label")
	}
	return r, nil
}

func isName(s string) bool {
	if s == Any {
		return true
	}
	for _, c := range []byte(s) {
		if !isAlphanumeric(c) && !strings.ContainsRune("._-", rune(c)) {
			return false
		}
	}
	return len(s) <= 64 && isAlphanumeric(s[0])
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// addMember adds a network, an address, or a word that is compared with host names and
// with lines of labels.
func (r *Rule) addMember(word string) error {
	switch {
	case word[0] == '/' || strings.HasPrefix(word, "unix:"): // the path of a socket
		if strings.Contains(word, "$") {
			return fmt.Errorf("want a path without a dollar sign")
		}
		r.Words = append(r.Words, word)
		return nil
	case strings.Contains(word, "/"):
		network, err := parseNetwork(word)
		r.Networks = append(r.Networks, network)
		return err
	case strings.ContainsAny(word, ":[]") || strings.Trim(word, "0123456789.") == "":
		address, err := netip.ParseAddr(unbracket(word))
		if err != nil || address.Zone() != "" {
			return fmt.Errorf("want an address such as 192.0.2.7 or [2001:db8::7], without a port")
		}
		address = address.Unmap()
		r.Networks = append(r.Networks, netip.PrefixFrom(address, address.BitLen()))
		return nil
	}
	for _, c := range []byte(word) {
		if !isAlphanumeric(c) && !strings.ContainsRune("._-", rune(c)) {
			return fmt.Errorf("want a network, an address, a host name in ASCII, " +
				"a domain with a leading dot, or a line of a label")
		}
	}
	if word == "." || strings.Contains(word, "..") {
		return fmt.Errorf("want a domain such as .example.com")
	}
	r.Words = append(r.Words, word)
	return nil
}

func unbracket(word string) string {
	if inner, ok := strings.CutPrefix(word, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			return inner
		}
	}
	return word
}

func parseNetwork(word string) (Prefix, error) {
	address, bits, _ := strings.Cut(word, "/")
	network, err := netip.ParsePrefix(unbracket(address) + "/" + bits)
	if err != nil {
		return Prefix{}, fmt.Errorf("want a network such as 192.0.2.0/24 or 2001:db8::/32")
	}
	if network.Addr().Is4In6() {
		return Prefix{}, fmt.Errorf("want an IPv4 network, without ::ffff: before it")
	}
	if network.Masked() != network {
		return Prefix{}, fmt.Errorf("the address has bits outside of the network: "+
			"want %v", network.Masked())
	}
	return network, nil
}

func (l *Limits) set(name, value string) (err error) {
	switch name {
	case "connections":
		l.Connections, err = parseNumber(value, 1, "connections=20")
	case "messages":
		l.Messages, err = parseNumber(value, 1, "messages=50")
	case "idle":
		l.Idle, err = parseNumber(value, 0, "idle=5")
	case "time":
		l.Time, err = parseTime(value, "time=5s")
	case "new":
		number, interval, found := strings.Cut(value, "/")
		if !found {
			return fmt.Errorf("want a number and a time, such as new=60/1m")
		}
		if l.New, err = parseNumber(number, 1, "new=60/1m"); err == nil {
			l.NewTime, err = parseTime(interval, "new=60/1m")
		}
	default:
		err = fmt.Errorf("unknown limit %q: want one of connections, new, messages, idle, time", name)
	}
	return err
}

func parseNumber(text string, least int, example string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || int(n) < least {
		return 0, fmt.Errorf("want a number from %d to %d, such as %s", least, math.MaxInt32, example)
	}
	return int(n), nil
}

// units are those of times in main.cf, the longest first.
var units = []struct {
	letter  byte
	seconds int64
}{{'w', 7 * 24 * 60 * 60}, {'d', 24 * 60 * 60}, {'h', 60 * 60}, {'m', 60}, {'s', 1}}

// parseTime reads a time as main.cf has it: digits and a unit, or seconds.
func parseTime(text, example string) (time.Duration, error) {
	seconds := int64(1)
	for _, u := range units {
		if digits, found := strings.CutSuffix(text, string(u.letter)); found {
			text, seconds = digits, u.seconds
			break
		}
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 || int64(n)*seconds > math.MaxInt32 {
		return 0, fmt.Errorf("want a time of at least a second, with one of s m h d w, such as %s",
			example)
	}
	return time.Duration(int64(n)*seconds) * time.Second, nil
}

func formatTime(d time.Duration) string {
	n := int64(d / time.Second)
	for _, u := range units {
		if n%u.seconds == 0 {
			return strconv.FormatInt(n/u.seconds, 10) + string(u.letter)
		}
	}
	return ""
}

// String writes rules as main.cf has them, on one line. Parse reads it.
func (all Rules) String() string {
	entries := make([]string, len(all))
	for i, r := range all {
		entries[i] = r.String()
	}
	return strings.Join(entries, " ")
}

// String writes the rule as an entry in braces.
func (r Rule) String() string {
	words := []string{r.Name}
	for _, n := range r.Networks {
		if n.IsSingleIP() {
			words = append(words, n.Addr().String())
		} else {
			words = append(words, n.String())
		}
	}
	words = append(words, r.Words...)
	if limits := r.Limits.String(); limits != "" {
		words = append(words, limits)
	}
	return "{ " + strings.Join(words, ", ") + " }"
}

// String writes limits as in an entry, and nothing for none.
func (l Limits) String() string {
	var words []string
	add := func(isLimit bool, name, value string) {
		if isLimit {
			words = append(words, name+"="+value)
		}
	}
	add(l.Connections > 0, "connections", strconv.Itoa(l.Connections))
	add(l.New > 0, "new", strconv.Itoa(l.New)+"/"+formatTime(l.NewTime))
	add(l.Messages > 0, "messages", strconv.Itoa(l.Messages))
	add(l.Idle >= 0, "idle", strconv.Itoa(l.Idle))
	add(l.Time > 0, "time", formatTime(l.Time))
	return strings.Join(words, ", ")
}
