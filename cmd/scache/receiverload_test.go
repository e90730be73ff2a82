// SPDX-License-Identifier: EPL-2.0

// What limits of receivers cost: the receiver itself, and other mail.

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// maxSlowdown bounds how much longer something takes than in another run of the same test, on
// a machine that is busy. On one that is not, mail takes a tenth longer at most.
const maxSlowdown = 2.0

// wantAsFast compares the times of two runs. Where one takes too long, both run again, as the
// machine may have been busy with other things: up to three times in all.
func wantAsFast(t *testing.T, what string, runs func() (got, want time.Duration)) {
	t.Helper()
	for left := 2; ; left-- {
		got, want := runs()
		ratio := got.Seconds() / want.Seconds()
		t.Logf("%s: %v and %v: %.2f times", what, got, want, ratio)
		switch {
		case ratio <= maxSlowdown, t.Failed():
			return
		case left == 0:
			t.Errorf("%s: got %v, want at most %v times %v", what, got, maxSlowdown, want)
			return
		}
	}
}

// atOnce makes two runs at the same time: what else keeps the machine busy delays both.
func atOnce(first, second func() time.Duration) (tookFirst, tookSecond time.Duration) {
	var both sync.WaitGroup
	both.Go(func() { tookFirst = first() })
	both.Go(func() { tookSecond = second() })
	both.Wait()
	return tookFirst, tookSecond
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
			four.receiver.Hosts = []string{"127.0.0.13"}
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
			wantAsFast(t, "many agents, and four", func() (got, want time.Duration) {
				return atOnce(func() time.Duration { return deliver(&m) },
					func() time.Duration { return deliver(&four) })
			})
		})
	}
}

// TestReceivers_besideOthers sends to a receiver that limits connections, and then much more
// mail to one that does not. There are enough agents, so that the other mail takes no longer
// than with the stock server, where none of them waits. The time to start the agents that wait
// does not count: the first receiver accepts nothing until then.
func TestReceivers_besideOthers(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	deliver := func(scache string, hosts ...string) time.Duration {
		other := postfixtest.ReceiverConfig{
			Hosts: hosts[1:], RoundTrip: far.RoundTrip, MessageTime: far.MessageTime,
		}
		free, err := postfixtest.StartReceiver(other)
		if err != nil {
			t.Fatal(err)
		}
		defer free.Close()
		hold := make(chan struct{})
		release := sync.OnceFunc(func() { close(hold) })
		defer release()
		limiting := at(far, hosts[0])
		limiting.Hold = hold
		m := limitedMail{receiver: limiting, limits: "connections=4",
			messages: scaled(t, 100), domains: 20, scache: scache, main: map[string]string{
				"default_process_limit": "300",
				"relayhost":             free.Nexthop(),
			}}
		r := m.start(t)
		i := startInstance(t, m.config(r.Port))
		defer i.Close()
		ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
		defer cancel()
		sent := make(chan error, 1)
		go func() { sent <- m.send(ctx, i) }()
		testenv.Eventually(t, "half of the agents wait, or mail is deferred", func() bool {
			if scache != "" {
				return len(i.Grep("status=deferred")) >= m.messages/2
			}
			return receiverStats(t, i).Waiting >= int64(m.messages/2)
		})
		release()
		start, n := time.Now(), scaled(t, 250)
		if err := i.Send(ctx, n, 10, "recipient@other.test"); err != nil {
			t.Error(err)
		}
		testenv.Eventually(t, "the other mail has arrived",
			func() bool { return free.Stats().Messages >= n })
		took := time.Since(start)
		if scache != "" {
			cancel()
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
	stock := stockBinary(t)
	wantAsFast(t, "other mail with limits and with stock", func() (got, want time.Duration) {
		return atOnce(func() time.Duration { return deliver("", "127.0.0.9", "127.0.0.12") },
			func() time.Duration { return deliver(stock, "127.0.0.13", "127.0.0.14") })
	})
}

// TestReceivers_manyWaiting has 1,000 clients wait, and 64 others as fast as they can. It does
// not run beside other tests of this package, as it compares times.
func TestReceivers_manyWaiting(t *testing.T) {
	testenv.SkipShort(t)
	f, without := startFullReceiver(t), startFullReceiver(t)
	for range 1000 {
		c := dial(t, f.Master)
		if _, err := c.Conn.Write([]byte(list("request", "find_endp", "label", f.label))); err != nil {
			t.Fatal(err)
		}
	}
	f.wantWaiting(t, 1000)
	wantAsFast(t, "99 % of requests beside 1,000 clients that wait, and without",
		func() (got, want time.Duration) { return f.busyClients(t), without.busyClients(t) })
	f.wantWaiting(t, 1000)
}

// busyClients has 64 clients make requests, and returns how long 99 percent of these take at
// most.
func (f *fullReceiver) busyClients(t *testing.T) time.Duration {
	t.Helper()
	const clients, requests = 64, 500
	var took [clients][]time.Duration
	var errs [clients]error
	var working sync.WaitGroup
	for n := range clients {
		c, label := dial(t, f.Master), fmt.Sprintf("smtp\n198.51.100.%d\n25\n0\n", n)
		working.Go(func() {
			for range requests {
				begin := time.Now()
				if _, err := c.FindEndpoint(label); err != nil {
					errs[n] = err
					return
				}
				took[n] = append(took[n], time.Since(begin))
			}
		})
	}
	working.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	all := slices.Concat(took[:]...)
	slices.Sort(all)
	return all[len(all)*99/100]
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
