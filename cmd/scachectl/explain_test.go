// SPDX-License-Identifier: EPL-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// explainLines returns what explain prints.
func explainLines(t *testing.T, s *fixture, args ...string) string {
	t.Helper()
	return must(t, append([]string{"-c", s.etc, "explain"}, args...)...)
}

func wantMatch(t *testing.T, got string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if !regexp.MustCompile(`(?m)` + pattern).MatchString(got) {
			t.Errorf("got no %s in\n%s", pattern, got)
		}
	}
}

func TestExplain_askedOfARunningSystem(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.configure(map[string]string{"transport_maps": "inline:" +
		"{ { other.test = relay:[mx.other.test]:587 }, { local.test = error:nowhere } }"})
	must(t, "-c", s.etc, "enable")
	s.start()
	s.send()
	wantMatch(t, explainLines(t, s, "recipient@example.test"),
		`^ok +route +mail to recipient@example.test goes to service smtp, `+
			`next hop \[127.0.0.1\]:\d+ \(the mail system says so\)$`,
		`^ok +service +smtp is smtp\(8\)`, `^ok +caching +always: .*smtp_connection_cache_destinations$`,
		`^ok +times +.* idle for at most 1h, and in use for at most 300s$`,
		`^ok +tls +no TLS`, `^ok +sasl +no auth`,
		`^ok +cache +[1-9]\d* connections are idle`,
		`^ok +destination +\d+ lookups, `, `^ok +endpoint +\d+ lookups, `)
	wantMatch(t, explainLines(t, s, "127.0.0.1"), `^note +route +service smtp`, `^ok +endpoint `)
	wantMatch(t, explainLines(t, s, "other.test"), `service relay, next hop \[mx.other.test\]:587 `,
		`^note +caching +only on demand`,
		`^note +destination +not seen yet`)
	wantMatch(t, explainLines(t, s, "local.test"), `^note +service +error is error\(8\)`)
	wantMatch(t, explainLines(t, s, "--service", "nosuch", "x.test"),
		`^problem +service +master.cf has no entry nosuch unix`)

	var e explanation
	if err := json.Unmarshal([]byte(explainLines(t, s, "--json", "example.test")), &e); err != nil ||
		e.Service != "smtp" ||
		!slices.ContainsFunc(e.Findings, func(f finding) bool {
			return f.About == "tls" &&
				f.Level == "ok"
		}) {
		t.Errorf("got %+v, %v", e, err)
	}
	wantError(t, []string{"--socket", "/x", "explain", "x.test"}, "--socket")
}

// TestExplain_receiver names the receiver of a next hop, and what keeps its limits from having
// an effect.
func TestExplain_receiver(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.configure(map[string]string{
		"connection_cache_receivers": "{ far, 192.0.2.0/24, connections=2 }" +
			" { near, 127.0.0.1, connections=3 }",
		"transport_maps": "inline:{ { unknown.test = smtp:[192.0.2.9] } { other.test = smtp:[x.test] } }",
	})
	must(t, "-c", s.etc, "enable")
	s.start()
	s.send()
	got := explainLines(t, s, "recipient@example.test")
	wantMatch(t, got,
		`^ok +receiver +near \(connections=3\): \d+ connections are open, and 0 clients wait`,
		`^note +receiver +an agent waits at most 4s .*\n.*connection_cache_protocol_timeout to 60s`)
	if strings.Contains(got, "without a question") {
		t.Errorf("got %s, but the next hop is cached always", got)
	}
	wantMatch(t, explainLines(t, s, "192.0.2.7"), `^ok +receiver +far \(connections=2\): 0 `,
		`^note +receiver +the first messages connect without a question`)
	wantMatch(t, explainLines(t, s, "unknown.test"), `^ok +receiver +far `)
	wantMatch(t, explainLines(t, s, "other.test"), `^note +receiver +none is known`)
	s.configure(map[string]string{"connection_cache_receivers": ""})
	must(t, "-c", s.etc, "restart")
	wantMatch(t, explainLines(t, s, "example.test"), `^ok +receiver +no receiver has limits`)
}

// TestExplain_configurations has a system that does not run: what main.cf tells is all there is.
func TestExplain_configurations(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	data, err := os.ReadFile(filepath.Join(s.etc, "main.cf"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for name, test := range map[string]struct {
		settings map[string]string
		patterns []string
	}{
		"maps": {map[string]string{"relayhost": "", "transport_maps": "inline:" +
			"{ { .example.test = relay: }, { example.test = lmtp:unix:/x } }"},
			[]string{`goes to service lmtp, next hop unix:/x \(main.cf says so`, `^note +caching .*lmtp_`,
				`^problem +cache +the server does not answer`}},
		"off": {map[string]string{"smtp_connection_cache_on_demand": "no",
			"smtp_connection_cache_destinations": "other.test"},
			[]string{`^problem +caching +never`, `→ set smtp_connection_cache_on_demand to yes`}},
		"times": {map[string]string{"smtp_connection_cache_time_limit": "2h",
			"smtp_connection_reuse_count_limit": "7"},
			[]string{`^note +times .*connection_cache_ttl_limit is 1h0m0s: the shorter`,
				`^note +times .*at most 7 messages`}},
		"may": {map[string]string{"smtp_tls_security_level": "may"},
			[]string{`^note +tls +level may \(smtp_tls_security_level\): .* not reused`}},
		"encrypt": {map[string]string{"smtp_enforce_tls": "yes"},
			[]string{`^problem +tls +level encrypt \(smtp_enforce_tls\): no connection`}},
		"tls reuse": {map[string]string{"smtp_use_tls": "yes", "smtp_tls_connection_reuse": "yes"},
			[]string{`^ok +tls +level may \(smtp_use_tls\), .*tlsproxy`}},
		"tls policy": {map[string]string{"smtp_tls_policy_maps": "inline:" +
			"{ { 127.0.0.1 = secure connection_reuse=yes } }"},
			[]string{`^ok +tls +level secure \(smtp_tls_policy_maps\)`}},
		"sasl": {map[string]string{"smtp_sasl_auth_enable": "yes",
			"smtp_sasl_password_maps": "static:u:p"},
			[]string{`^ok +sasl .*same next hop only`}},
		"sasl sender": {map[string]string{"smtp_sasl_auth_enable": "yes",
			"smtp_sasl_password_maps": "static:u:p", "smtp_sender_dependent_authentication": "yes"},
			[]string{`^note +sasl .*same sender only`}},
		"sender": {map[string]string{"sender_dependent_relayhost_maps": "static:x"},
			[]string{`^note +route .*sender_dependent maps`}},
	} {
		more := ""
		for name, value := range test.settings { // the last one counts
			more += name + " = " + value + "\n"
		}
		s.write("main.cf", text+more)
		got := explainLines(t, s, "example.test")
		wantMatch(t, got, test.patterns...)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	s.write("main.cf", text+"smtp_tls_connection_reuse = yes\nsmtp_tls_security_level = encrypt\n")
	s.edit("master.cf", "tlsproxy unix", "#tlsproxy unix")
	wantMatch(t, explainLines(t, s, "example.test"),
		`^problem +tls .*no tlsproxy: mail over TLS is deferred`)
	if got := explainLines(t, s, "--service", "smtp", "x\x1b[31m.test"); strings.Contains(got,
		"\x1b") {
		t.Errorf("got %q", got)
	}
}
