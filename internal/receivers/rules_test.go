// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ text, want string }{
		{"", ""},
		{" ,\n ", ""},
		{`
		    { bigmail, .mx.bigmail.example, 203.0.113.0/24, connections=20, new=60/1m,
		      messages=50, idle=5, time=5s }
		    { isp,     198.51.100.0/24 2001:db8:1::/48, connections=3 }
		    { partner, 192.0.2.7, idle=0 }
		    { *, idle=10 }`,
			"{ bigmail, 203.0.113.0/24, .mx.bigmail.example, connections=20, new=60/1m, messages=50, " +
				"idle=5, time=5s } { isp, 198.51.100.0/24, 2001:db8:1::/48, connections=3 } " +
				"{ partner, 192.0.2.7, idle=0 } { *, idle=10 }"},
		{"{a,192.0.2.1},{b\n[192.0.2.2]\n}", "{ a, 192.0.2.1 } { b, 192.0.2.2 }"},
		{"{ a [2001:db8::1] 2001:db8::2 [2001:db8::]/64 ::ffff:192.0.2.1 }",
			"{ a, 2001:db8::1, 2001:db8::2, 2001:db8::/64, 192.0.2.1 }"},
		{"{ a slow mx1.example /var/run/lmtp unix:/private/lmtp }",
			"{ a, slow, mx1.example, /var/run/lmtp, unix:/private/lmtp }"},
		{"{ a slow time=60 new=1/3600 }", "{ a, slow, new=1/1h, time=1m }"},
		{"{ a slow time=7d }", "{ a, slow, time=1w }"},
		{"{ a 0.0.0.0/0 }", "{ a, 0.0.0.0/0 }"},
		{"{*}", "{ * }"},
	} {
		rules, err := Parse(test.text)
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		if got := rules.String(); got != test.want {
			t.Errorf("%q: got %s, want %s", test.text, got, test.want)
		}
		again, err := Parse(rules.String())
		if err != nil || !reflect.DeepEqual(again, rules) {
			t.Errorf("%q: got %v, %v from its own text, want %v", test.text, again, err, rules)
		}
	}
}

func TestParse_limits(t *testing.T) {
	t.Parallel()
	rules, err := Parse("{ a, slow, connections=20, new=60/1m, messages=50, idle=0, time=5s } " +
		"{ b, c }")
	if err != nil {
		t.Fatal(err)
	}
	want := Limits{Connections: 20, New: 60, NewTime: time.Minute, Messages: 50, Time: 5 * time.Second}
	if rules[0].Limits != want {
		t.Errorf("got %+v, want %+v", rules[0].Limits, want)
	}
	if rules[1].Limits != unlimited {
		t.Errorf("got %+v, want %+v", rules[1].Limits, unlimited)
	}
}

// TestParse_errors wants the entry, the word, and what was expected.
func TestParse_errors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text  string
		facts []string
	}{
		{"192.0.2.1=5", []string{"192.0.2.1=5", "braces"}},
		{"{ a, slow } b { c, fast }", []string{`"b"`, "braces"}},
		{"{ a, slow", []string{"{ a, slow", "closing brace"}},
		{"{ a, slow { b, fast }", []string{"{ a, slow", "closing brace"}},
		{"{ a, slow } }", []string{`"}"`, "braces"}},
		{"{}", []string{"receiver {", "empty"}},
		{"{ connections=5 }", []string{"connections=5", "name"}},
		{"{ .mx.example, connections=5 }", []string{`".mx.example"`, "name"}},
		{"{ 2001:db8::1, connections=5 }", []string{`"2001:db8::1"`, "name"}},
		{"{ a }", []string{"{ a }", "members"}},
		{"{ a, connections=5 }", []string{"members"}},
		{"{ a, slow } { a, fast }", []string{`"a"`, "twice"}},
		{"{ *, idle=1 } { *, idle=2 }", []string{`"*"`, "twice"}},
		{"{ *, idle=1 } { a, slow }", []string{"{ a, slow }", "last"}},
		{"{ *, 192.0.2.1, idle=1 }", []string{"192.0.2.1", "limits only"}},
		{"{ a, slow, connections=0 }", []string{`"connections=0"`, "from 1", "connections=20"}},
		{"{ a, slow, connections=-1 }", []string{`"connections=-1"`}},
		{"{ a, slow, connections=x }", []string{`"connections=x"`}},
		{"{ a, slow, connections= }", []string{`"connections="`}},
		{"{ a, slow, connections=9999999999 }", []string{"2147483647"}},
		{"{ a, slow, connections=1, connections=2 }", []string{`"connections=2"`, "twice"}},
		{"{ a, slow, messages=0 }", []string{`"messages=0"`, "messages=50"}},
		{"{ a, slow, idle=-1 }", []string{`"idle=-1"`, "from 0"}},
		{"{ a, slow, time=0 }", []string{`"time=0"`, "time=5s"}},
		{"{ a, slow, time=5x }", []string{`"time=5x"`, "s m h d w"}},
		{"{ a, slow, time=9999w }", []string{`"time=9999w"`}},
		{"{ a, slow, new=60 }", []string{`"new=60"`, "new=60/1m"}},
		{"{ a, slow, new=0/1m }", []string{`"new=0/1m"`}},
		{"{ a, slow, new=1/0m }", []string{`"new=1/0m"`}},
		{"{ a, slow, conections=5 }", []string{`"conections"`, "connections, new, messages, idle, time"}},
		{"{ a, 192.0.2.1/24 }", []string{`"192.0.2.1/24"`, "192.0.2.0/24"}},
		{"{ a, 192.0.2.0/33 }", []string{`"192.0.2.0/33"`, "network"}},
		{"{ a, ::ffff:192.0.2.0/120 }", []string{"::ffff:"}},
		{"{ a, 192.0.2 }", []string{`"192.0.2"`, "address"}},
		{"{ a, 300.0.2.1 }", []string{`"300.0.2.1"`, "address"}},
		{"{ a, [192.0.2.1]:25 }", []string{`"[192.0.2.1]:25"`, "without a port"}},
		{"{ a, fe80::1%eth0 }", []string{`"fe80::1%eth0"`}},
		{"{ a, mx.example:25 }", []string{`"mx.example:25"`, "without a port"}},
		{"{ a, bücher.example }", []string{"bücher.example", "ASCII"}},
		{"{ a, a..b }", []string{`"a..b"`}},
		{"{ a, . }", []string{`"."`}},
		{"{ a, /x$y }", []string{`"/x$y"`}},
		{"{ a, * }", []string{`"*"`}},
	} {
		rules, err := Parse(test.text)
		if err == nil {
			t.Errorf("%q: got %v, want an error", test.text, rules)
			continue
		}
		for _, fact := range test.facts {
			if !strings.Contains(err.Error(), fact) {
				t.Errorf("%q: got error %q, want it to mention %s", test.text, err, fact)
			}
		}
	}
}

// FuzzParse has any text. What it accepts, it accepts again as it writes it.
func FuzzParse(f *testing.F) {
	f.Add("{ a, .mx.example, 203.0.113.0/24, connections=20, new=60/1m, messages=50, idle=5 }")
	f.Add("{ b, [2001:db8::1] /path, idle=0 } { *, idle=10 }")
	f.Add("{ a { b }")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(rules.String())
		if err != nil || !reflect.DeepEqual(again, rules) {
			t.Errorf("%q: got %v, %v from its own text %q, want %v", text, again, err, rules, rules)
		}
		newMatcher(rules)
	})
}

// TestParse_bounds has the longest names and times, and the first ones beyond.
func TestParse_bounds(t *testing.T) {
	t.Parallel()
	const longest int64 = 1<<31 - 1 // seconds, and connections
	type check struct {
		text string
		ok   bool
	}
	checks := []check{
		{"{ " + strings.Repeat("x", 64) + ", slow }", true},
		{"{ " + strings.Repeat("x", 65) + ", slow }", false},
		{fmt.Sprintf("{ a, slow, time=%d }", longest), true},
		{fmt.Sprintf("{ a, slow, time=%ds }", longest), true},
		{fmt.Sprintf("{ a, slow, time=%dm }", longest/60), true},
		{fmt.Sprintf("{ a, slow, time=%dm }", longest/60+1), false},
		{fmt.Sprintf("{ a, slow, time=%dw }", longest/(7*24*60*60)), true},
		{fmt.Sprintf("{ a, slow, time=%dw }", longest/(7*24*60*60)+1), false},
		{fmt.Sprintf("{ a, slow, connections=%d }", longest), true},
		{fmt.Sprintf("{ a, slow, connections=%d }", longest+1), false},
		{"{ a, slow, connections=1, messages=1, idle=0, time=1, new=1/1 }", true},
	}
	const letters = "abcdefghijklmnopqrstuvwxyz"
	for c := '!'; c <= '~'; c++ {
		if strings.ContainsRune(",{}*", c) {
			continue // separators, and Any
		}
		first := strings.ContainsRune(letters+strings.ToUpper(letters)+"0123456789", c)
		checks = append(checks, check{fmt.Sprintf("{ %c, slow }", c), first},
			check{fmt.Sprintf("{ a%c, slow }", c), first || strings.ContainsRune("._-", c)})
	}
	for _, c := range checks {
		if rules, err := Parse(c.text); (err == nil) != c.ok || err == nil && len(rules) != 1 {
			t.Errorf("%q: got %v, %v, want it accepted: %t", c.text, rules, err, c.ok)
		}
	}
}

// TestParse_errorsAreShort has errors quote long entries: up to 80 bytes, and whole characters.
func TestParse_errorsAreShort(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ entry, want string }{
		{strings.Repeat("x", 80), strings.Repeat("x", 80)},
		{strings.Repeat("x", 81), strings.Repeat("x", 80) + "…"},
		{strings.Repeat("x", 79) + "ü", strings.Repeat("x", 79) + "…"},
		{"a\n \t /$", "a /$"},
	} {
		want := "receiver { " + test.want + " }: "
		if _, err := Parse("{" + test.entry + "}"); err == nil ||
			!strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got error %v, want it to begin with %q", test.entry, err, want)
		}
	}
}
