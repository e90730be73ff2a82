// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"scache/internal/testenv"
)

func startReceiver(t *testing.T, c ReceiverConfig) *Receiver {
	t.Helper()
	r, err := StartReceiver(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// A caller is a mail client for tests.
type caller struct {
	net.Conn
	in *bufio.Reader
}

func call(t *testing.T, r *Receiver, host string) *caller {
	t.Helper()
	return callFrom(t, r, host, nil)
}

func callFrom(t *testing.T, r *Receiver, host string, from net.Addr) *caller {
	t.Helper()
	dialer := net.Dialer{LocalAddr: from}
	conn, err := dialer.Dial("tcp", net.JoinHostPort(host, strconv.Itoa(r.Port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return &caller{conn, bufio.NewReader(conn)}
}

// want reads a reply, the last line of it, and compares its code.
func (c *caller) want(t *testing.T, code string) {
	t.Helper()
	for {
		line, err := c.in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, code) {
			t.Fatalf("got %q, %v, want %s", line, err, code)
		}
		if line[3] == ' ' {
			return
		}
	}
}

func (c *caller) say(t *testing.T, line, code string) {
	t.Helper()
	io.WriteString(c, line+"\r\n")
	c.want(t, code)
}

func (c *caller) wantEnd(t *testing.T) {
	t.Helper()
	if line, err := c.in.ReadString('\n'); err != io.EOF {
		t.Errorf("got %q, %v, want the end of the connection", line, err)
	}
}

// send sends a message, all commands in one piece as PIPELINING allows.
func (c *caller) send(t *testing.T) {
	t.Helper()
	io.WriteString(c, "MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
	c.want(t, "250")
	c.want(t, "250")
	c.want(t, "354")
	c.say(t, "Subject: x\r\n\r\n..\r\n.", "250")
}

// wantStats compares all but the times.
func wantStats(t *testing.T, got, want ReceiverStats) {
	t.Helper()
	got.LongestIdle = 0
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestReceiver_countsWhatItsClientsDo(t *testing.T) {
	t.Parallel()
	r := startReceiver(t, ReceiverConfig{})
	a, b := call(t, r, "127.0.0.1"), call(t, r, "127.0.0.1")
	for _, c := range []*caller{a, b} {
		c.want(t, "220")
		c.say(t, "EHLO client.test", "250")
	}
	a.send(t)
	a.say(t, "RSET", "250")
	a.send(t)
	b.send(t)
	b.say(t, "HELP", "502")
	a.say(t, "QUIT", "221")
	a.wantEnd(t)
	a.Close()
	call(t, r, "127.0.0.1").want(t, "220") // the receiver has noticed that a has gone
	wantStats(t, r.Stats(), ReceiverStats{
		Open: 2, MaxOpen: 2, Connections: 3, Quit: 1, Messages: 3, MostMessages: 2,
	})
}

func TestReceiver_limitsConnections(t *testing.T) {
	t.Parallel()
	r := startReceiver(t, ReceiverConfig{
		Hosts: []string{"127.0.0.1", "127.0.0.2"}, MaxConnections: 2, Refusal: "451 4.7.0 later",
	})
	first := call(t, r, "127.0.0.1")
	first.want(t, "220")
	call(t, r, "127.0.0.2").want(t, "220")
	refused := call(t, r, "127.0.0.2")
	refused.want(t, "451")
	refused.wantEnd(t)
	first.Close() // which makes room at once
	call(t, r, "127.0.0.2").want(t, "220")
	wantStats(t, r.Stats(), ReceiverStats{Open: 2, MaxOpen: 2, Connections: 3, Refused: 1})
	wantStats(t, r.StatsAt("127.0.0.1"), ReceiverStats{MaxOpen: 1, Connections: 1})
	wantStats(t, r.StatsAt("127.0.0.2"),
		ReceiverStats{Open: 2, MaxOpen: 2, Connections: 2, Refused: 1})
	wantStats(t, r.StatsAt("127.0.0.3"), ReceiverStats{})
}

func TestReceiver_limitsClients(t *testing.T) {
	t.Parallel()
	r := startReceiver(t, ReceiverConfig{MaxPerClient: 1})
	call(t, r, "127.0.0.1").want(t, "220")
	call(t, r, "127.0.0.1").want(t, "421")
	callFrom(t, r, "127.0.0.1", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}).want(t, "220")
}

func TestReceiver_limitsNewConnections(t *testing.T) {
	t.Parallel()
	r := startReceiver(t, ReceiverConfig{MaxNew: 2, NewPeriod: time.Hour})
	call(t, r, "127.0.0.1").want(t, "220")
	call(t, r, "127.0.0.1").want(t, "220")
	call(t, r, "127.0.0.1").want(t, "421")
	if got := r.MaxNew(time.Hour); got != 3 {
		t.Errorf("got %d connections in an hour, want 3", got)
	}
	if got := r.MaxNew(time.Nanosecond); got != 1 {
		t.Errorf("got %d connections in a nanosecond, want 1", got)
	}
}

func TestReceiver_hangsUp(t *testing.T) {
	t.Parallel()
	r := startReceiver(t, ReceiverConfig{
		MaxMessages: 1, IdleLimit: 50 * time.Millisecond,
		Replies: map[string]string{"VRFY": "421 no", "NOOP": "450 no"},
	})
	idle := call(t, r, "127.0.0.1")
	idle.want(t, "220")
	idle.want(t, "421")
	idle.wantEnd(t)
	for _, last := range []string{"MAIL FROM:<a@example.test>", "VRFY"} {
		c := call(t, r, "127.0.0.1")
		c.want(t, "220")
		c.say(t, "NOOP", "450")
		c.send(t)
		c.say(t, last, "421")
		c.wantEnd(t)
	}
	if got := r.Stats(); got.HungUp != 3 || got.MostMessages != 1 {
		t.Errorf("got %+v, want 3 that were hung up on, with one message at most", got)
	}
}

func TestReceiver_measuresIdleTime(t *testing.T) {
	t.Parallel()
	const limit = 50 * time.Millisecond
	r := startReceiver(t, ReceiverConfig{IdleLimit: limit})
	c := call(t, r, "127.0.0.1")
	c.want(t, "220")
	c.send(t)
	c.want(t, "421")
	if got := r.Stats().LongestIdle; got < limit {
		t.Errorf("got %v, want %v at least", got, limit)
	}
	r = startReceiver(t, ReceiverConfig{IdleLimit: limit})
	c = call(t, r, "127.0.0.1")
	c.want(t, "220")
	c.want(t, "421") // no message came before
	if got := r.Stats().LongestIdle; got != 0 {
		t.Errorf("got %v, want 0", got)
	}
}

func TestReceiver_speaksIPv6(t *testing.T) {
	t.Parallel()
	r := startReceiver(t, ReceiverConfig{Hosts: []string{"::1", "127.0.0.1"}})
	call(t, r, "::1").want(t, "220")
	call(t, r, "127.0.0.1").want(t, "220")
	wantStats(t, r.StatsAt("::1"), ReceiverStats{Open: 1, MaxOpen: 1, Connections: 1})
	if want := "[::1]:" + strconv.Itoa(r.Port); r.Nexthop() != want {
		t.Errorf("got %s, want %s", r.Nexthop(), want)
	}
}

func TestReceiver_speaksTLS(t *testing.T) {
	t.Parallel()
	r := startReceiver(t, ReceiverConfig{TLS: true})
	c := call(t, r, "127.0.0.1")
	c.want(t, "220")
	c.say(t, "STARTTLS", "220")
	secure := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	c = &caller{secure, bufio.NewReader(secure)}
	c.say(t, "EHLO client.test", "250")
	c.send(t)
	c.say(t, "STARTTLS", "502")
	if got := r.Stats(); got.Handshakes != 1 || got.Messages != 1 {
		t.Errorf("got %+v, want one handshake and one message", got)
	}
	plain := startReceiver(t, ReceiverConfig{})
	c = call(t, plain, "127.0.0.1")
	c.want(t, "220")
	c.say(t, "STARTTLS", "502")
}

// TestReceiver_isFarAway counts round trips: two until the greeting, one for a command, one
// for commands in one piece, one for the message.
func TestReceiver_isFarAway(t *testing.T) {
	t.Parallel()
	const roundTrip, accepting = 20 * time.Millisecond, 30 * time.Millisecond
	r := startReceiver(t, ReceiverConfig{RoundTrip: roundTrip, MessageTime: accepting})
	begin := time.Now()
	c := call(t, r, "127.0.0.1")
	wantTime := func(what string, least time.Duration) {
		t.Helper()
		if d := time.Since(begin); d < least {
			t.Errorf("%s: got %v, want %v at least", what, d, least)
		}
		begin = time.Now()
	}
	c.want(t, "220")
	wantTime("greeting", 2*roundTrip)
	c.say(t, "EHLO client.test", "250")
	wantTime("EHLO", roundTrip)
	c.send(t)
	wantTime("message", 2*roundTrip+accepting)
	c.say(t, "QUIT", "221")
	wantTime("QUIT", roundTrip)
	c.wantEnd(t)
}

func TestReceiver_closesAllConnections(t *testing.T) {
	t.Parallel()
	r := startReceiver(t, ReceiverConfig{MessageTime: time.Hour})
	idle, busy := call(t, r, "127.0.0.1"), call(t, r, "127.0.0.1")
	idle.want(t, "220")
	busy.want(t, "220")
	io.WriteString(busy, "DATA\r\n")
	busy.want(t, "354")
	io.WriteString(busy, ".\r\n")
	r.Close()
	idle.wantEnd(t)
	// A child that is being started has a copy of the listening socket until it executes its
	// command.
	testenv.Eventually(t, "a receiver that is closed is not connected to", func() bool {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.Port)))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

func TestReceiver_isUnreachable(t *testing.T) {
	t.Parallel()
	r := startReceiver(t, ReceiverConfig{Hosts: []string{"127.0.0.1", "::1"}, Unreachable: true})
	for _, host := range []string{"127.0.0.1", "::1"} {
		address := net.JoinHostPort(host, strconv.Itoa(r.Port))
		conn, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err == nil {
			conn.Close()
		}
		if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
			t.Errorf("%s: got %v, want a timeout", address, err)
		}
	}
}

func TestStartReceiver_fails(t *testing.T) {
	t.Parallel()
	if r, err := StartReceiver(ReceiverConfig{Hosts: []string{"192.0.2.1"}}); err == nil {
		r.Close()
		t.Error("got a receiver at an address of another machine, want an error")
	}
}

func TestReceiver_port(t *testing.T) {
	t.Parallel()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	r := startReceiver(t, ReceiverConfig{Port: port})
	if r.Port != port {
		t.Errorf("got port %d, want %d", r.Port, port)
	}
	call(t, r, "127.0.0.1").want(t, "220")
	if second, err := StartReceiver(ReceiverConfig{Port: port}); err == nil {
		second.Close()
		t.Error("a port that is taken: got no error, want one")
	}
}

// TestBegunAt_isWhenTheClientConnected, however late the connection is accepted.
func TestBegunAt_isWhenTheClientConnected(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	connected := time.Now()
	const late, precision = 200 * time.Millisecond, 20 * time.Millisecond
	time.Sleep(late)
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := begunAt(conn.(*net.TCPConn)); got.Sub(connected) > precision {
		t.Errorf("got %v after the client has connected, want at most %v", got.Sub(connected), precision)
	}
}
