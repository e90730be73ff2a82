// SPDX-License-Identifier: EPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"scache/internal/postfixtest"
)

// A trial is one run of a story with one server.
type trial struct {
	story  *story
	server server
	ask    func(context.Context, *postfixtest.Instance, ...string) ([]view, error)

	instance *postfixtest.Instance
	receiver *postfixtest.Receiver
	expected int           // messages that were sent so far
	paused   time.Duration // without mail

	outcome
	views []view
}

// An outcome has the results of one run.
type outcome struct {
	delivered, deferred int
	cut                 time.Duration // when the run was cut, or 0
	seconds             float64       // until the last message was there
	connections         int           // of SMTP
	refused             int           // connections that the receiver refused
	handshakes          int           // of TLS
	problems            int           // delivery agents that logged a problem with the cache
	dead                int           // connections that were found in the cache and were dead
	warnings            int           // of delivery agents and the cache
	slowest             float64       // seconds that a message spent in a delivery agent
	complaints          []string      // warnings and errors of the cache
}

// run starts a mail system and a receiver, delivers the story's mail, and reads the log.
func (t *trial) run(ctx context.Context) (err error) {
	t.receiver, err = t.newReceiver()
	if err != nil {
		return err
	}
	defer t.receiver.Close()
	p := newProgress(t.server.name)
	p.show("starting Postfix")
	if t.instance, err = postfixtest.NewInstance(t.story.config(t.server, t.receiver)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.instance.Close()) }()
	if err := t.instance.Start(); err != nil {
		return err
	}
	if err := t.measure(ctx, p); err != nil {
		return err
	}
	if t.server.name == oursName {
		commands := []string{"status", "hits"}
		if t.story.parameter == receiversParameter {
			commands = []string{"receivers", "status", "hits"}
		}
		if t.views, err = t.ask(ctx, t.instance, commands...); err != nil {
			return err
		}
	}
	if err := t.logStatistics(ctx); err != nil {
		return err
	}
	t.conclude()
	return nil
}

func (t *trial) newReceiver() (*postfixtest.Receiver, error) {
	c := t.story.receiver
	c.Hosts = []string{receiverHost}
	return postfixtest.StartReceiver(c)
}

// measure delivers the mail and shows the progress. It stops at the story's time limit.
func (t *trial) measure(ctx context.Context, p *progress) error {
	begin := time.Now()
	limited, cancel := context.WithTimeout(ctx, t.story.limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- t.story.deliver(limited, t) }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.show(t.state(time.Since(begin)))
		case err := <-done:
			elapsed := time.Since(begin)
			t.seconds = (elapsed - t.paused).Seconds()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if limited.Err() != nil {
				t.cut, err = t.story.limit, nil
			}
			p.end(t.state(elapsed))
			return err
		}
	}
}

// state is the text of the progress line.
func (t *trial) state(elapsed time.Duration) string {
	stats := t.receiver.Stats()
	text := fmt.Sprintf("%4.1f s, %d of %d messages have arrived",
		elapsed.Seconds(), stats.Messages, t.story.messages)
	if stats.Refused > 0 {
		text += fmt.Sprintf(", %d connections were refused", stats.Refused)
	}
	if t.cut > 0 {
		text += ": cut here"
	}
	return text
}

// deliver sends messages, and waits until they are delivered or the time is over.
func (t *trial) deliver(ctx context.Context, messages int) error {
	t.expected += messages
	sent := make(chan error, max(t.story.domains, 1))
	if t.story.domains == 0 {
		sent <- t.instance.Send(ctx, messages, 10, "recipient@example.test")
	}
	for n := range t.story.domains {
		go func() {
			sent <- t.instance.Send(ctx, messages/t.story.domains, 1, "recipient@"+t.story.domain(n))
		}()
	}
	for range cap(sent) {
		if err := <-sent; err != nil {
			return err
		}
	}
	return t.wait(ctx)
}

// wait waits until all messages are delivered. It reads the log only once the receiver has
// them, because reading takes processor time from the mail system.
func (t *trial) wait(ctx context.Context) error {
	for {
		if t.receiver.Stats().Messages >= t.expected &&
			readLog(t.instance.Log()).delivered >= t.expected {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// logStatistics makes the cache log its statistics, as it does at a reload.
func (t *trial) logStatistics(ctx context.Context) error {
	if t.server.binary == "" {
		return nil
	}
	logged := func() int { return len(t.instance.Grep("scache[", "statistics: max simultaneous")) }
	before := logged()
	if err := t.instance.Command("reload"); err != nil {
		return err
	}
	const limit = 5 * time.Second // a cache that has done nothing says nothing
	for end := time.Now().Add(limit); logged() == before && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// conclude fills in the outcome.
func (t *trial) conclude() {
	l := readLog(t.instance.Log())
	stats := t.receiver.Stats()
	t.delivered, t.deferred = l.delivered, l.deferred
	t.connections, t.refused, t.handshakes = stats.Connections, stats.Refused, stats.Handshakes
	t.problems, t.warnings, t.slowest = l.problems, l.warnings, l.slowest
	t.dead = max(l.hits-l.reused, 0)
	t.complaints = l.complaints
}

// A logSummary counts what a mail system has logged in one run.
type logSummary struct {
	delivered, deferred int // messages
	reused              int // deliveries over a connection that was used before
	hits                int // of the cache
	problems            int // delivery agents that logged a problem with the cache
	warnings            int
	slowest             float64 // seconds that a message spent in a delivery agent
	complaints          []string
}

var (
	statusLine = regexp.MustCompile(
		`postfix/\w+\[\d+\]: (\w+): .* delays=[^/]*/[^/]*/([^/]*)/([^,]*),.* status=(\w+)`)
	hitsLine = regexp.MustCompile(`scache\[\d+\]: statistics: (?:domain|address) lookup hits=(\d+)`)
	problem  = regexp.MustCompile(`postfix/(smtp\[\d+\]): warning: problem talking to .*/scache`)
	serious  = regexp.MustCompile(`(scache|smtp)\[\d+\]: (?:warning|error|fatal|panic): `)
)

func readLog(lines []string) (l logSummary) {
	last, agents := map[string]string{}, map[string]bool{} // the last status of each message
	for _, line := range lines {
		if m := statusLine.FindStringSubmatch(line); m != nil {
			last[m[1]] = m[4]
			connecting, _ := strconv.ParseFloat(m[2], 64)
			sending, _ := strconv.ParseFloat(m[3], 64)
			l.slowest = max(l.slowest, connecting+sending)
			if strings.Contains(line, "conn_use=") && m[4] == "sent" {
				l.reused++
			}
			continue
		}
		if m := hitsLine.FindStringSubmatch(line); m != nil {
			n, _ := strconv.Atoi(m[1])
			l.hits += n
		}
		if m := problem.FindStringSubmatch(line); m != nil {
			agents[m[1]] = true
		}
		if m := serious.FindStringSubmatch(line); m != nil {
			l.warnings++
			if m[1] == "scache" {
				l.complaints = append(l.complaints, line)
			}
		}
	}
	for _, status := range last {
		switch status {
		case "sent":
			l.delivered++
		case "deferred":
			l.deferred++
		}
	}
	l.problems = len(agents)
	return l
}
