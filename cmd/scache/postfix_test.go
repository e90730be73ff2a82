// SPDX-License-Identifier: EPL-2.0

// Tests with a real Postfix mail system around the daemon.

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"scache/internal/postfixtest"
)

// deliveryLimit bounds the time for any amount of mail in these tests.
const deliveryLimit = 3 * time.Minute

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

// deliver sends messages and waits until all have left the queue.
func deliver(t *testing.T, i *postfixtest.Instance, messages int, recipient string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deliveryLimit)
	defer cancel()
	if err := i.Send(ctx, messages, 10, recipient); err != nil {
		t.Fatal(err)
	}
	if err := i.WaitEmpty(ctx); err != nil {
		t.Fatal(err)
	}
}

// wantServedFromCache fails unless all messages were delivered, nine in ten
// over connections from the cache, and nobody had anything to complain about.
func wantServedFromCache(t *testing.T, i *postfixtest.Instance, messages int) {
	t.Helper()
	sent, reused := i.Grep("status=sent"), i.Grep("status=sent", "conn_use=")
	if len(sent) != messages || len(reused) < messages*9/10 {
		t.Errorf("%d of %d messages were sent, %d over cached connections", len(sent), messages, len(reused))
	}
	wantNoComplaints(t, i)
}

// harmless are warnings about the instance itself.
var harmless = regexp.MustCompile(`postfix-script\[.*symlink leaves directory|tlsproxy\[.*TLS server role is disabled`)

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

func TestMailThroughTheCache(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		chroot   string
		settings map[string]string
	}{
		"chroot":               {"y", nil},
		"no chroot":            {"n", nil},
		"relay service":        {"y", map[string]string{"relay_domains": "example.test", "relay_transport": "relay"}},
		"smtp service, forced": {"y", map[string]string{"default_transport": "smtp"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := startSink(t)
			i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: test.chroot, Main: relayTo(sink.Port, test.settings)})
			deliver(t, i, 500, "recipient@example.test")
			wantServedFromCache(t, i, 500)
			if _, messages := sink.Counts(); messages != 500 {
				t.Errorf("%d messages have arrived", messages)
			}
			if test.settings["relay_transport"] != "" && len(i.Grep("postfix/relay/smtp[", "conn_use=")) == 0 {
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
	entries, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range entries {
		if target, _ := os.Readlink(exe); target == filepath.Join(i.Dir, "libexec/scache-go/scache") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(exe)))
			return pid
		}
	}
	t.Fatal("the cache does not run")
	return 0
}

func TestSyslogFromTheJail(t *testing.T) {
	postfixtest.NeedPostfix(t)
	if _, err := os.Lstat("/dev/log"); err == nil {
		t.Log("there is a /dev/log: looking at the mail only")
	} else {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "/dev/log", Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		os.Chmod("/dev/log", 0o666)
		lines := collect(conn)
		defer func() {
			conn.Close()
			os.Remove("/dev/log")
			for _, line := range <-lines {
				if regexp.MustCompile(`^<22>.* postfix/scache\[\d+\]: statistics: domain lookup hits=`).MatchString(line) {
					return
				}
			}
			t.Error("no statistics in syslog")
		}()
	}
	sink := startSink(t)
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Syslog: true, Main: relayTo(sink.Port, nil)})
	deliver(t, i, 100, "recipient@example.test")
	if connections, messages := sink.Counts(); messages != 100 || connections > 50 {
		t.Errorf("%d messages over %d connections", messages, connections)
	}
	pid := pidOf(t, i)
	if err := i.Command("reload"); err != nil {
		t.Fatal(err)
	}
	waitForExit(t, pid)
}

// collect reads datagrams until the socket is closed.
func collect(conn *net.UnixConn) <-chan []string {
	result := make(chan []string, 1)
	go func() {
		var lines []string
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
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

func TestReloadDuringDelivery(t *testing.T) {
	t.Parallel()
	sink := startSink(t)
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: relayTo(sink.Port, nil)})
	var reloads sync.WaitGroup
	stop := make(chan struct{})
	reloads.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(300 * time.Millisecond):
				if err := i.Command("reload"); err != nil {
					t.Error(err)
				}
			}
		}
	})
	deliver(t, i, 1500, "recipient@example.test")
	close(stop)
	reloads.Wait()
	if sent := len(i.Grep("status=sent")); sent != 1500 {
		t.Errorf("%d messages were sent", sent)
	}
	for _, line := range i.Grep("scache[", "]: warning: ") {
		t.Error(line)
	}
	for _, line := range i.Grep("master[", "scache", "warning: ") {
		t.Error(line)
	}
}

func TestStopEndsTheCache(t *testing.T) {
	t.Parallel()
	sink := startSink(t)
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: relayTo(sink.Port, nil)})
	deliver(t, i, 50, "recipient@example.test")
	pid := pidOf(t, i)
	if err := i.Command("stop"); err != nil {
		t.Fatal(err)
	}
	waitForExit(t, pid)
	wantNoComplaints(t, i)
}

func TestLMTPThroughTheCache(t *testing.T) {
	t.Parallel()
	sink := startSink(t, "-L")
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: map[string]string{
		"default_transport":                  fmt.Sprintf("lmtp:inet:[127.0.0.1]:%d", sink.Port),
		"lmtp_connection_cache_destinations": "127.0.0.1",
		"lmtp_connection_cache_time_limit":   "5s",
	}})
	deliver(t, i, 200, "recipient@example.test")
	wantServedFromCache(t, i, 200)
}

// TestOnDemand has the default configuration: connections to one destination
// are cached while there is much mail for it.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	sink := startSink(t)
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: map[string]string{
		"relayhost": fmt.Sprintf("[127.0.0.1]:%d", sink.Port),
	}})
	deliver(t, i, 500, "recipient@example.test")
	wantNoComplaints(t, i)
	if connections, messages := sink.Counts(); messages != 500 || connections > 250 {
		t.Errorf("%d messages over %d connections", messages, connections)
	}
}

// TestPerDestination caches connections to one of two destinations.
func TestPerDestination(t *testing.T) {
	t.Parallel()
	cached, other := startSinkOn(t, "127.0.0.2"), startSink(t)
	i := startInstance(t, postfixtest.Config{Scache: binary, Chroot: "y", Main: map[string]string{
		"smtp_connection_cache_on_demand":    "no",
		"smtp_connection_cache_destinations": "127.0.0.2",
		"transport_maps": fmt.Sprintf("inline:{ { cached.test = smtp:[127.0.0.2]:%d }, { other.test = smtp:[127.0.0.1]:%d } }",
			cached.Port, other.Port),
	}})
	deliver(t, i, 100, "recipient@cached.test")
	deliver(t, i, 100, "recipient@other.test")
	if connections, messages := cached.Counts(); messages != 100 || connections > 50 {
		t.Errorf("cached: %d messages over %d connections", messages, connections)
	}
	if connections, messages := other.Counts(); messages != 100 || connections != 100 {
		t.Errorf("other: %d messages over %d connections", messages, connections)
	}
	wantNoComplaints(t, i)
}

// TestTLSConnectionsAreReused relays to a second Postfix, which wants TLS: what
// is cached is the connection to tlsproxy(8), which keeps the TLS session.
func TestTLSConnectionsAreReused(t *testing.T) {
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
	deliver(t, local, 200, "recipient@example.test")
	wantServedFromCache(t, local, 200)
	if n := len(local.Grep("TLS connection reused")); n < 150 {
		t.Errorf("%d of 200 TLS connections were reused", n)
	}
}

// newCertificate returns a file with a throw-away key and its certificate.
func newCertificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "scache.test"},
		NotAfter:     time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})...)
	path := filepath.Join(t.TempDir(), "chain.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
