// SPDX-License-Identifier: EPL-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"scache/internal/postfixtest"
)

// A story is one kind of mail traffic in which a connection cache matters.
type story struct {
	name, title  string
	messages     int
	domains      int                        // of the recipients, all at one receiver; 0 is one
	receiver     postfixtest.ReceiverConfig // how that behaves
	settings     map[string]string          // of main.cf
	withCache    map[string]string          // of main.cf, where there is one
	withOurs     map[string]string          // of main.cf, where it is ours
	parameter    string                     // one that our cache must know to take part
	withoutCache bool                       // run it without a cache, too
	limit        time.Duration              // after which a run is cut
	deliver      func(context.Context, *trial) error
	measures     []measure
}

// receiverHost is the address of the receivers, where nothing else listens.
const receiverHost = "127.0.0.4"

// The receiver that allows few connections, and how our cache is told of it.
const (
	allowedConnections = 4
	receiversParameter = "connection_cache_receivers"
	receiversValue     = "{ four, " + receiverHost + ", connections=4 }"
)

// stories are all of the demo. The plain one comes last.
var stories = []*story{
	{
		name:     "reload",
		title:    "a busy site: 3000 messages, and postfix reload every half second",
		messages: 3000,
		receiver: postfixtest.ReceiverConfig{MessageTime: 20 * time.Millisecond},
		limit:    90 * time.Second,
		deliver:  deliverWithReloads,
		measures: []measure{delivered, seconds, connections, problems, slowest},
	},
	{
		name:     "receivers",
		title:    "240 messages to 20 domains of one receiver, which allows 4 connections",
		messages: 240,
		domains:  20,
		receiver: postfixtest.ReceiverConfig{
			MaxConnections: allowedConnections,
			RoundTrip:      20 * time.Millisecond,
			MessageTime:    70 * time.Millisecond,
		},
		withOurs: map[string]string{
			receiversParameter:                  receiversValue,
			"connection_cache_protocol_timeout": "60s",
		},
		parameter: receiversParameter,
		limit:     12 * time.Second,
		deliver:   deliverAtOnce,
		measures:  []measure{delivered, deferred, refused, seconds},
	},
	{
		name:     "hangup",
		title:    "a receiver that hangs up after half a second: 4 bursts of 75 messages",
		messages: 300,
		receiver: postfixtest.ReceiverConfig{IdleLimit: 500 * time.Millisecond},
		withCache: map[string]string{
			"connection_cache_ttl_limit":       "5s",
			"smtp_connection_cache_time_limit": "5s",
		},
		limit:    time.Minute,
		deliver:  deliverInBursts,
		measures: []measure{delivered, dead, warnings, seconds},
	},
	{
		name:         "far",
		title:        "300 messages to a receiver that is 50 ms away and wants TLS",
		messages:     300,
		receiver:     postfixtest.ReceiverConfig{RoundTrip: 50 * time.Millisecond, TLS: true},
		settings:     map[string]string{"smtp_tls_security_level": "encrypt"},
		withCache:    map[string]string{"smtp_tls_connection_reuse": "yes"},
		withoutCache: true,
		limit:        time.Minute,
		deliver:      deliverAtOnce,
		measures:     []measure{delivered, seconds, handshakes},
	},
	{
		name:         "plain",
		title:        "1000 messages to a receiver nearby",
		messages:     1000,
		withoutCache: true,
		limit:        time.Minute,
		deliver:      deliverAtOnce,
		measures:     []measure{delivered, seconds, connections},
	},
}

func storyNames() (names []string) {
	for _, s := range stories {
		names = append(names, s.name)
	}
	return names
}

// describeStories is for the help.
func describeStories() (text string) {
	for _, s := range stories {
		text += fmt.Sprintf("  %-10s %s\n", s.name, s.title)
	}
	return text
}

// deliverAtOnce sends all messages, and waits until they are delivered.
func deliverAtOnce(ctx context.Context, t *trial) error {
	return t.deliver(ctx, t.story.messages)
}

// deliverWithReloads reloads Postfix meanwhile, with a pause after each reload: on a slow
// machine, Postfix would do nothing else otherwise.
func deliverWithReloads(ctx context.Context, t *trial) error {
	const pause = 500 * time.Millisecond
	done := make(chan error, 1)
	go func() { done <- t.deliver(ctx, t.story.messages) }()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(pause):
			if err := t.instance.Command("reload"); err != nil {
				return err
			}
		}
	}
}

// deliverInBursts leaves pauses in which the receiver hangs up. The pauses do not count.
func deliverInBursts(ctx context.Context, t *trial) error {
	const bursts = 4
	const pause = 700 * time.Millisecond
	for n := range bursts {
		if err := t.deliver(ctx, t.story.messages/bursts); err != nil || n == bursts-1 {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			t.paused += pause
		}
	}
	return nil
}

// config returns the configuration of the mail system. All domains lead to the receiver, but
// each is a destination of its own.
func (s *story) config(server server, r *postfixtest.Receiver) postfixtest.Config {
	main := map[string]string{
		"relayhost":                       r.Nexthop(),
		"smtp_connection_cache_on_demand": "no",
	}
	c := postfixtest.Config{
		Scache: server.binary, Chroot: "y", Main: main, Hosts: map[string][]string{},
	}
	var transports []string
	for n := range s.domains {
		mx := "mx." + s.domain(n)
		c.Hosts[mx] = []string{receiverHost}
		transports = append(transports, fmt.Sprintf("{ %s = smtp:%s }", s.domain(n), r.NexthopAs(mx)))
	}
	if len(transports) > 0 {
		main["transport_maps"] = "inline:{ " + strings.Join(transports, ", ") + " }"
	}
	settings := []map[string]string{s.settings}
	if server.name != noCache {
		main["smtp_connection_cache_destinations"] = "static:all"
		settings = append(settings, s.withCache)
	}
	if server.name == oursName {
		settings = append(settings, s.withOurs)
	}
	for _, more := range settings {
		for name, value := range more {
			main[name] = value
		}
	}
	return c
}

func (s *story) domain(n int) string { return fmt.Sprintf("domain%d.test", n+1) }
