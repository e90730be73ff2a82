// SPDX-License-Identifier: EPL-2.0

package main

import (
	"strings"
	"testing"
)

func TestWhatIsMeant(t *testing.T) {
	t.Parallel()
	for label, texts := range map[string][2]string{
		"smtp\nexample.com\n":        {"example.com EXAMPLE.COM", "com smtp example.com:25 .example.com"},
		"smtp\n[127.0.0.1]:3074\n":   {"127.0.0.1 [127.0.0.1] [127.0.0.1]:3074", "3074 127.0.0.1:3074"},
		"smtp\nexample.com:smtp\n":   {"example.com example.com:smtp", "smtp"},
		"smtp\n192.0.2.1\n25\n0\n":   {"192.0.2.1 [192.0.2.1]", "25 0 192.0.2 192.0.2.10"},
		"smtp\n2001:db8::1\n25\n0\n": {"2001:db8::1 [2001:db8::1]", "2001"},
		"lmtp\nunix:/path/to\n":      {"unix:/path/to", "unix /path/to"},
		"by hand":                    {"", "by hand2 hand by"},
		"two\nlines":                 {"", "lines two"},
		"smtp\n\n25\n":               {"", "25"},
	} {
		if !isMeant(label, label) || !isMeant(label, strings.TrimRight(label, "\n")) {
			t.Errorf("%q does not mean itself", label)
		}
		for _, text := range strings.Fields(texts[0]) {
			if !isMeant(label, text) {
				t.Errorf("%s does not mean %q", text, label)
			}
		}
		for _, text := range append(strings.Fields(texts[1]), "") {
			if isMeant(label, text) {
				t.Errorf("%s means %q", text, label)
			}
		}
	}
}
