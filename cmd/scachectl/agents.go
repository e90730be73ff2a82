// SPDX-License-Identifier: EPL-2.0

// The checks of doctor about delivery agents: whether each of them reuses connections.

package main

import (
	"strings"
	"time"

	"scache/internal/mailconf"
	"scache/internal/postfix"
)

// An agent is a delivery agent with its effective parameters.
type agent struct {
	postfix.Agent
	values map[string]string
}

// param returns the name of a parameter of the agent's protocol.
func (a agent) param(name string) string { return a.Protocol + "_" + name }

// value returns the value of a parameter of the agent's protocol.
func (a agent) value(name string) string { return a.values[a.param(name)] }

func (a agent) yes(name string) bool { return strings.EqualFold(a.value(name), "yes") }

// agentValues are the parameters that decide what an agent caches.
var agentValues = []string{
	"connection_cache_on_demand", "connection_cache_destinations", "connection_cache_time_limit",
	"tls_connection_reuse", "tls_security_level", "tls_policy_maps", "use_tls", "enforce_tls",
}

// readAgents returns the delivery agents of master.cf.
func (d *doctor) readAgents() (agents []agent, err error) {
	all, err := d.system.Agents()
	if err != nil {
		return nil, err
	}
	names := []string{"tlsproxy_service_name"}
	for _, name := range agentValues {
		names = append(names, "smtp_"+name, "lmtp_"+name)
	}
	var entries []postfix.Entry
	for _, one := range all {
		entries = append(entries, one.Entry)
	}
	values, err := d.system.Values(entries, names...)
	for i := range values {
		agents = append(agents, agent{all[i], values[i]})
	}
	return agents, err
}

// A group has the services that one finding is about.
type group struct {
	finding
	services []string
}

// checkAgents checks whether delivery agents save connections at all, each with its effective
// parameters.
func (d *doctor) checkAgents() {
	agents, err := d.readAgents()
	if err != nil {
		d.problem("agents", "correct what is named", "%v", err)
		return
	}
	if len(agents) == 0 {
		d.note("agents", "nothing, if no mail leaves by SMTP or LMTP",
			"no service in master.cf is smtp(8) or lmtp(8)")
		return
	}
	ttl, found := d.ttlLimit()
	var groups []*group
	for _, a := range agents {
		findings := d.checkAgent(a)
		if found {
			findings = append(findings, checkTimeLimit(a, agents, ttl)...)
		}
		for _, f := range findings {
			groups = addTo(groups, f, a.Name)
		}
	}
	for _, g := range groups {
		d.say(g.Level, "agents", g.Do, "%s: %s", strings.Join(g.services, ", "), g.Text)
	}
}

// addTo adds a service to the group of a finding.
func addTo(groups []*group, f finding, service string) []*group {
	for _, g := range groups {
		if g.finding == f {
			g.services = append(g.services, service)
			return groups
		}
	}
	return append(groups, &group{f, []string{service}})
}

func (d *doctor) checkAgent(a agent) (findings []finding) {
	onDemand := a.param("connection_cache_on_demand")
	destinations := a.value("connection_cache_destinations")
	switch {
	case !a.yes("connection_cache_on_demand") && destinations == "":
		return []finding{{
			Level: "note",
			Do: "set " + onDemand + " to yes, or name destinations in " +
				a.param("connection_cache_destinations") + "; look at the -o options of the entry, too",
			Text: "caches no connection: " + onDemand + " is no",
		}}
	case destinations == "":
		findings = append(findings, finding{Level: "ok",
			Text: "caches connections while a destination has much mail (" + onDemand + ")"})
	default:
		findings = append(findings, finding{Level: "ok",
			Text: "always caches connections to " + destinations})
	}
	return append(findings, d.checkTLS(a)...)
}

// tlsLevel returns the security level of an agent, or "" if it does not use TLS.
func (a agent) tlsLevel() string {
	switch level := a.value("tls_security_level"); {
	case level != "" && level != "none":
		return level
	case level == "none":
	case a.yes("enforce_tls"):
		return "encrypt"
	case a.yes("use_tls"):
		return "may"
	}
	if a.value("tls_policy_maps") != "" {
		return "by " + a.param("tls_policy_maps")
	}
	return ""
}

func (d *doctor) checkTLS(a agent) []finding {
	reuse := a.param("tls_connection_reuse")
	proxy := a.values["tlsproxy_service_name"]
	switch level := a.tlsLevel(); {
	case level == "":
	case !a.yes("tls_connection_reuse"):
		return []finding{{
			Level: "note",
			Do: "set " + reuse + " to yes (Postfix 3.4 and later), " +
				"with the entry of tlsproxy in master.cf",
			Text: "caches no connection over TLS (level: " + level + "): " + reuse + " is no",
		}}
	case !d.hasService(proxy):
		return []finding{{
			Level: "problem",
			Do:    "add to master.cf: " + proxy + " unix - - y - 0 tlsproxy, and run postfix reload",
			Text: "all mail over TLS is deferred: " + reuse + " is yes, " +
				"and master.cf has no entry " + proxy + " unix",
		}}
	}
	return nil
}

// hasService reports whether clients can connect to a service of type unix.
func (d *doctor) hasService(name string) bool {
	all, _ := d.system.Entries()
	for _, e := range all {
		if e.Name == name && e.Type == "unix" && e.Private != "n" {
			return true
		}
	}
	return false
}

// ttlLimit returns the limit of the time for which the server keeps a connection.
func (d *doctor) ttlLimit() (ttlLimit, bool) {
	conf, err := d.system.ServerConfig()
	if err != nil {
		return ttlLimit{}, false // other checks report it
	}
	limit, err := conf.Time("connection_cache_ttl_limit")
	return ttlLimit{limit, conf.Source("connection_cache_ttl_limit") != mailconf.Default}, err == nil
}

type ttlLimit struct {
	time.Duration
	set bool // not the default
}

// checkTimeLimit compares the time for which an agent wants connections to be kept with the
// limit of the server: the shorter one counts.
func checkTimeLimit(a agent, all []agent, limit ttlLimit) []finding {
	name := a.param("connection_cache_time_limit")
	wanted, ok := mailconf.ParseTime(a.value("connection_cache_time_limit"))
	switch {
	case !ok:
	case wanted > limit.Duration:
		return []finding{{
			Level: "note",
			Do:    "raise connection_cache_ttl_limit as well, or leave both",
			Text: name + " is " + a.value("connection_cache_time_limit") +
				", but connection_cache_ttl_limit is " + limit.String() + ": the shorter one counts",
		}}
	case limit.set && limit.Duration > longest(all):
		return []finding{{
			Level: "note",
			Do:    "raise " + name + " as well, or leave both",
			Text: "connection_cache_ttl_limit is " + limit.String() + ", which has no effect: " +
				name + " is " + a.value("connection_cache_time_limit"),
		}}
	}
	return nil
}

// longest returns the longest time for which an agent wants connections to be kept.
func longest(agents []agent) (longest time.Duration) {
	for _, a := range agents {
		if wanted, ok := mailconf.ParseTime(a.value("connection_cache_time_limit")); ok {
			longest = max(longest, wanted)
		}
	}
	return longest
}
