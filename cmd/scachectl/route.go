// SPDX-License-Identifier: EPL-2.0

// Which service delivers mail, without any mail being sent.

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"scache/attr"
	"scache/internal/control"
	"scache/internal/fdpass"
	"scache/internal/postfix"
)

// A route is the service of master.cf that delivers mail, and its next hop.
type route struct {
	service, nexthop string
	how              string // how it was found
}

// routeTimeout bounds how long trivial-rewrite(8) may take.
const routeTimeout = 5 * time.Second

// findRoute returns the route of mail to a recipient. It asks the mail system, as the queue
// manager does. If that fails, it reads main.cf and the tables itself.
func findRoute(system *postfix.System, recipient string) (route, error) {
	r, err := askRewrite(system, recipient)
	if err == nil {
		return r, nil
	}
	r, errMaps := searchMaps(system, recipient)
	if errMaps != nil {
		return r, errors.Join(err, errMaps)
	}
	return r, nil
}

// askRewrite asks trivial-rewrite(8), which delivers nothing.
func askRewrite(system *postfix.System, recipient string) (r route, err error) {
	queue, err := system.Config.String("queue_directory")
	if err != nil {
		return r, err
	}
	conn, err := fdpass.Dial(filepath.Join(queue, "private", "rewrite"), routeTimeout)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(routeTimeout))
	out := attr.NewEncoder(conn)
	out.String("request", "resolve")
	out.String("sender", "")
	out.String("address", recipient)
	if err := out.End(); err != nil {
		return r, err
	}
	in := attr.NewDecoder(conn)
	list, err := in.Decode()
	if err == nil && list.Expect("protocol") == nil { // Postfix 3.6 and later speak first
		list, err = in.Decode()
	}
	if err != nil {
		return r, fmt.Errorf("trivial-rewrite: %w", err)
	}
	transport, found := list.Lookup("transport")
	nexthop, _ := list.Lookup("nexthop")
	if !found || len(transport.Value) == 0 {
		return r, fmt.Errorf("trivial-rewrite has no transport for %s", recipient)
	}
	r.service = control.Escape(string(transport.Value))
	r.nexthop = control.Escape(string(nexthop.Value))
	r.how = "the mail system says so"
	return r, nil
}

// searchMaps looks into transport_maps, or else uses default_transport and relayhost. It
// does not consider local and virtual domains.
func searchMaps(system *postfix.System, recipient string) (r route, err error) {
	p, err := postconf(system, nil, "transport_maps", "default_transport", "relayhost")
	if err != nil {
		return r, err
	}
	_, domain, _ := strings.Cut(recipient, "@")
	keys := []string{recipient, domain}
	for parent := domain; strings.Contains(parent, "."); keys = append(keys, "."+parent) {
		_, parent, _ = strings.Cut(parent, ".")
	}
	r.how = "main.cf says so; the mail system could not be asked"
	r.service, r.nexthop, _ = strings.Cut(p["default_transport"], ":")
	if r.nexthop == "" && p["relayhost"] != "" {
		r.nexthop = p["relayhost"]
	}
	for _, key := range append(keys, "*") {
		value, found := lookup(system, p["transport_maps"], key)
		if !found {
			continue
		}
		service, nexthop, _ := strings.Cut(value, ":")
		if service != "" {
			r.service, r.nexthop = service, ""
		}
		if nexthop != "" {
			r.nexthop = nexthop
		}
		break
	}
	if r.nexthop == "" {
		r.nexthop = domain
	}
	return r, nil
}

// lookup looks a key up in tables "type:name", as postmap(1) does.
func lookup(system *postfix.System, tables, key string) (value string, found bool) {
	for _, table := range splitTables(tables) {
		out, err := system.Output("postmap", "-c", system.Directory, "-q", key, table)
		if err == nil && strings.TrimSpace(out) != "" {
			return control.Escape(strings.TrimSpace(out)), true
		}
	}
	return "", false
}

// splitTables splits a list at white space and commas outside of braces. It returns the
// elements that are tables.
func splitTables(list string) (tables []string) {
	depth := 0
	for _, word := range strings.FieldsFunc(list, func(r rune) bool {
		switch r {
		case '{':
			depth++
		case '}':
			depth--
		}
		return depth == 0 && strings.ContainsRune(", \t\r\n", r)
	}) {
		if strings.Contains(word, ":") && !strings.HasPrefix(word, "/") && !strings.HasPrefix(word, "[") {
			tables = append(tables, word)
		}
	}
	return tables
}

// postconf returns the effective values of parameters, for a service with these options
// "name=value".
func postconf(
	system *postfix.System, options []string, names ...string,
) (map[string]string, error) {
	args := []string{"-c", system.Directory}
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		args = append(args, "-o", strings.TrimSpace(name)+"="+strings.TrimSpace(value))
	}
	out, err := system.Output("postconf", append(append(args, "-x"), names...)...)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(line, "=")
		values[strings.TrimSpace(name)] = control.Escape(strings.TrimSpace(value))
	}
	return values, nil
}
