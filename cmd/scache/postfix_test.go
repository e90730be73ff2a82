// SPDX-License-Identifier: EPL-2.0

// Tests with a real Postfix mail system around the daemon.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// deliveryTimeout bounds the time for any amount of mail in these tests.
const deliveryTimeout = 3 * time.Minute

func startInstance(t *testing.T, c postfixtest.Config) *postfixtest.Instance {
	t.Helper()
	postfixtest.NeedPostfix(t)
	i, err := postfixtest.NewInstance(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	return i
}

func startSink(t *testing.T, options ...string) *postfixtest.Sink {
	t.Helper()
	return startSinkOn(t, "127.0.0.1", options...)
}

func startSinkOn(t *testing.T, host string, options ...string) *postfixtest.Sink {
	t.Helper()
	postfixtest.NeedPostfix(t)
	s, err := postfixtest.StartSinkOn(host, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// relayTo is the main.cf of an instance that sends all mail to one host, and
// caches all connections to it.
func relayTo(port int, settings map[string]string) map[string]string {
	m := map[string]string{
		"relayhost":                          fmt.Sprintf("[127.0.0.1]:%d", port),
		"smtp_connection_cache_destinations": "127.0.0.1",
	}
	maps.Copy(m, settings)
	return m
}

// deliver sends messages and waits until all have been delivered.
func deliver(t *testing.T, i *postfixtest.Instance, messages int, recipient string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	before, _ := i.Sent()
	if err := i.Send(ctx, messages, 10, recipient); err != nil {
		t.Fatal(err)
	}
	if err := i.WaitSent(ctx, before+messages); err != nil {
		t.Fatal(err)
	}
}

// wantServedFromCache fails unless all messages were delivered, nine in ten
// over connections from the cache, and no process logged a problem.
func wantServedFromCache(t *testing.T, i *postfixtest.Instance, messages int) {
	t.Helper()
	wantConnections(t, i, messages, messages/10)
	wantNoComplaints(t, i)
}

// wantConnections fails unless this many messages were delivered, over this many new
// connections at the most.
func wantConnections(t *testing.T, i *postfixtest.Instance, messages, limit int) {
	t.Helper()
	if sent, connections := i.Sent(); sent != messages || connections > limit {
		t.Errorf("%d of %d messages were sent, over %d connections", sent, messages, connections)
	}
}

// harmless are warnings about the instance itself, and about the machine's clocks.
var harmless = regexp.MustCompile(
	`postfix-script\[.*(symlink leaves directory|/etc/hosts differ)|` +
		`tlsproxy\[.*TLS server role is disabled|` +
		`cleanup\[.*(file system clock is|resetting file time stamps)`)

func wantNoComplaints(t *testing.T, i *postfixtest.Instance) {
	t.Helper()
	for _, line := range i.Log() {
		for _, word := range []string{"]: warning: ", "]: error: ", "]: fatal: ", "]: panic: "} {
			if strings.Contains(line, word) && !harmless.MatchString(line) {
				t.Error(line)
			}
		}
	}
}

func TestMail_throughTheCache(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for name, test := range map[string]struct {
		chroot   string
		settings map[string]string
	}{
		"chroot":    {"y", nil},
		"no chroot": {"n", nil},
		"relay service": {"y",
			map[string]string{"relay_domains": "example.test", "relay_transport": "relay"}},
		"smtp service, forced": {"y", map[string]string{"default_transport": "smtp"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := startSink(t)
			i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: test.chroot,
				Main: relayTo(sink.Port, test.settings)})
			deliver(t, i, 500, "recipient@example.test")
			wantServedFromCache(t, i, 500)
			testenv.Eventually(t, "all messages counted", func() bool { return sink.Messages() >= 500 })
			if n := sink.Messages(); n != 500 {
				t.Errorf("%d messages have arrived", n)
			}
			if test.settings["relay_transport"] != "" &&
				len(i.Grep("postfix/relay/smtp[", "conn_use=")) == 0 {
				t.Error("the relay service did not deliver")
			}
			wantJail(t, i, test.chroot == "y")
		})
	}
}

// wantJail looks at the running daemon: its root directory, and its user.
func wantJail(t *testing.T, i *postfixtest.Instance, chroot bool) {
	t.Helper()
	pid := pidOf(t, i)
	root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		t.Fatal(err)
	}
	if inJail := root == filepath.Join(i.Dir, "queue"); inJail != chroot {
		t.Errorf("the daemon's root directory is %s", root)
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if regexp.MustCompile(`(?m)^(Uid|Gid):.*\b0\b`).Match(status) {
		t.Errorf("the daemon runs as root:\n%s", status)
	}
}

// pidOf returns the process ID of the cache that the instance runs.
func pidOf(t *testing.T, i *postfixtest.Instance) int {
	t.Helper()
	pid, running := findCache(i)
	if !running {
		t.Fatal("the cache does not run")
	}
	return pid
}

// findCache returns the process of the cache of an instance, if it runs.
func findCache(i *postfixtest.Instance) (pid int, running bool) {
	entries, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range entries {
		if target, _ := os.Readlink(exe); target == filepath.Join(i.Dir, "libexec/scache-go/scache") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(exe)))
			return pid, err == nil
		}
	}
	return 0, false
}

func TestSyslog_fromTheJail(t *testing.T) {
	postfixtest.NeedPostfix(t)
	if !postfixtest.InPrivateDev(t) {
		return
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	os.Chmod("/dev/log", 0o666)
	lines := collect(conn)
	sink := startSink(t)
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Syslog: true,
		Main: relayTo(sink.Port, nil)})
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	if err := i.Send(ctx, 100, 10, "recipient@example.test"); err != nil {
		t.Fatal(err)
	}
	if err := i.WaitEmpty(ctx); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "100 messages have arrived", func() bool { return sink.Messages() == 100 })
	pid := pidOf(t, i)
	if err := i.Command("reload"); err != nil {
		t.Fatal(err)
	}
	waitForExit(t, pid)
	// All was sent by now.
	if err := sendTo(conn.LocalAddr().String(), endOfLog); err != nil {
		t.Fatal(err)
	}
	pattern := regexp.MustCompile(`^<22>.* postfix/scache\[\d+\]: statistics: domain lookup hits=`)
	if lines := <-lines; !slices.ContainsFunc(lines, pattern.MatchString) {
		t.Errorf("got no statistics in syslog: %q", lines)
	}
}

const endOfLog = "end of log"

func sendTo(socket, text string) error {
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.WriteString(conn, text)
	return err
}

// collect reads datagrams until one is endOfLog.
func collect(conn *net.UnixConn) <-chan []string {
	result := make(chan []string, 1)
	go func() {
		var lines []string
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil || string(buf[:n]) == endOfLog {
				result <- lines
				return
			}
			lines = append(lines, string(buf[:n]))
		}
	}()
	return result
}

func waitForExit(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
			return
		}
	}
	t.Fatalf("process %d has not ended", pid)
}

// TestReload_costsNoMail sends mail with a reload every half second: no client
// may notice, and no connection may be lost.
func TestReload_costsNoMail(t *testing.T) {
	testenv.SkipShort(t)
	takeovers := deliverWithReloads(t, 3000).Grep("postfix/scache[", "takeover: ")
	t.Logf("%d times, a process has taken over", len(takeovers))
	if len(takeovers) == 0 {
		t.Error("nothing was taken over")
	}
	for _, line := range takeovers {
		if !strings.HasSuffix(line, " lost=0") {
			t.Error(line)
		}
	}
}

// deliverWithReloads sends mail through a new instance, which it reloads meanwhile.
//
// A delivery agent may not have opened a message yet when its queue manager is gone. Then the
// next queue manager may have another agent deliver it, too. Such a run does not count, unless
// our server or a client of it complains: then the test fails, whatever else has happened.
func deliverWithReloads(t *testing.T, messages int) *postfixtest.Instance {
	t.Helper()
	for range 10 {
		sink := startSink(t)
		i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y",
			Main: relayTo(sink.Port, nil)})
		err := sendWithReloads(i, messages)
		if lines := complaints(i); len(lines) > 0 {
			t.Fatalf("got %q, want no complaints of our server and its clients", lines)
		}
		if err != nil {
			for _, level := range []string{"warning", "error", "fatal", "panic"} {
				t.Logf("%ss of Postfix: %q", level, i.Grep("]: "+level+": "))
			}
			t.Fatal(err)
		}
		sent, _ := i.Sent()
		if sent > messages {
			t.Logf("messages were sent more than once: once more: %q", sentTwice(i))
			continue
		}
		if sent != messages {
			t.Errorf("%d of %d messages were sent", sent, messages)
		}
		return i
	}
	t.Fatal("no run counts")
	return nil
}

// complaints returns what the cache server says is wrong, and its clients say of it.
func complaints(i *postfixtest.Instance) []string {
	lines := i.Grep("problem talking to service private/scache")
	for _, level := range []string{"warning", "error", "fatal", "panic"} {
		lines = append(lines, i.Grep("postfix/scache[", "]: "+level+": ")...)
	}
	return lines
}

// sentTwice returns what is logged about messages that were delivered more than once.
func sentTwice(i *postfixtest.Instance) (lines []string) {
	times := map[string]int{}
	id := func(line string) string { return strings.Fields(line)[5] }
	for _, line := range i.Grep("status=sent") {
		times[id(line)]++
	}
	for message, n := range times {
		if n > 1 {
			lines = append(lines, i.Grep(message)...)
		}
	}
	return lines
}

func sendWithReloads(i *postfixtest.Instance, messages int) error {
	const interval = 500 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	sent := make(chan error, 1)
	go func() {
		err := i.Send(ctx, messages, 10, "recipient@example.test")
		sent <- errors.Join(err, i.WaitSent(ctx, messages))
	}()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case err := <-sent:
			return err
		case <-tick.C:
			if err := i.Command("reload"); err != nil {
				cancel()
				return errors.Join(err, <-sent)
			}
		}
	}
}

func TestStop_endsTheCache(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	sink := startSink(t)
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y",
		Main: relayTo(sink.Port, nil)})
	deliver(t, i, 50, "recipient@example.test")
	pid := pidOf(t, i)
	if err := i.Command("stop"); err != nil {
		t.Fatal(err)
	}
	waitForExit(t, pid)
	wantNoComplaints(t, i)
}

func TestMail_overLMTP(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	sink := startSink(t, "-L")
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: map[string]string{
		"default_transport":                  fmt.Sprintf("lmtp:inet:[127.0.0.1]:%d", sink.Port),
		"lmtp_connection_cache_destinations": "127.0.0.1",
		"lmtp_connection_cache_time_limit":   "5s",
	}})
	deliver(t, i, 400, "recipient@example.test")
	wantServedFromCache(t, i, 400)
}

// TestMail_cacheOnDemand has the default configuration: connections to one destination
// are cached while there is much mail for it.
func TestMail_cacheOnDemand(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	sink := startSink(t)
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: map[string]string{
		"relayhost": fmt.Sprintf("[127.0.0.1]:%d", sink.Port),
	}})
	deliver(t, i, 500, "recipient@example.test")
	wantConnections(t, i, 500, 400)
	wantNoComplaints(t, i)
}

// TestMail_cachePerDestination caches connections to one of two destinations.
func TestMail_cachePerDestination(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	cached, other := startSinkOn(t, "127.0.0.2"), startSink(t)
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: map[string]string{
		"smtp_connection_cache_on_demand":    "no",
		"smtp_connection_cache_destinations": "127.0.0.2",
		"transport_maps": fmt.Sprintf(
			"inline:{ { cached.test = smtp:[127.0.0.2]:%d }, { other.test = smtp:[127.0.0.1]:%d } }",
			cached.Port, other.Port),
	}})
	deliver(t, i, 100, "recipient@cached.test")
	wantConnections(t, i, 100, 50)
	_, before := i.Sent()
	deliver(t, i, 100, "recipient@other.test")
	if _, after := i.Sent(); after-before != 100 {
		t.Errorf("%d connections for 100 messages to the other destination", after-before)
	}
	wantNoComplaints(t, i)
}

// newCertificate returns the path of a new file with a key and its certificate.
func newCertificate(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "certificate")
	if err := postfixtest.NewCertificate(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestMail_overTLS relays to a second Postfix, which wants TLS: what
// is cached is the connection to tlsproxy(8), which keeps the TLS session.
func TestMail_overTLS(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	certificate := newCertificate(t)
	sink := startSink(t)
	remote := startInstance(t, postfixtest.Config{Main: map[string]string{
		"relayhost":                    fmt.Sprintf("[127.0.0.1]:%d", sink.Port),
		"smtpd_tls_chain_files":        certificate,
		"smtpd_tls_security_level":     "encrypt",
		"smtpd_recipient_restrictions": "permit_mynetworks,reject",
	}})
	_, port, err := net.SplitHostPort(remote.SMTP)
	if err != nil {
		t.Fatal(err)
	}
	local := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: map[string]string{
		"relayhost":                          "[127.0.0.1]:" + port,
		"smtp_connection_cache_destinations": "127.0.0.1",
		"smtp_tls_security_level":            "encrypt",
		"smtp_tls_connection_reuse":          "yes",
		"smtp_tls_loglevel":                  "1",
	}})
	deliver(t, local, 400, "recipient@example.test")
	wantServedFromCache(t, local, 400)
	if n := len(local.Grep("TLS connection reused")); n < 300 {
		t.Errorf("%d of 400 TLS connections were reused", n)
	}
}
