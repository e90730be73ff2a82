// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/mailconf"
	"scache/internal/postfix"
)

// An explanation says why connections to one place are reused, or are not.
type explanation struct {
	Asked    string    `json:"asked"`
	Service  string    `json:"service"`
	Nexthop  string    `json:"nexthop"`
	Findings []finding `json:"findings"`

	site       *site
	system     *postfix.System
	entry      postfix.Entry     // of the service
	protocol   string            // smtp or lmtp
	parameters map[string]string // of the service, without the protocol in front
	always     bool              // the service saves all connections to the next hop
	receivers  map[string]bool   // names of those to which the next hop leads
}

// explainSteps are called one after the other, until one returns false: without its result,
// the next steps make no sense.
var explainSteps = []func(*explanation) (proceed bool){
	(*explanation).route, (*explanation).agent, (*explanation).caching, (*explanation).times,
	(*explanation).tls, (*explanation).sasl, (*explanation).seen, (*explanation).limits,
}

func newExplainCommand(c *site) *cobra.Command {
	service, asJSON := "", false
	cmd := &cobra.Command{
		Use:   "explain NEXTHOP | ADDRESS",
		Short: "Say why connections to a destination are reused, or are not",
		Long: `explain looks up which service delivers mail to a domain or a mail address, what that
service has configured about the cache, TLS and SASL, and what the cache has seen of it.
Each finding is ok, a note, or a problem, and comes with what to do. It sends no mail and
changes nothing.

The argument is a domain, a mail address, a next hop such as [mx.example.com]:587, or the
address of a receiver.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeLabels(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.socket != "" {
				return errSocket
			}
			e, err := c.explain(args[0], service)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), e)
			}
			return printFindings(cmd.OutOrStdout(), e.Findings)
		},
	}
	cmd.Flags().StringVar(&service, "service", "",
		"the `name` in master.cf of the service that delivers (default: looked up)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// explain calls the steps.
func (c *site) explain(asked, service string) (*explanation, error) {
	system, err := c.open()
	if err != nil {
		return nil, err
	}
	e := &explanation{Asked: control.Escape(asked), Service: service, site: c, system: system}
	for _, step := range explainSteps {
		if !step(e) {
			break
		}
	}
	return e, nil
}

func (e *explanation) add(level, about, do, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	e.Findings = append(e.Findings, finding{level, about, text, do})
}

func (e *explanation) ok(about, format string, args ...any) {
	e.add("ok", about, "", format, args...)
}

func (e *explanation) note(about, do, format string, args ...any) {
	e.add("note", about, do, format, args...)
}

func (e *explanation) problem(about, do, format string, args ...any) {
	e.add("problem", about, do, format, args...)
}

// route finds service and next hop.
func (e *explanation) route() bool {
	e.Nexthop = e.Asked
	recipient := e.Asked
	switch _, err := netip.ParseAddr(strings.Trim(e.Asked, "[]")); {
	case e.Service != "":
		e.ok("route", "service %s, as you say", e.Service)
		return true
	case err == nil, strings.HasPrefix(e.Asked, "["), strings.HasPrefix(e.Asked, "unix:"):
		e.Service = "smtp"
		e.note("route", "option --service names another one",
			"service smtp: which one delivers is known of domains only")
		return true
	case !strings.Contains(recipient, "@"):
		recipient = "postmaster@" + host(recipient)
	}
	r, err := findRoute(e.system, recipient)
	if err != nil {
		e.problem("route", "name the service with --service", "no route to %s: %v", recipient, err)
		return false
	}
	e.Service, e.Nexthop = r.service, r.nexthop
	e.ok("route", "mail to %s goes to service %s, next hop %s (%s)", recipient, r.service, r.nexthop,
		r.how)
	p, err := postconf(e.system, nil, "sender_dependent_default_transport_maps",
		"sender_dependent_relayhost_maps")
	if err == nil && (p["sender_dependent_default_transport_maps"] != "" ||
		p["sender_dependent_relayhost_maps"] != "") {
		e.note("route", "name service and next hop yourself where they depend on the sender",
			"main.cf has sender_dependent maps: mail of some senders may go elsewhere")
	}
	return true
}

// explained are the parameters of an agent that explain reads, without smtp_ or lmtp_.
var explained = []string{
	"connection_cache_on_demand", "connection_cache_destinations", "connection_cache_time_limit",
	"connection_reuse_time_limit", "connection_reuse_count_limit",
	"tls_security_level", "use_tls", "enforce_tls", "tls_policy_maps", "tls_connection_reuse",
	"sasl_auth_enable", "sasl_password_maps", "sender_dependent_authentication",
}

// agent finds the entry of the service, and its effective parameters.
func (e *explanation) agent() bool {
	all, err := e.system.Entries()
	if err != nil {
		e.problem("service", "correct master.cf", "%v", err)
		return false
	}
	i := slices.IndexFunc(all, func(one postfix.Entry) bool {
		return one.Name == e.Service && one.Type == "unix"
	})
	if i < 0 {
		e.problem("service", "name a service of master.cf with --service, or correct the transport",
			"master.cf has no entry %s unix", e.Service)
		return false
	}
	e.entry = all[i]
	e.protocol = filepath.Base(e.entry.Command)
	if e.protocol != "smtp" && e.protocol != "lmtp" {
		e.note("service", "nothing: only smtp(8) and lmtp(8) use the cache",
			"%s is %s(8), which makes no connections that are cached",
			e.Service, control.Escape(e.protocol))
		return false
	}
	var names []string
	for _, name := range explained {
		names = append(names, e.protocol+"_"+name)
	}
	values, err := postconf(e.system, e.entry.Options(), names...)
	if err != nil {
		e.problem("service", "correct what is named", "the parameters of %s: %v", e.Service, err)
		return false
	}
	e.parameters = map[string]string{}
	for name, value := range values {
		e.parameters[strings.TrimPrefix(name, e.protocol+"_")] = value
	}
	e.ok("service", "%s is %s(8) with %d options of its own in master.cf", e.Service, e.protocol,
		len(e.entry.Options()))
	return true
}

// name returns the full name of a parameter.
func (e *explanation) name(parameter string) string { return e.protocol + "_" + parameter }

// caching checks whether the service saves connections.
func (e *explanation) caching() bool {
	destinations := e.parameters["connection_cache_destinations"]
	demandName := e.name("connection_cache_on_demand")
	listName := e.name("connection_cache_destinations")
	e.always = e.isListed(destinations, host(strings.TrimPrefix(e.Nexthop, "unix:")))
	onDemand := e.parameters["connection_cache_on_demand"] == "yes"
	switch {
	case e.always:
		e.ok("caching", "always: the next hop is in %s", listName)
	case onDemand:
		e.note("caching", "if mail comes often, but one message at a time, add the next hop to "+listName,
			"only on demand: while the queue has much mail for the next hop (%s)", demandName)
	default:
		e.problem("caching", "set "+demandName+" to yes, or add the next hop to "+listName,
			"never: %s is off, and the next hop is not in %s", demandName, listName)
	}
	return true
}

// isListed reports whether a list of names, files and tables contains a name.
func (e *explanation) isListed(list, name string) bool {
	for _, word := range mailconf.Fields(list) {
		if strings.EqualFold(word, name) {
			return true
		}
		if text, err := os.ReadFile(word); strings.HasPrefix(word, "/") && err == nil &&
			slices.Contains(strings.Fields(strings.ToLower(string(text))), strings.ToLower(name)) {
			return true
		}
	}
	_, found := lookup(e.system, list, name)
	return found
}

// times compares the time limits of the service and of the server.
func (e *explanation) times() bool {
	wanted := e.parameters["connection_cache_time_limit"]
	e.ok("times", "a connection is idle for at most %s, and in use for at most %s", wanted,
		e.parameters["connection_reuse_time_limit"])
	conf, err := e.system.ServerConfig()
	if err != nil {
		e.problem("times", "correct what is named", "%v", err)
		return true
	}
	limit, err := conf.Time("connection_cache_ttl_limit")
	if own, ok := mailconf.ParseTime(wanted); err == nil && ok && own > limit {
		e.note("times", "raise connection_cache_ttl_limit as well",
			"%s is %s, but connection_cache_ttl_limit is %v: the shorter one counts",
			e.name("connection_cache_time_limit"), wanted, limit)
	}
	if n := e.parameters["connection_reuse_count_limit"]; n != "" && n != "0" {
		e.note("times", "prefer "+e.name("connection_reuse_time_limit")+
			": with a count, slow receivers get the most mail",
			"a connection is used for at most %s messages (%s)", n, e.name("connection_reuse_count_limit"))
	}
	return true
}

// tlsLevel returns the security level for the next hop, its policy if a table has one, and the
// name of the parameter that sets the level.
func (e *explanation) tlsLevel() (level, policy, source string) {
	for _, key := range []string{e.Nexthop, host(e.Nexthop)} {
		if policy, found := lookup(e.system, e.parameters["tls_policy_maps"], key); found {
			return strings.Fields(policy)[0], policy, e.name("tls_policy_maps")
		}
	}
	switch {
	case e.parameters["tls_security_level"] != "":
		return e.parameters["tls_security_level"], "", e.name("tls_security_level")
	case e.parameters["enforce_tls"] == "yes":
		return "encrypt", "", e.name("enforce_tls")
	case e.parameters["use_tls"] == "yes":
		return "may", "", e.name("use_tls")
	}
	return "none", "", e.name("tls_security_level")
}

// tls checks whether connections with TLS can be reused.
func (e *explanation) tls() bool {
	level, policy, source := e.tlsLevel()
	if level == "none" {
		e.ok("tls", "no TLS towards the next hop (%s)", source)
		return true
	}
	reuse, known := e.parameters["tls_connection_reuse"]
	for _, word := range strings.Fields(policy) {
		if value, found := strings.CutPrefix(word, "connection_reuse="); found {
			reuse = value
		}
	}
	do := "set " + e.name("tls_connection_reuse") + " to yes"
	if !known {
		do = "Postfix 3.4 and later can, with " + e.name("tls_connection_reuse")
	}
	all, _ := e.system.Entries()
	proxy := slices.ContainsFunc(all, func(one postfix.Entry) bool { return one.Name == "tlsproxy" })
	switch {
	case reuse != "yes" && level == "may":
		e.note("tls", do, "level may (%s): a connection to a receiver with STARTTLS is not reused",
			source)
	case reuse != "yes":
		e.problem("tls", do, "level %s (%s): no connection is reused", level, source)
	case !proxy:
		e.problem("tls", "add it, as in the master.cf of Postfix",
			"%s is yes, but master.cf has no tlsproxy: mail over TLS is deferred",
			e.name("tls_connection_reuse"))
	default:
		e.ok("tls", "level %s (%s), and connections are reused by tlsproxy(8)", level, source)
	}
	return true
}

// sasl checks whether connections are authenticated: then less mail can share them.
func (e *explanation) sasl() bool {
	if e.parameters["sasl_auth_enable"] != "yes" || e.parameters["sasl_password_maps"] == "" {
		e.ok("sasl", "no authentication")
		return true
	}
	if e.parameters["sender_dependent_authentication"] == "yes" {
		name := e.name("sender_dependent_authentication")
		e.note("sasl", "set "+name+" to no if all senders use one account",
			"connections are shared by mail of the same sender only (%s)", name)
		return true
	}
	e.ok("sasl", "they may be authenticated: shared by mail for the same next hop only")
	return true
}

// seen adds what the cache has counted for the next hop, and finds its receivers.
func (e *explanation) seen() bool {
	var destinations, endpoints []control.LabelCounts
	var all contents
	err := e.site.ask(func(cl *client.Client) (err error) {
		if destinations, err = cl.LabelCounts(control.LevelDestination); err != nil {
			return err
		}
		if endpoints, err = cl.LabelCounts(control.LevelEndpoint); err != nil {
			return err
		}
		all, err = listOf(cl)
		return err
	})
	switch {
	case errors.Is(err, client.ErrStock):
		e.note("cache", "scachectl enable switches to this server",
			"the stock server says nothing about what it has seen")
		return false
	case err != nil:
		e.problem("cache", "scachectl doctor looks for the reason", "the server does not answer: %v", err)
		return false
	}
	bound := map[string]bool{}
	for _, b := range all.Bindings {
		if e.isAbout(b.Destination) {
			bound[b.Endpoint] = true
		}
	}
	isEndpoint := func(shown string) bool { return bound[shown] || e.isAbout(shown) }
	e.findReceivers(all.Sessions, endpoints, isEndpoint)
	idle := 0
	for _, s := range all.Sessions {
		if isEndpoint(s.Endpoint) {
			idle++
		}
	}
	e.ok("cache", "%d connections are idle in the cache now", idle)
	e.judge("destination", destinations, e.isAbout)
	e.judge("endpoint", endpoints, isEndpoint)
	return true
}

// isAbout reports whether a label, as it is shown, is of the service and the next hop.
func (e *explanation) isAbout(shown string) bool {
	label := raw(shown)
	l, ok := parseLabel(label)
	return ok && l.service == e.Service && (isMeant(label, e.Nexthop) || isMeant(label, e.Asked))
}

// findReceivers finds the receivers to which endpoints of the next hop belong.
func (e *explanation) findReceivers(
	sessions []control.Session, counts []control.LabelCounts, isEndpoint func(shown string) bool,
) {
	e.receivers = map[string]bool{}
	for _, s := range sessions {
		if isEndpoint(s.Endpoint) {
			e.receivers[s.Receiver] = true
		}
	}
	for _, h := range counts {
		if isEndpoint(h.Label) {
			e.receivers[h.Receiver] = true
		}
	}
}

// judge adds a finding about the counts of a level.
func (e *explanation) judge(level string, all []control.LabelCounts, mine func(shown string) bool) {
	var sum control.LabelCounts
	n := 0
	for _, h := range all {
		if mine(h.Label) {
			n++
			sum.Hits += h.Hits
			sum.Misses += h.Misses
			sum.Saves += h.Saves
			sum.Expired += h.Expired
			sum.Dead += h.Dead
			sum.Evicted += h.Evicted
			sum.Flushed += h.Flushed
		}
	}
	if n == 0 {
		e.note(level, "send mail to it, and ask again", "not seen yet, or not among the 1,000 busiest")
		return
	}
	text := fmt.Sprintf("%d lookups, %d hits (%s), %d misses, %d saved, "+
		"%d expired, %d dead, %d evicted, %d flushed",
		lookups(sum), sum.Hits, percent(sum.Hits, lookups(sum)), sum.Misses, sum.Saves,
		sum.Expired, sum.Dead, sum.Evicted, sum.Flushed)
	switch {
	case sum.Saves == 0 && level == "destination":
		e.note(level, "see what is said about caching and TLS above; messages that fail save nothing",
			"nothing was saved: %s", text)
	case 100*sum.Dead > muchDead*sum.Saves && sum.Dead > 0:
		e.note(level, "lower "+e.name("connection_cache_time_limit")+": the receiver hangs up earlier",
			"many were dead: %s", text)
	case 100*sum.Expired > muchExpired*sum.Saves && sum.Expired > 0:
		e.note(level, "nothing, if mail is rare; else raise "+e.name("connection_cache_time_limit")+
			" and connection_cache_ttl_limit",
			"many expired before they were wanted: %s", text)
	default:
		e.ok(level, "%s", text)
	}
}
