// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// A receiverSession is one connection of a receiver: SMTP, as far as Postfix speaks it.
type receiverSession struct {
	*Receiver
	host     netip.Addr
	conn     net.Conn // with delay and TLS, where they are configured
	in       *bufio.Reader
	out      *bufio.Writer
	secure   bool
	messages int
	last     time.Time // when a message was accepted, until the next command
}

// errEnd ends a session that is over.
var errEnd = errors.New("the session has ended")

func (r *Receiver) serve(conn *net.TCPConn, host netip.Addr) {
	far := newFarConn(conn, r.config.RoundTrip)
	s := &receiverSession{Receiver: r, host: host}
	s.use(far)
	r.pause(r.config.RoundTrip) // for TCP's own handshake
	s.reply("220 receiver.test ESMTP")
	for s.next() == nil {
	}
	s.out.Flush()
	far.Close()
}

func (s *receiverSession) use(conn net.Conn) {
	s.conn, s.in, s.out = conn, bufio.NewReader(conn), bufio.NewWriter(conn)
}

func (s *receiverSession) count(change func(*ReceiverStats)) { s.Receiver.count(s.host, change) }

func (s *receiverSession) reply(lines ...string) {
	fmt.Fprint(s.out, strings.Join(lines, "\r\n")+"\r\n")
}

// hangUp ends the session before its client does.
func (s *receiverSession) hangUp(reply string) error {
	s.count(func(stats *ReceiverStats) { stats.HungUp++ })
	s.reply(reply)
	return errEnd
}

// line reads a line. Replies are sent when the client waits for them.
func (s *receiverSession) line() (string, error) {
	if s.in.Buffered() == 0 {
		if err := s.out.Flush(); err != nil {
			return "", err
		}
	}
	if s.config.IdleLimit > 0 {
		s.conn.SetReadDeadline(time.Now().Add(s.config.IdleLimit))
	}
	line, err := s.in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// next reads a command and answers it.
func (s *receiverSession) next() error {
	line, err := s.line()
	if !s.last.IsZero() {
		idle := time.Since(s.last)
		s.count(func(stats *ReceiverStats) { stats.LongestIdle = max(stats.LongestIdle, idle) })
		s.last = time.Time{}
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return s.hangUp("421 4.4.2 timeout exceeded")
	case err != nil:
		return err
	}
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	if reply, replaced := s.config.Replies[verb]; replaced {
		if strings.HasPrefix(reply, "421") {
			return s.hangUp(reply)
		}
		s.reply(reply)
		return nil
	}
	return s.answer(verb)
}

func (s *receiverSession) answer(verb string) error {
	switch verb {
	case "EHLO":
		s.reply(s.features()...)
	case "STARTTLS":
		if s.tls == nil || s.secure {
			s.reply("502 5.5.1 not available")
			return nil
		}
		return s.startTLS()
	case "MAIL":
		if s.config.MaxMessages > 0 && s.messages >= s.config.MaxMessages {
			return s.hangUp("421 4.7.0 too many messages on this connection")
		}
		s.reply("250 2.1.0 sender accepted")
	case "RCPT":
		s.reply("250 2.1.5 recipient accepted")
	case "DATA":
		s.reply("354 end with a dot")
		return s.message()
	case "HELO", "RSET", "NOOP":
		s.reply("250 2.0.0 done")
	case "QUIT":
		s.count(func(stats *ReceiverStats) { stats.Quit++ })
		s.reply("221 2.0.0 goodbye")
		return errEnd
	default:
		s.reply("502 5.5.2 unknown command")
	}
	return nil
}

func (s *receiverSession) features() []string {
	features := []string{"250-receiver.test", "250-PIPELINING", "250-ENHANCEDSTATUSCODES"}
	if s.tls != nil && !s.secure {
		features = append(features, "250-STARTTLS")
	}
	return append(features, "250 8BITMIME")
}

func (s *receiverSession) startTLS() error {
	s.reply("220 2.0.0 ready for TLS")
	if err := s.out.Flush(); err != nil {
		return err
	}
	conn := tls.Server(s.conn, s.tls)
	if err := conn.Handshake(); err != nil {
		return err
	}
	s.count(func(stats *ReceiverStats) { stats.Handshakes++ })
	s.use(conn)
	s.secure = true
	return nil
}

// message reads a message up to the line with a dot.
func (s *receiverSession) message() error {
	for {
		line, err := s.line()
		if err != nil {
			return err
		}
		if line == "." {
			break
		}
	}
	s.pause(s.config.MessageTime)
	s.hold()
	s.messages++
	s.last = time.Now()
	s.count(func(stats *ReceiverStats) {
		stats.Messages++
		stats.MostMessages = max(stats.MostMessages, s.messages)
	})
	s.reply("250 2.0.0 message accepted")
	return nil
}

// A farConn is a connection to a client that is far away: everything that is written arrives
// later, in order, and so does the end of the connection.
type farConn struct {
	net.Conn
	delay   time.Duration
	pending chan delayed
	sent    chan struct{} // closed when all of it has been written
}

// A delayed is something that was written, and when it is to arrive.
type delayed struct {
	data []byte
	at   time.Time
}

func newFarConn(conn net.Conn, delay time.Duration) net.Conn {
	if delay == 0 {
		return conn
	}
	c := &farConn{conn, delay, make(chan delayed, 100), make(chan struct{})}
	go c.send()
	return c
}

func (c *farConn) send() {
	defer close(c.sent)
	for d := range c.pending {
		time.Sleep(time.Until(d.at))
		c.Conn.Write(d.data) // if the client has hung up, the next Read fails
	}
}

// Write takes a copy of p.
func (c *farConn) Write(p []byte) (int, error) {
	c.pending <- delayed{append([]byte(nil), p...), time.Now().Add(c.delay)}
	return len(p), nil
}

// Close waits until all that was written has arrived.
func (c *farConn) Close() error {
	close(c.pending)
	<-c.sent
	return c.Conn.Close()
}
