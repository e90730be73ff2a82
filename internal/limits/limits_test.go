// SPDX-License-Identifier: EPL-2.0

package limits

import (
	"strings"
	"testing"
	"time"
)

func TestRules_firstMatchCounts(t *testing.T) {
	t.Parallel()
	rules, err := Parse("192.0.2.1=1, 192.0.2.0/24=2/5s\n2001:db8::/32=3/1m /run/lmtp=5 unix:x/y=6 lmtp=0 smtp=7", 9)
	if err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]string{
		"smtp\n192.0.2.1\n25\n0\n":       "1",
		"smtp\n192.0.2.77\n25\n0\n":      "2/5s",
		"smtp\n::ffff:192.0.2.77\n25\n0": "2/5s",
		"smtp\n2001:db8::1\n25\n0\n":     "3/60s",
		"lmtp\nunix:/path\n":             "",
		"lmtp\n/run/lmtp\n":              "5",
		"lmtp\nunix:x/y\n":               "6",
		"smtp\n198.51.100.1\n25\n0\n":    "7",
		"relay\n198.51.100.1\n25\n0\n":   "9",
		"":                               "9",
	} {
		if got := rules.For(label).String(); got != want {
			t.Errorf("%q: %q, want %q", label, got, want)
		}
	}
	if got := (Rules(nil)).For("smtp\n"); got != (Limit{}) {
		t.Errorf("no rules: %v", got)
	}
	if rules, err := Parse("*=4/2", 9); rules.For("x") != (Limit{4, 2 * time.Second}) || err != nil {
		t.Errorf("%v, %v", rules, err)
	}
}

func TestRules_bad(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.1":        "pattern=sessions",
		"=1":               "pattern=sessions",
		"a=":               "number of sessions",
		"a=-1":             "number of sessions",
		"a=1/":             "a time",
		"a=1/0s":           "a time",
		"a=1/5x":           "a time",
		"192.0.2.0/33=1":   "a network",
		"a=1, b, c=1":      `bad rule "b"`,
		"192.0.2.0/a=1/5s": "a network",
	} {
		if _, err := Parse(text, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
