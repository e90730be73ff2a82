// SPDX-License-Identifier: EPL-2.0

package main

// A scenario is mail for which clients use the cache. All addresses are fixed, because they
// are part of the messages.
type scenario struct {
	name, about string
	settings    map[string]string // of main.cf
	sink        []string          // options of smtp-sink

	// steps are done one after the other:
	//
	//	mail DOMAIN	a message, and wait until it is delivered
	//	begin DOMAIN	a message, and wait until its client has found nothing
	//	stop SINK	a sink ends, with its connections
	//	start SINK	the sink starts again
	//	wait TIME	time passes
	//	restart		the server ends and a new one starts
	steps []string
}

// port is the port of all sinks. The smtpd(8) with TLS has port 2526.
const port = 2525

var sinks = map[string]string{"first": "127.0.0.1", "second": "127.0.0.2"}

// Domains that share an endpoint, and domains that do not.
const (
	transport = "inline:{ { one.test = smtp:[127.0.0.1]:2525 }, " +
		"{ alias.test = smtp:[localhost]:2525 }, { other.test = smtp:[127.0.0.2]:2525 }, " +
		"{ both.test = smtp:[127.0.0.1]:2525, [127.0.0.2]:2525 }, " +
		"{ tls.test = smtp:[127.0.0.1]:2526 }, { lmtp.test = lmtp:inet:[127.0.0.1]:2525 } }"
	cached = "127.0.0.1, localhost, 127.0.0.2"
)

var scenarios = []scenario{
	{
		name:  "destination",
		about: "Nothing is found, and a session is saved; the next message finds it by its destination.",
		steps: []string{"mail one.test", "mail one.test", "mail one.test"},
	},
	{
		name:  "endpoint",
		about: "The next message is for another destination at the same endpoint, and finds it by that.",
		steps: []string{"mail one.test", "mail alias.test", "mail one.test"},
	},
	{
		name:  "miss",
		about: "What is there is for another destination.",
		steps: []string{"mail one.test", "mail other.test"},
	},
	{
		name: "many",
		about: "A destination with two endpoints, one of which goes down for a while: " +
			"its session is found dead. Then\n" +
			"another destination has a session of that endpoint, too: " +
			"it is found by the binding that is older.",
		steps: []string{"mail both.test", "stop first", "mail both.test", "start first",
			"mail alias.test", "mail both.test"},
	},
	{
		name: "clients",
		about: "Two messages at once, and so two sessions of an endpoint; then two more, " +
			"one after the other. Each\nhas a client of its own.",
		settings: map[string]string{"max_use": "1"},
		sink:     []string{"-w", "2"}, // in seconds of the clock
		steps: []string{"begin one.test", "wait 1s", "mail one.test", "mail one.test",
			"mail one.test"},
	},
	{
		name:  "tls",
		about: "A session with TLS is a connection to tlsproxy(8).",
		settings: map[string]string{"smtp_tls_security_level": "encrypt",
			"smtp_tls_connection_reuse": "yes"},
		steps: []string{"mail tls.test", "mail tls.test"},
	},
	{
		name:  "lmtp",
		about: "The same with lmtp(8).",
		sink:  []string{"-L"},
		steps: []string{"mail lmtp.test", "mail lmtp.test"},
	},
	{
		name:  "restart",
		about: "The server ends, as at \"postfix reload\", and the client connects again.",
		steps: []string{"mail one.test", "restart", "mail one.test", "mail one.test"},
	},
	{
		name:     "expiry",
		about:    "The time of a session ends before it is asked for.",
		settings: map[string]string{"smtp_connection_cache_time_limit": "1s"},
		steps:    []string{"mail one.test", "wait 3s", "mail one.test"},
	},
}
