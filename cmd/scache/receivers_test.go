// SPDX-License-Identifier: EPL-2.0

// Mail to receivers that limit connections, delivered by a real Postfix.

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// limitedMail is mail to domains of one receiver that limits connections.
type limitedMail struct {
	receiver   postfixtest.ReceiverConfig
	members    string // of the receiver in our configuration; its addresses if empty
	limits     string // in our configuration
	messages   int
	domains    int
	nexthop    string            // of domain %d at port %d, if not the usual one
	transports []string          // that the domains use in turns, if not smtp alone
	main       map[string]string // more of main.cf
	reload     time.Duration     // interval of reloads, or 0
	scache     string            // binary, if not ours
	master     string            // more of master.cf
}

// start starts a receiver.
func (m *limitedMail) start(t *testing.T) *postfixtest.Receiver {
	t.Helper()
	if len(m.receiver.Hosts) == 0 {
		m.receiver.Hosts = []string{"127.0.0.9"}
	}
	r, err := postfixtest.StartReceiver(m.receiver)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// config returns the configuration of an instance that delivers the mail.
func (m *limitedMail) config(port int) postfixtest.Config {
	hosts, transports := map[string][]string{}, ""
	names := m.transports
	if len(names) == 0 {
		names = []string{"smtp"}
	}
	nexthop := cmp.Or(m.nexthop, "[d%d.test]:%d")
	for d := range m.domains {
		hosts[fmt.Sprintf("d%d.test", d)] = m.receiver.Hosts
		transports += fmt.Sprintf(" { d%d.test = %s:%s }", d, names[d%len(names)],
			fmt.Sprintf(nexthop, d, port))
	}
	members := cmp.Or(m.members, strings.Join(m.receiver.Hosts, " "))
	// Servers of other tests do not have the same receiver.
	receiver := fmt.Sprintf("{ test%d, %s, %s }", port, members, m.limits)
	main := map[string]string{
		"connection_cache_receivers":            receiver,
		"connection_cache_protocol_timeout":     "60s",
		"smtp_connection_cache_destinations":    "static:all",
		"default_process_limit":                 "100",
		"default_destination_concurrency_limit": "20",
		"transport_maps":                        "inline:{" + transports + " }",
	}
	maps.Copy(main, m.main)
	return postfixtest.Config{
		Scache: cmp.Or(m.scache, binary), Chroot: "y", Main: main, Master: m.master, Hosts: hosts,
	}
}

// deliver delivers the mail by a new instance, and returns the time it took.
func (m *limitedMail) deliver(t *testing.T, port int) (*postfixtest.Instance, time.Duration) {
	t.Helper()
	i := startInstance(t, m.config(port))
	return i, m.deliverBy(t, i)
}

func (m *limitedMail) deliverBy(t *testing.T, i *postfixtest.Instance) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	start := time.Now()
	done := make(chan error, 1)
	go func() { done <- m.send(ctx, i) }()
	var tick <-chan time.Time
	if m.reload > 0 {
		ticker := time.NewTicker(m.reload)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return time.Since(start)
		case <-tick:
			if err := i.Command("reload"); err != nil {
				cancel()
				t.Fatal(err, <-done)
			}
		}
	}
}

// send sends the messages to all domains at once.
func (m *limitedMail) send(ctx context.Context, i *postfixtest.Instance) error {
	errs := make([]error, m.domains)
	var sending sync.WaitGroup
	for d := range m.domains {
		n := m.messages / m.domains
		if d < m.messages%m.domains {
			n++
		}
		sending.Go(func() { errs[d] = i.Send(ctx, n, 2, fmt.Sprintf("recipient@d%d.test", d)) })
	}
	sending.Wait()
	return errors.Join(errors.Join(errs...), i.WaitSent(ctx, m.messages))
}

// scaled returns a number of messages, or more of them where SCALE says so: the table in the
// manual page comes from runs with SCALE=7.
func scaled(t *testing.T, n int) int {
	if text := os.Getenv("SCALE"); text != "" {
		scale, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n * scale
	}
	return n
}

// far is a receiver that allows four connections and refuses more.
var far = postfixtest.ReceiverConfig{
	MaxConnections: 4, RoundTrip: 20 * time.Millisecond, MessageTime: 70 * time.Millisecond,
}

func at(c postfixtest.ReceiverConfig, hosts ...string) postfixtest.ReceiverConfig {
	c.Hosts = hosts
	return c
}

func withTLS(c postfixtest.ReceiverConfig) postfixtest.ReceiverConfig {
	c.TLS = true
	return c
}

// TestReceivers_limitConnections delivers to domains of a receiver in many ways. No connection
// may be refused, and no mail deferred.
func TestReceivers_limitConnections(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	slow := far
	slow.MessageTime = 250 * time.Millisecond
	sasl := map[string]string{
		"smtp_sasl_auth_enable": "yes",
		"smtp_sasl_password_maps": "inline:" +
			"{ { d0.test = user:pass } { d1.test = user:pass } { d2.test = user:pass } }",
		"smtp_sasl_security_options": "",
	}
	tls := map[string]string{"smtp_tls_security_level": "encrypt", "smtp_tls_connection_reuse": "yes"}
	for name, m := range map[string]limitedMail{
		"plain":  {receiver: far, domains: 20},
		"reload": {receiver: far, domains: 20, reload: time.Second},
		"slow": {receiver: slow, domains: 20,
			main: map[string]string{"default_process_limit": "60"}},
		"two addresses": {receiver: at(far, "127.0.0.9", "127.0.0.10"), domains: 10},
		"IPv6": {receiver: at(far, "::1"), domains: 10,
			main: map[string]string{"inet_protocols": "all"}},
		"two transports": {receiver: far, domains: 10, transports: []string{"smtp", "relay"},
			main: map[string]string{"relay_connection_cache_destinations": "static:all"}},
		"by name": {receiver: far, domains: 10, members: ".test"},
		"SASL":    {receiver: far, domains: 3, main: sasl},
		"TLS":     {receiver: withTLS(far), domains: 10, main: tls},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m.limits, m.messages = "connections=4", scaled(t, 60)
			r := m.start(t)
			i, took := m.deliver(t, r.Port)
			m.wantAllDelivered(t, i, r, took)
		})
	}
}

// TestReceivers_twoInstances has two mail systems that share a receiver, and begin at once. New
// connections are frequent, because each carries two messages only.
func TestReceivers_twoInstances(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for name, reload := range map[string]time.Duration{"no reload": 0, "reload": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := limitedMail{
				receiver: far, limits: "connections=4, messages=2", messages: scaled(t, 60), domains: 10,
				reload: reload,
			}
			r := m.start(t)
			instances := []*postfixtest.Instance{
				startInstance(t, m.config(r.Port)), startInstance(t, m.config(r.Port)),
			}
			var delivering sync.WaitGroup
			for _, i := range instances {
				delivering.Go(func() { m.deliverBy(t, i) })
			}
			delivering.Wait()
			for _, i := range instances {
				t.Logf("%+v", receiverStats(t, i))
				wantNoneDeferred(t, i)
				m.wantNoWarnings(t, i)
			}
			if s := r.Stats(); s.Messages != 2*m.messages || s.Refused != 0 || s.MaxOpen > 4 {
				t.Errorf("got %+v, want %d messages, at most 4 connections", s, 2*m.messages)
			}
		})
	}
}

// TestReceivers_otherLimits has a receiver that limits new connections and messages over
// each.
func TestReceivers_otherLimits(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for name, reload := range map[string]time.Duration{"no reload": 0, "reload": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const period = time.Second
			m := limitedMail{
				receiver: postfixtest.ReceiverConfig{MaxNew: 10, NewPeriod: period, MaxMessages: 5},
				limits:   "new=10/1s, messages=5", messages: scaled(t, 200), domains: 20, reload: reload,
			}
			r := m.start(t)
			i, took := m.deliver(t, r.Port)
			m.wantAllDelivered(t, i, r, took)
			s := r.Stats()
			if s.MostMessages > 5 || r.MaxNew(period) > 10 || s.HungUp > 0 {
				t.Errorf("got %d messages over one connection, %d new ones in %v, want 5, 10",
					s.MostMessages, r.MaxNew(period), period)
			}
		})
	}
}

// TestReceivers_idle has a receiver that wants no idle connections, or for a short time.
func TestReceivers_idle(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const limit = 5 * time.Second // half of what agents ask for; the machine may be slow
	for _, limits := range []string{"idle=0", "time=1s"} {
		t.Run(limits, func(t *testing.T) {
			t.Parallel()
			m := limitedMail{limits: limits, messages: 100, domains: 5, main: map[string]string{
				"connection_cache_ttl_limit": "10s", "smtp_connection_cache_time_limit": "10s",
			}}
			r := m.start(t)
			i, took := m.deliver(t, r.Port)
			m.wantAllDelivered(t, i, r, took)
			testenv.Eventually(t, "all connections are closed", func() bool { return r.Stats().Open == 0 })
			if s := r.Stats(); s.LongestIdle > limit {
				t.Errorf("got a connection that was idle for %v, want at most %v", s.LongestIdle, limit)
			}
		})
	}
}

// TestReceivers_withoutKernel runs where netlink sockets are refused.
func TestReceivers_withoutKernel(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	postfixtest.NeedPostfix(t)
	wrapper := filepath.Join(t.TempDir(), "withoutnetlink")
	if err := postfixtest.Build(wrapper, "scache/internal/postfixtest/withoutnetlink"); err != nil {
		t.Fatal(err)
	}
	for name, reload := range map[string]time.Duration{"no reload": 0, "reload": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := limitedMail{
				receiver: far, limits: "connections=4", messages: scaled(t, 60), domains: 20,
				reload: reload, scache: wrapper,
			}
			r := m.start(t)
			i, err := postfixtest.NewInstance(m.config(r.Port))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { i.Close() })
			real, err := os.ReadFile(binary)
			if err == nil {
				path := filepath.Join(i.Dir, "libexec/scache-go/scache.real")
				err = testenv.WriteProgram(path, string(real))
			}
			if err == nil {
				err = i.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			took := m.deliverBy(t, i)
			// Each process warns once.
			n := len(i.Grep("warning: connections to receivers are estimated"))
			if n == 0 || n > 1 && reload == 0 {
				t.Errorf("got %d warnings, want 1 of each process", n)
			}
			m.wantDelivered(t, i, r, took)
			testenv.Eventually(t, "the operator is told that connections are estimated",
				func() bool { return receiverStats(t, i).Estimate })
		})
	}
}

// TestReceivers_realReceiver has smtpd(8) limit the connections, and wants TLS.
func TestReceivers_realReceiver(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	certificate := newCertificate(t)
	sink := startSink(t)
	remote := startInstance(t, postfixtest.Config{Main: map[string]string{
		"relayhost":                           fmt.Sprintf("[127.0.0.1]:%d", sink.Port),
		"smtpd_client_connection_count_limit": "4",
		"smtpd_client_event_limit_exceptions": "",
		"smtpd_tls_chain_files":               certificate,
		"smtpd_tls_security_level":            "encrypt",
	}})
	_, port, _ := net.SplitHostPort(remote.SMTP)
	n, _ := strconv.Atoi(port)
	m := limitedMail{
		limits: "connections=4", messages: scaled(t, 60), domains: 20,
		main: map[string]string{
			"smtp_tls_security_level": "encrypt", "smtp_tls_connection_reuse": "yes",
		},
	}
	m.receiver.Hosts = []string{"127.0.0.1"}
	i, took := m.deliver(t, n)
	t.Logf("%v, %+v", took, receiverStats(t, i))
	if refused := remote.Grep("Connection concurrency limit exceeded"); len(refused) > 0 {
		t.Errorf("got %d connections refused, want none", len(refused))
	}
	if deferred := i.Grep("status=deferred"); len(deferred) > 0 {
		t.Errorf("got %d times deferred, want none: %s", len(deferred), deferred[0])
	}
	wantNoComplaints(t, i)
}

// A fullReceiver is one that allows a single connection, which this process has.
type fullReceiver struct {
	*postfixtest.Master
	label  string
	open   net.Conn
	remote net.Conn // its other end
}

// hangUp ends the connection at both ends: until the receiver has closed it, it counts.
func (f *fullReceiver) hangUp() {
	f.open.Close()
	f.remote.Close()
}

func startFullReceiver(t *testing.T) *fullReceiver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	remote, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); remote.Close() })
	m := startMaster(t, binary, "connection_cache_receivers = { one, 127.0.0.9, connections=1 }\n"+
		"connection_cache_protocol_timeout = 60s\nconnection_cache_ttl_limit = 1h\nmax_idle = 1h")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return &fullReceiver{m, "smtp\n127.0.0.9\n" + port + "\n0\n", conn, remote}
}

// find asks for a connection, and returns the client and the answer, which comes later.
func (f *fullReceiver) find(t *testing.T) (*client.Client, chan client.Found) {
	t.Helper()
	c, answer := dial(t, f.Master), make(chan client.Found, 1)
	go func() {
		defer close(answer)
		if found, err := c.FindEndpoint(f.label); err == nil {
			answer <- found
		}
	}()
	return c, answer
}

func (f *fullReceiver) wantWaiting(t *testing.T, n int64) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprintf("%d clients wait", n), func() bool {
		all, err := askReceivers(f.Socket)
		return err == nil && len(all) == 1 && all[0].Waiting == n
	})
}

// askReceivers asks a server for its receivers.
func askReceivers(socket string) (all []control.Receiver, err error) {
	err = client.Ask(socket, longWait, func(c *client.Client) (err error) {
		all, err = c.Receivers()
		return err
	})
	return all, err
}

// TestReceivers_clientGone has clients wait in line. One hangs up, and the others keep their
// places over a reload.
func TestReceivers_clientGone(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	f := startFullReceiver(t)
	first, gone := f.find(t)
	f.wantWaiting(t, 1)
	_, second := f.find(t)
	f.wantWaiting(t, 2)
	first.Close()
	f.wantWaiting(t, 1)
	if _, answered := <-gone; answered {
		t.Error("a client that has hung up was answered")
	}
	replace(t, f.Master)
	f.wantWaiting(t, 1)
	_, third := f.find(t)
	f.wantWaiting(t, 2)
	f.hangUp()
	select {
	case found := <-second:
		if found.Code != client.NotFound {
			t.Errorf("got status %d, want %d", found.Code, client.NotFound)
		}
	case <-third:
		t.Error("the third client was answered before the second one")
	}
	// The second one does not connect, so that its turn goes to the third one.
	if found := <-third; found.Code != client.NotFound {
		t.Errorf("got status %d, want %d", found.Code, client.NotFound)
	}
	f.wantWaiting(t, 0)
	wantNoWarnings(t, f.Master)
}

// TestReceivers_reloadChangesLimits has a client wait, and a reload give room to it.
func TestReceivers_reloadChangesLimits(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for name, value := range map[string]string{
		"raised":         "{ one, 127.0.0.9, connections=2 }",
		"removed":        "",
		"other receiver": "{ other, 192.0.2.0/24, connections=1 }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFullReceiver(t)
			_, answer := f.find(t)
			f.wantWaiting(t, 1)
			f.Args = append(f.Args, "-o", "connection_cache_receivers="+value)
			replace(t, f.Master)
			select {
			case found := <-answer:
				if found.Code != client.NotFound {
					t.Errorf("got status %d, want %d", found.Code, client.NotFound)
				}
			case <-time.After(wantAtOnce):
				t.Error("the client still waits")
			}
			wantNoWarnings(t, f.Master)
		})
	}
}

// TestReceivers_flush has a client wait, and an operator flush the cache: the client waits on,
// for the next session.
func TestReceivers_flush(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	f := startFullReceiver(t)
	_, answer := f.find(t)
	f.wantWaiting(t, 1)
	if _, err := dial(t, f.Master).FlushAll(); err != nil {
		t.Fatal(err)
	}
	f.wantWaiting(t, 1)
	saveSession(t, dial(t, f.Master), 3600, f.label, "p")
	if found := <-answer; found.Code != client.OK || found.Property != "p" {
		t.Errorf("got %+v, want a session", found)
	}
}

// TestReceivers_sessionForWaitingClient has a client wait, and another one save a session.
func TestReceivers_sessionForWaitingClient(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	f := startFullReceiver(t)
	_, answer := f.find(t)
	f.wantWaiting(t, 1)
	replace(t, f.Master)
	f.wantWaiting(t, 1)
	saveSession(t, dial(t, f.Master), 3600, f.label, "p")
	if found := <-answer; found.Code != client.OK || found.Property != "p" {
		t.Errorf("got %+v, want a session", found)
	}
	f.wantWaiting(t, 0)
	wantNoWarnings(t, f.Master)
}

// TestReceivers_pipelined has a client that sends two requests at once.
func TestReceivers_pipelined(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	f := startFullReceiver(t)
	c := dial(t, f.Master)
	request := list("request", "find_endp", "label", f.label)
	if _, err := c.Conn.Write([]byte(request + request)); err != nil {
		t.Fatal(err)
	}
	f.wantWaiting(t, 1)
	f.hangUp()
	want := list("status", "2", "property", "")
	wantBytes(t, c, want+want)
	f.wantWaiting(t, 0)
}

// receiverStats returns what the server of an instance tells about its first receiver.
func receiverStats(t *testing.T, i *postfixtest.Instance) (r control.Receiver) {
	t.Helper()
	all, err := askReceivers(filepath.Join(i.Dir, "queue/private/scache"))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) > 0 {
		r = all[0]
	}
	return r
}

// wantAllDelivered fails unless all messages have arrived, and no connection was refused.
func (m *limitedMail) wantAllDelivered(
	t *testing.T, i *postfixtest.Instance, r *postfixtest.Receiver, took time.Duration,
) {
	t.Helper()
	m.wantDelivered(t, i, r, took)
	m.wantNoWarnings(t, i)
}

// wantNoWarnings wants none of the server. After a reload, Postfix itself may complain.
func (m *limitedMail) wantNoWarnings(t *testing.T, i *postfixtest.Instance) {
	t.Helper()
	if m.reload == 0 {
		wantNoComplaints(t, i)
		return
	}
	if warnings := i.Grep("/scache[", ": warning: "); len(warnings) > 0 {
		t.Errorf("got %q, want no warnings", warnings)
	}
}

// wantDelivered is the same, but lets the server warn.
func (m *limitedMail) wantDelivered(
	t *testing.T, i *postfixtest.Instance, r *postfixtest.Receiver, took time.Duration,
) {
	t.Helper()
	s := r.Stats()
	t.Logf("%v, %+v\n%+v", took, s, receiverStats(t, i))
	if s.Messages != m.messages || s.Refused != 0 {
		t.Errorf("got %d messages, %d connections refused, want %d, 0", s.Messages, s.Refused, m.messages)
	}
	wantNoneDeferred(t, i)
}

func wantNoneDeferred(t *testing.T, i *postfixtest.Instance) {
	t.Helper()
	if deferred := i.Grep("status=deferred"); len(deferred) > 0 {
		t.Errorf("got %d times deferred, want none: %s", len(deferred), deferred[0])
	}
}
