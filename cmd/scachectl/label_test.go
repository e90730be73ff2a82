// SPDX-License-Identifier: EPL-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"scache/internal/control"
	"scache/internal/postfixtest"
)

func TestLabel_shortForm(t *testing.T) {
	t.Parallel()
	for whole, want := range map[string]string{
		// Of destinations: Postfix 3.7, 3.10, 3.11, and with TLS.
		"smtp\nexample.com\n":                "smtp example.com",
		"smtp\nexample.com:25\n":             "smtp example.com",
		"smtp\nexample.com:smtp\n":           "smtp example.com",
		"relay\n[mx.example.com]:587\n":      "relay [mx.example.com]:587",
		"smtp\n[127.0.0.1]:2525\n0\n0\n":     "smtp [127.0.0.1]:2525",
		"smtp\n[127.0.0.1]:2525\n0\n0\n0\n":  "smtp [127.0.0.1]:2525",
		"smtp\n[127.0.0.1]:2526\n2\n0\n":     "smtp [127.0.0.1]:2526 tls",
		"smtp\nexample.com\n1\n0\n0\n":       "smtp example.com tls=may",
		"smtp\ns@example.org\nexample.com\n": "smtp example.com sasl",
		"lmtp\nunix:/path/to\n":              "lmtp unix:/path/to",

		// Of endpoints.
		"smtp\n192.0.2.1\n25\n0\n":                                      "smtp 192.0.2.1",
		"smtp\n2001:db8::1\n25\n0\n":                                    "smtp 2001:db8::1",
		"smtp\n2001:db8::1\n587\n2\n":                                   "smtp [2001:db8::1]:587 tls",
		"smtp\n127.0.0.1\n2526\n2\n0\n0\n":                              "smtp 127.0.0.1:2526 tls",
		"smtp\n[a.test]:587\na.test\n192.0.2.1\n587\n0\n":               "smtp 192.0.2.1:587 sasl",
		"smtp\ns@b.test\n[a.test]\na.test\n192.0.2.1\n25\n1\n0\n0\n":    "smtp 192.0.2.1 tls=may sasl",
		"smtp\n[192.0.2.9]:587\n192.0.2.9\n192.0.2.9\n587\n2\n":         "smtp 192.0.2.9:587 tls sasl",
		"submit\n[192.0.2.9]:587\n192.0.2.9\n192.0.2.9\n587\n9\n0\n0\n": "submit 192.0.2.9:587 tls sasl",

		// Of other programs.
		"by hand": "by hand", "two\nlines": `two\nlines`, "smtp\n\n25\n": `smtp\n\n25\n`, "": "",
		"a\nb\nc\nd\n": `a\nb\nc\nd\n`, "\nexample.com\n": `\nexample.com\n`, "\x1b\n": `\x1b\n`,
	} {
		if got := short(control.Escape(whole)); got != want {
			t.Errorf("%q: got %q, want %q", whole, got, want)
		}
	}
}

// TestLabel_recordedOnes has the labels that delivery agents of each version of Postfix use.
func TestLabel_recordedOnes(t *testing.T) {
	t.Parallel()
	recordings, err := filepath.Glob("../../testdata/conversations/*/*")
	if len(recordings) == 0 || err != nil {
		t.Fatalf("no recordings: %v", err)
	}
	want := []string{
		"lmtp 127.0.0.1:2525", "lmtp [127.0.0.1]:2525",
		"smtp 127.0.0.1:2525", "smtp 127.0.0.1:2526 tls", "smtp 127.0.0.2:2525",
		"smtp [127.0.0.1]:2525", "smtp [127.0.0.1]:2526", "smtp [127.0.0.1]:2526 tls",
		"smtp [127.0.0.2]:2525", "smtp [localhost]:2525",
	}
	seen := map[string]bool{}
	for _, path := range recordings {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := postfixtest.ParseRecording(string(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			fields := strings.Split(l.Text, "\x00")
			for i := 0; i+1 < len(fields); i += 2 {
				if fields[i] != "label" {
					continue
				}
				name := short(control.Escape(fields[i+1]))
				if seen[name] = true; !slices.Contains(want, name) {
					t.Errorf("%s: %q: got %q, want one of %q", path, fields[i+1], name, want)
				}
			}
		}
	}
	for _, name := range want {
		if !seen[name] {
			t.Errorf("no recording has %s", name)
		}
	}
}

func TestLabel_isMeant(t *testing.T) {
	t.Parallel()
	for whole, texts := range map[string]struct{ meant, not string }{
		"smtp\nexample.com\n":        {"example.com EXAMPLE.COM", "com smtp example.com:25 .example.com"},
		"smtp\n[127.0.0.1]:3074\n":   {"127.0.0.1 [127.0.0.1] [127.0.0.1]:3074", "3074 127.0.0.1:3074"},
		"smtp\nexample.com:smtp\n":   {"example.com example.com:smtp", "smtp"},
		"smtp\n192.0.2.1\n25\n0\n":   {"192.0.2.1 [192.0.2.1]", "25 0 192.0.2 192.0.2.10"},
		"smtp\n192.0.2.1\n587\n0\n":  {"192.0.2.1 192.0.2.1:587", "587 192.0.2.1:25"},
		"smtp\n2001:db8::1\n25\n0\n": {"2001:db8::1 [2001:db8::1]", "2001"},
		"lmtp\nunix:/path/to\n":      {"unix:/path/to", "unix /path/to"},
		"by hand":                    {"", "by hand2 hand by"},
		"two\nlines":                 {"", "lines two"},
		"smtp\n\n25\n":               {"", "25"},
		"smtp\ns@b.test\n[a.test]:587\nmx.a.test\n192.0.2.1\n587\n2\n": {
			"s@b.test a.test [a.test] [a.test]:587 mx.a.test 192.0.2.1 192.0.2.1:587",
			"smtp tls sasl 587 2 b.test"},
	} {
		for _, text := range []string{whole, strings.TrimRight(whole, "\n")} {
			if !isMeant(whole, text) {
				t.Errorf("got that %q does not mean itself", whole)
			}
		}
		if l, ok := parseLabel(whole); ok && !isMeant(whole, l.String()) {
			t.Errorf("got that %q does not mean %q", l.String(), whole)
		}
		for _, text := range strings.Fields(texts.meant) {
			if !isMeant(whole, text) {
				t.Errorf("got that %s does not mean %q", text, whole)
			}
		}
		for _, text := range append(strings.Fields(texts.not), "") {
			if isMeant(whole, text) {
				t.Errorf("got that %s means %q", text, whole)
			}
		}
	}
}

// TestLabel_ofRealPostfixWithSASL has the installed Postfix make labels, with senders.
func TestLabel_ofRealPostfixWithSASL(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.configure(map[string]string{
		"smtp_sasl_auth_enable": "yes", "smtp_sasl_password_maps": "static:user:secret",
		"smtp_sasl_security_options": "", "smtp_sender_dependent_authentication": "yes",
		"smtp_tls_security_level": "may",
	})
	must(t, "-c", s.etc, "enable")
	s.start()
	s.send()
	all, err := (&site{dir: s.etc}).list()
	if err != nil || len(all.Bindings) == 0 || len(all.Sessions) == 0 {
		t.Fatalf("got %+v, %v, want bindings and sessions", all, err)
	}
	b := all.Bindings[0]
	d, _ := parseLabel(raw(b.Destination))
	e, _ := parseLabel(raw(b.Endpoint))
	if d.sender != "sender@scache.test" || d.nexthop == "" || !d.sasl ||
		e.sender != d.sender || e.nexthop != d.nexthop || e.address != "127.0.0.1" || e.tls != 1 ||
		!e.sasl {
		t.Errorf("got %+v, %+v of %q, %q", d, e, b.Destination, b.Endpoint)
	}
	want(t, must(t, "-c", s.etc, "flush", "127.0.0.1"), "127.0.0.1 means 2 labels, all of them:\n",
		"\nflushed ", " and 1 bindings\n")
}

func TestAge(t *testing.T) {
	t.Parallel()
	const second = control.Seconds(1e9)
	for in, want := range map[control.Seconds]string{
		0: "0s", second / 3: "0s", 12 * second: "12s", 60 * second: "1m0s", 3599 * second: "59m59s",
		3600 * second: "1h0m", 86399 * second: "23h59m", 86400 * second: "1d0h",
		900000 * second: "10d10h",
		59_600_000_000:  "1m0s",
	} {
		if got := age(in); got != want {
			t.Errorf("age(%d): got %s, want %s", in, got, want)
		}
	}
}
