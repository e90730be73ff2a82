// SPDX-License-Identifier: EPL-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"scache/internal/postfix"
)

func TestRedactor(t *testing.T) {
	t.Parallel()
	r := newRedactor()
	r.host = "myhost"
	for _, test := range [][2]string{
		{"to=<joe@example.org>, relay=mx.example.org[192.0.2.1]:25",
			"to=<mail-1>, relay=name-1[address-1]:25"},
		{"again: joe@example.org 192.0.2.1 MX.example.org.", "again: mail-1 address-1 name-1."},
		{"smtp [2001:db8::1]:587 tls  3", "smtp [address-2]:587 tls  3"},
		{"smtp example.com  smtp internal  5", "smtp name-2  smtp internal  5"},
		{"relay internal  3  1", "relay name-3  3  1"},
		{"192.0.2.0/24=2/5s 2001:db8::/32=1", "network-1=2/5s network-2=1"},
		{"example.com/x y/example.com", "name-2/x y/name-2"},
		{"Nov 25 19:30:42 myhost postfix/scache[12]: ok",
			"Nov 25 19:30:42 host-1 postfix/scache[12]: ok"},
		{"größe.example 東京.example", "name-4 name-5"},
		// These are no names.
		{"127.0.0.1 ::1 0.0.0.0", "127.0.0.1 ::1 0.0.0.0"},
		{"/etc/postfix/main.cf, line 2; main.cf", "/etc/postfix/main.cf, line 2; main.cf"},
		{"Postfix 3.7.11, scache 1.0.0, go1.26.1, 6.1.0-21-amd64",
			"Postfix 3.7.11, scache 1.0.0, go1.26.1, 6.1.0-21-amd64"},
		{"1.5s 0.0 (0.3 per second) 12.5% 1h0m0s", "1.5s 0.0 (0.3 per second) 12.5% 1h0m0s"},
		{"../../usr/libexec/scache-go/scache", "../../usr/libexec/scache-go/scache"},
	} {
		if got := r.redact(test[0]); got != test[1] {
			t.Errorf("%q: got %q, want %q", test[0], got, test[1])
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.configure(map[string]string{"myhostname": "secret.example.org"})
	must(t, "-c", s.etc, "enable")
	s.start()
	s.send()
	saveConnectionOf(t, filepath.Join(s.Dir, "queue/private/scache"), "smtp\\nhidden.example.net\\n")
	file := filepath.Join(t.TempDir(), "report.txt")
	out := must(t, "-c", s.etc, "report", "--output", file)
	want(t, out, "== versions ==\nscachectl test", "\nPostfix 3.", "== doctor ==\nok ",
		"== config ==\nPARAMETER", "\n== status ==\nscache test, pid ",
		"== hits by destination ==\nDESTINATION ", "\nsmtp name-", "== hits by endpoint ==\nENDPOINT ",
		"== entry in master.cf ==\nscache unix ", "== limits of master(8) ==\nLimit ",
		"== log ==\nfrom "+s.Dir+"/maillog:\n",
		"connection_cache_session_limit", "written to "+file)
	for _, secret := range []string{"secret.example", "hidden.example"} {
		if strings.Contains(out, secret) {
			t.Errorf("got %q in\n%s", secret, out)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(out, string(text)) {
		t.Errorf("got %q, %v, want what was shown", text, err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", st, err)
	}
	wantError(t, []string{"-c", s.etc, "report", "--output", file}, file, "file already exists",
		"hint: name a file that does not exist")
	want(t, must(t, "-c", s.etc, "report", "--labels"), "hidden.example.net")
}

// TestReport_ofABrokenSystem has what there is, and what is wrong in its place.
func TestReport_ofABrokenSystem(t *testing.T) {
	t.Parallel()
	want(t, must(t, "-c", "/nosuch", "report"), "== mail system ==\nerror: ", "/nosuch",
		"== versions ==\nscachectl test")
	s := newFixture(t)
	s.edit("master.cf", "scache unix", "#scache unix")
	out := must(t, "-c", s.etc, "report")
	want(t, out, "== status ==\nerror: connect to ", "== entry in master.cf ==\nerror: ",
		"== limits of master(8) ==\nit is not running", "== log ==\n")
}

// TestReport_log has a service with another name: its lines have the name of the program. It
// shows the last of them, escaped and cut.
func TestReport_log(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.configure(map[string]string{"connection_cache_service_name": "other"})
	s.edit("master.cf", "scache unix", "other unix")
	line := "Nov 25 host postfix/scache[1]: \x1b\xff" + strings.Repeat("x", 2*reportLine) + "\n"
	appendTo(t, s.Dir+"/maillog", strings.Repeat(line, reportLines+1)+
		"Nov 25 host else/scache[1]: of another instance\n")
	system, err := postfix.Open(s.etc)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := writeLog(&b, system); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	if n := strings.Count(got, `postfix/scache[1]: \x1b\xffxxx`); n != reportLines {
		t.Errorf("got %d lines, want %d", n, reportLines)
	}
	if strings.Contains(got, "another instance") || len(got) > reportLines*(reportLine+100) {
		t.Errorf("got %d bytes: %.300q", len(got), got)
	}
}
