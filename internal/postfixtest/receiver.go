// SPDX-License-Identifier: EPL-2.0

// A mail server that behaves as its configuration says: it limits connections, hangs up, is
// slow or far away, wants TLS. It counts what its clients do.

package postfixtest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ReceiverConfig says how a receiver behaves. The zero value accepts all mail at once, over
// any number of connections to 127.0.0.1.
type ReceiverConfig struct {
	// Hosts are the addresses to listen at, IPv4 or IPv6. All get the same port.
	Hosts []string

	// Port is the port to listen at. Zero is one that is free.
	Port int

	// MaxConnections is how many connections may be open at once, over all of its
	// addresses, and MaxPerClient how many of one client address. Zero is no limit.
	MaxConnections, MaxPerClient int

	// MaxNew is how many connections may begin within NewPeriod. Zero is no limit.
	MaxNew    int
	NewPeriod time.Duration

	// Refusal is the greeting of a connection beyond a limit. After it, the receiver hangs up.
	// The default is a reply with code 421.
	Refusal string

	// MaxMessages is how many messages one connection may carry. The next MAIL command gets
	// a reply with code 421, and the receiver hangs up. Zero is no limit.
	MaxMessages int

	// IdleLimit is after how long without a command the receiver hangs up. Zero is never.
	IdleLimit time.Duration

	// RoundTrip is how far away the receiver is: everything that it sends arrives later by
	// this time, and the greeting by twice of it, because TCP's own handshake comes first.
	RoundTrip time.Duration

	// MessageTime is how long the receiver takes to accept a message after its last byte.
	MessageTime time.Duration

	// Hold delays the acceptance of messages until it is closed. Nil delays none.
	Hold <-chan struct{}

	// TLS offers STARTTLS, with a throw-away certificate.
	TLS bool

	// Unreachable answers no SYN, as a receiver behind a broken route does.
	Unreachable bool

	// Replies replaces the replies to commands, such as "MAIL". After one with code 421, the
	// receiver hangs up.
	Replies map[string]string
}

// A Receiver is a mail server in this process. Its methods are safe for concurrent use.
type Receiver struct {
	Port int

	config    ReceiverConfig
	tls       *tls.Config
	listeners []net.Listener
	serving   sync.WaitGroup
	closed    chan struct{}
	closing   sync.Once

	mu    sync.Mutex
	open  map[*net.TCPConn]netip.Addr // and the address that was connected to
	begun []time.Time                 // when each connection began, the refused ones included
	total ReceiverStats
	hosts map[netip.Addr]*ReceiverStats // by the address that was connected to
}

// ReceiverStats is what a receiver has seen so far.
type ReceiverStats struct {
	Open    int // connections that are open
	MaxOpen int // connections that were open at once, at most

	Connections int // that were greeted
	Refused     int // that were refused for a limit
	HungUp      int // that the receiver ended, because they were idle or had carried enough
	Quit        int // that the client ended with QUIT

	Handshakes   int // of TLS that were completed
	Messages     int // that were accepted
	MostMessages int // that one connection carried

	// LongestIdle is the longest time from a message to the next command on its connection, or
	// to its end.
	LongestIdle time.Duration
}

// StartReceiver starts a receiver on a free port.
func StartReceiver(c ReceiverConfig) (*Receiver, error) {
	r := &Receiver{
		config: c,
		closed: make(chan struct{}),
		open:   map[*net.TCPConn]netip.Addr{},
		hosts:  map[netip.Addr]*ReceiverStats{},
	}
	if len(c.Hosts) == 0 {
		r.config.Hosts = []string{"127.0.0.1"}
	}
	if c.Refusal == "" {
		r.config.Refusal = "421 4.7.0 too many connections"
	}
	if c.TLS {
		key, certificate, err := newCertificate()
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return nil, err
		}
		r.tls = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	for range 20 { // a port may be free at one address and taken at the next
		err := r.listen()
		if err == nil {
			break
		}
		r.closeListeners()
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, err
		}
	}
	if len(r.listeners) == 0 {
		return nil, fmt.Errorf("no port is free at all of %v", r.config.Hosts)
	}
	for _, l := range r.listeners {
		if !c.Unreachable {
			r.serving.Go(func() { r.accept(l) })
			continue
		}
		if err := r.block(l); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

// block makes a listener unreachable: with a full accept queue, the kernel ignores every SYN.
// One connection fills a queue of length zero.
func (r *Receiver) block(l net.Listener) error {
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) })
	if err != nil {
		return os.NewSyscallError("listen", err)
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	r.serving.Go(func() {
		<-r.closed
		conn.Close()
	})
	return nil
}

func (r *Receiver) listen() (err error) {
	if r.Port = r.config.Port; r.Port == 0 {
		if r.Port, err = FreePort(); err != nil {
			return err
		}
	}
	for _, host := range r.config.Hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(r.Port)))
		if err != nil {
			return err
		}
		r.listeners = append(r.listeners, l)
	}
	return nil
}

func (r *Receiver) closeListeners() {
	for _, l := range r.listeners {
		l.Close()
	}
	r.listeners = nil
}

// Nexthop returns the receiver's first address as a next-hop destination of Postfix.
func (r *Receiver) Nexthop() string { return r.NexthopAs(r.config.Hosts[0]) }

// NexthopAs returns the receiver as a next-hop destination by another name of it.
func (r *Receiver) NexthopAs(host string) string { return fmt.Sprintf("[%s]:%d", host, r.Port) }

// Close ends the receiver and all of its connections. A second Close does nothing more.
func (r *Receiver) Close() error {
	r.closing.Do(func() { close(r.closed) })
	for _, l := range r.listeners {
		l.Close()
	}
	r.mu.Lock()
	for conn := range r.open {
		conn.Close()
	}
	r.mu.Unlock()
	r.serving.Wait()
	return nil
}

// Stats returns what the receiver has seen at all of its addresses.
func (r *Receiver) Stats() ReceiverStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// StatsAt returns what the receiver has seen at one of its addresses.
func (r *Receiver) StatsAt(host string) ReceiverStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.hosts[netip.MustParseAddr(host)]; s != nil {
		return *s
	}
	return ReceiverStats{}
}

// MaxNew returns how many connections have begun within any period of this length, at most.
// Refused ones count.
func (r *Receiver) MaxNew(period time.Duration) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	most, first := 0, 0
	for last, at := range r.begun {
		for at.Sub(r.begun[first]) >= period {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// count changes the statistics of all addresses and of one.
func (r *Receiver) count(host netip.Addr, change func(*ReceiverStats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.countLocked(host, change)
}

func (r *Receiver) countLocked(host netip.Addr, change func(*ReceiverStats)) {
	if r.hosts[host] == nil {
		r.hosts[host] = &ReceiverStats{}
	}
	change(&r.total)
	change(r.hosts[host])
}

func (r *Receiver) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		tcp := conn.(*net.TCPConn)
		host := addrOf(tcp.LocalAddr())
		if !r.admit(tcp, host) {
			r.serving.Go(func() { r.refuse(tcp) })
			continue
		}
		r.serving.Go(func() {
			defer r.release(tcp, host)
			r.serve(tcp, host)
		})
	}
}

func addrOf(a net.Addr) netip.Addr { return a.(*net.TCPAddr).AddrPort().Addr().Unmap() }

// admit reports whether a new connection is within all limits, and counts it.
func (r *Receiver) admit(conn *net.TCPConn, host netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := begunAt(conn)
	i, _ := slices.BinarySearchFunc(r.begun, at, time.Time.Compare)
	r.begun = slices.Insert(r.begun, i, at)
	select {
	case <-r.closed:
		return false
	default:
	}
	r.reap()
	if r.full(conn) || r.tooFast(at) {
		r.countLocked(host, func(s *ReceiverStats) { s.Refused++ })
		return false
	}
	r.open[conn] = host
	r.countLocked(host, func(s *ReceiverStats) {
		s.Connections++
		s.Open++
		s.MaxOpen = max(s.MaxOpen, s.Open)
	})
	return true
}

// reap releases connections that their clients have closed, even if the end has not been
// read yet: they count no more.
func (r *Receiver) reap() {
	for conn, host := range r.open {
		if closedByPeer(conn) {
			delete(r.open, conn)
			r.countLocked(host, func(s *ReceiverStats) { s.Open-- })
		}
	}
}

// full reports whether there are as many connections as the limits allow.
func (r *Receiver) full(conn *net.TCPConn) bool {
	client, same := addrOf(conn.RemoteAddr()), 0
	for other := range r.open {
		if addrOf(other.RemoteAddr()) == client {
			same++
		}
	}
	return r.config.MaxConnections > 0 && len(r.open) >= r.config.MaxConnections ||
		r.config.MaxPerClient > 0 && same >= r.config.MaxPerClient
}

func closedByPeer(conn *net.TCPConn) (closed bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	if raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err != nil || info.State != unix.BPF_TCP_ESTABLISHED
	}) != nil {
		return true
	}
	return closed
}

// begunAt returns when a connection has begun that was accepted just now. That can be long ago
// where this process gets no processor time. The kernel knows: it received the last segment of
// the handshake then, and nothing since, as the client waits for the greeting.
func begunAt(conn *net.TCPConn) time.Time {
	at := time.Now()
	raw, err := conn.SyscallConn()
	if err != nil {
		return at
	}
	raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			at = at.Add(-time.Duration(info.Last_ack_recv) * time.Millisecond)
		}
	})
	return at
}

// tooFast reports whether too many connections have begun within the period before the one
// that has begun at this time.
func (r *Receiver) tooFast(at time.Time) bool {
	if r.config.MaxNew == 0 {
		return false
	}
	n := 0
	for _, begun := range r.begun {
		// The kernel counts milliseconds, so an earlier one can seem to be later.
		if at.Sub(begun) < r.config.NewPeriod {
			n++
		}
	}
	return n > r.config.MaxNew
}

// release counts a connection that has ended.
func (r *Receiver) release(conn *net.TCPConn, host netip.Addr) {
	conn.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, open := r.open[conn]; open {
		delete(r.open, conn)
		r.countLocked(host, func(s *ReceiverStats) { s.Open-- })
	}
}

func (r *Receiver) refuse(conn *net.TCPConn) {
	far := newFarConn(conn, r.config.RoundTrip)
	defer far.Close()
	r.pause(r.config.RoundTrip)
	fmt.Fprintf(far, "%s\r\n", r.config.Refusal)
}

// pause waits, unless the receiver is closed meanwhile.
func (r *Receiver) pause(d time.Duration) {
	if d == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.closed:
	}
}

func (r *Receiver) hold() {
	if r.config.Hold == nil {
		return
	}
	select {
	case <-r.config.Hold:
	case <-r.closed:
	}
}
