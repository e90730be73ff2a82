// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/receivers"
)

// limits says to which receiver the next hop leads, what its limits are, and whether mail for
// the next hop keeps to them.
func (e *explanation) limits() bool {
	config, err := e.system.ServerConfig()
	if err != nil {
		return true // times has reported it
	}
	value, err := config.String("connection_cache_receivers")
	if err != nil || strings.TrimSpace(value) == "" {
		e.ok("receiver", "no receiver has limits (connection_cache_receivers)")
		return true
	}
	rules, err := receivers.Parse(value)
	if err != nil {
		e.problem("receiver", "correct what is named", "connection_cache_receivers: %v", err)
		return true
	}
	all := e.listReceivers(rules)
	if len(all) == 0 {
		e.note("receiver", "send mail to it, and ask again",
			"none is known: the server learns where a next hop leads to when a connection is saved")
		return true
	}
	for _, r := range all {
		e.ok("receiver", "%s (%s): %d connections are open, and %d clients wait for one",
			r.Name, r.Limits, r.Open, r.Waiting)
		e.judgeReceiver(r)
	}
	timeout, err := config.Time("connection_cache_protocol_timeout")
	if err == nil && timeout < minWait {
		e.note("receiver", "set connection_cache_protocol_timeout to 60s in main.cf",
			"an agent waits at most %v for a connection, and then connects all the same",
			timeout-time.Second)
	}
	if name := e.name("connection_cache_destinations"); !e.always {
		e.note("receiver", "add the next hop to "+name,
			"the first messages connect without a question, and are not limited: "+
				"the next hop is not in %s", name)
	}
	return true
}

// listReceivers returns the receivers to which the next hop leads, as far as that is known.
func (e *explanation) listReceivers(rules receivers.Rules) (all []control.Receiver) {
	known := receivers.New(receivers.Config{Rules: rules})
	for _, text := range []string{e.Nexthop, e.Asked} {
		if address, err := netip.ParseAddr(host(text)); err == nil {
			label := fmt.Sprintf("%s\n%s\n25\n0\n", e.Service, address)
			if name, found := known.Receiver(0, []byte(label)); found {
				e.receivers[name] = true
			}
		}
	}
	err := e.site.ask(func(cl *client.Client) (err error) {
		all, err = cl.Receivers()
		return err
	})
	if err != nil {
		e.note("receiver", "run scachectl restart if the server is an older one",
			"the server does not list them: %v", err)
	}
	return slices.DeleteFunc(all, func(r control.Receiver) bool { return !e.receivers[r.Name] })
}

// judgeReceiver reports what has gone wrong with a receiver.
func (e *explanation) judgeReceiver(r control.Receiver) {
	if r.Overflows > 0 {
		e.note("receiver", "set connection_cache_protocol_timeout higher, or the limit of the receiver",
			"%s: %d clients have waited for as long as they could, and then connected",
			r.Name, r.Overflows)
	}
	if r.Estimate {
		e.note("receiver", "see the log: the kernel does not count connections",
			"%s: connections are estimated, without those of other programs", r.Name)
	}
}
