// SPDX-License-Identifier: EPL-2.0

// The check of doctor about receivers that have limits.

package main

import (
	"strconv"
	"strings"
	"time"

	"scache/internal/client"
	"scache/internal/control"
)

// minWait is how long clients should be able to wait: the default of
// connection_cache_protocol_timeout leaves four seconds.
const minWait = 10 * time.Second

// checkReceivers checks whether limits for receivers can have an effect, and whether clients
// wait for long enough.
func (d *doctor) checkReceivers() {
	config, err := d.system.ServerConfig()
	if err != nil {
		return // checkEntry has reported it
	}
	value, err := config.String("connection_cache_receivers")
	if err != nil || strings.TrimSpace(value) == "" || !d.enabled() {
		return
	}
	found := len(d.findings)
	d.checkAsking()
	timeout, err := config.Time("connection_cache_protocol_timeout")
	if err == nil && timeout < minWait {
		d.note("receivers", "set connection_cache_protocol_timeout to 60s in main.cf",
			"an agent waits at most %v for a connection (connection_cache_protocol_timeout, "+
				"less a second), and then connects all the same", timeout-time.Second)
	}
	if d.answered() {
		d.checkOverflows()
	}
	if len(d.findings) == found {
		d.ok("receivers", "limits have an effect on all agents, and no client has waited in vain")
	}
}

// checkAsking reports agents that do not ask before they connect.
func (d *doctor) checkAsking() {
	agents, err := d.readAgents()
	if err != nil {
		return // checkAgents has reported it
	}
	for _, a := range agents {
		name := a.param("connection_cache_destinations")
		if a.Protocol == "smtp" && a.value("connection_cache_destinations") == "" {
			d.note("receivers", "set "+name+" = static:all, or the domains in question",
				"%s: the first messages to a destination do not ask the cache before they connect, "+
					"and are not limited: %s is empty", a.Name, name)
		}
	}
}

// checkOverflows reports receivers for which clients have waited in vain.
func (d *doctor) checkOverflows() {
	var all []control.Receiver
	err := d.site.ask(func(c *client.Client) (err error) {
		all, err = c.Receivers()
		return err
	})
	if err != nil {
		d.note("receivers", "run scachectl receivers", "the server does not list them: %v", err)
		return
	}
	waiting := int64(0)
	for _, r := range all {
		waiting += r.Waiting
		if r.Estimate {
			d.note("receivers", "see the log: the kernel does not count connections",
				"%s: connections are estimated, without those of other programs", r.Name)
		}
		if r.Overflows > 0 {
			d.note("receivers", "set connection_cache_protocol_timeout higher, or the limit of the "+
				"receiver, and see that the process limit of smtp exceeds the clients that wait",
				"%s: %d clients have waited for as long as they could, and then connected", r.Name, r.Overflows)
		}
	}
	d.checkProcesses(waiting)
}

// checkProcesses reports services whose process limit is reached by agents that wait.
func (d *doctor) checkProcesses(waiting int64) {
	agents, err := d.readAgents()
	if err != nil {
		return // checkAgents has reported it
	}
	standard, _ := d.system.Config.Int("default_process_limit")
	for _, a := range agents {
		limit := int64(standard)
		if n, err := strconv.ParseInt(a.ProcessLimit, 10, 64); err == nil {
			limit = n
		}
		if limit > 0 && waiting >= limit {
			d.note("receivers", "raise the process limit of "+a.Name+" in master.cf (the maxproc column)",
				"%s: %d agents wait for connections, and the process limit is %d: other mail waits, too",
				a.Name, waiting, limit)
		}
	}
}
