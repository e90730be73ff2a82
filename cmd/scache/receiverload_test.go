// SPDX-License-Identifier: EPL-2.0

// What limits of receivers cost: the receiver itself, and other mail.

package main

import (
	"context"
	"testing"
	"time"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// maxSlowdown bounds how much longer mail takes than in another run of the same test, on a
// machine that is busy. On one that is not, the times differ by less than a tenth.
const maxSlowdown = 1.5

// wantAsFast compares the times of two runs.
func wantAsFast(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	ratio := got.Seconds() / want.Seconds()
	t.Logf("%s: %.2f s and %.2f s: %.2f times", what, got.Seconds(), want.Seconds(), ratio)
	if ratio > maxSlowdown {
		t.Errorf("%s: got %v, want at most %v times %v", what, got, maxSlowdown, want)
	}
}

// TestReceivers_asFastAsTheConnections compares many agents that share four connections with a
// transport of four agents, each of which has a connection all the time.
func TestReceivers_asFastAsTheConnections(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	stock := stockBinary(t)
	for name, test := range map[string]struct {
		messageTime time.Duration
		processes   string
	}{
		"100 agents":               {far.MessageTime, "100"},
		"60 agents, slow receiver": {250 * time.Millisecond, "60"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := far
			c.MessageTime = test.messageTime
			m := limitedMail{receiver: c, limits: "connections=4", messages: scaled(t, 100), domains: 20,
				main: map[string]string{"default_process_limit": test.processes}}
			four := m
			four.scache, four.transports = stock, []string{"four"}
			four.master = "four unix - - y - 4 smtp\n"
			deliver := func(m *limitedMail) time.Duration {
				r := m.start(t)
				i, took := m.deliver(t, r.Port)
				if m.scache == "" {
					m.wantAllDelivered(t, i, r, took)
				}
				if s := r.Stats(); s.Messages != m.messages || s.Refused > 0 {
					t.Errorf("got %+v, want %d messages, and no connection refused", s, m.messages)
				}
				return took
			}
			want := deliver(&four)
			wantAsFast(t, "many agents, and four", deliver(&m), want)
		})
	}
}

// TestReceivers_besideOthers sends to a receiver that limits connections, and much more mail to
// one that does not. There are enough agents, so that the other mail takes no longer than with
// the stock server, where none of them waits.
func TestReceivers_besideOthers(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	deliver := func(scache string) time.Duration {
		other := postfixtest.ReceiverConfig{
			Hosts: []string{"127.0.0.12"}, RoundTrip: far.RoundTrip, MessageTime: far.MessageTime,
		}
		free, err := postfixtest.StartReceiver(other)
		if err != nil {
			t.Fatal(err)
		}
		defer free.Close()
		m := limitedMail{receiver: far, limits: "connections=4", messages: scaled(t, 100), domains: 20,
			scache: scache, main: map[string]string{
				"default_process_limit": "300",
				"relayhost":             free.Nexthop(),
			}}
		r := m.start(t)
		i := startInstance(t, m.config(r.Port))
		defer i.Close()
		ctx, cancel := context.WithTimeout(context.Background(), deliveryLimit)
		defer cancel()
		start, sent := time.Now(), make(chan error, 1)
		go func() { sent <- m.send(ctx, i) }()
		n := scaled(t, 250)
		if err := i.Send(ctx, n, 10, "recipient@other.test"); err != nil {
			t.Error(err)
		}
		testenv.Eventually(t, "the other mail has arrived", func() bool { return free.Stats().Messages >= n })
		took := time.Since(start)
		if scache != "" {
			cancel() // the rest is deferred
			<-sent
			return took
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if err := i.WaitSent(ctx, m.messages+n); err != nil {
			t.Error(err)
		}
		m.wantAllDelivered(t, i, r, time.Since(start))
		return took
	}
	stock := deliver(stockBinary(t))
	wantAsFast(t, "other mail with limits and with stock", deliver(""), stock)
}

// stockBinary returns the server of the installed Postfix.
func stockBinary(t *testing.T) string {
	t.Helper()
	postfixtest.NeedPostfix(t)
	stock, err := postfixtest.Stock()
	if err != nil {
		t.Fatal(err)
	}
	return stock
}
