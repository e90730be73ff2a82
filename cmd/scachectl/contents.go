// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
)

// contents is what a cache holds.
type contents struct {
	Bindings []control.Binding `json:"bindings"`
	Sessions []control.Session `json:"sessions"`
}

func (c *site) list() (all contents, err error) {
	err = c.ask(func(cl *client.Client) error {
		all.Bindings, all.Sessions, err = cl.List()
		return err
	})
	return all, err
}

// of returns what a text means: destinations and endpoints with this label, domain or
// address, and the endpoints that such a destination is bound to.
func (all contents) of(text string) (some contents) {
	bound := map[string]bool{}
	for _, b := range all.Bindings {
		if isMeant(b.Destination, text) {
			bound[b.Endpoint] = true
		} else if !isMeant(b.Endpoint, text) {
			continue
		}
		some.Bindings = append(some.Bindings, b)
	}
	for _, s := range all.Sessions {
		if bound[s.Endpoint] || isMeant(s.Endpoint, text) || s.Remote == text && text != "" {
			some.Sessions = append(some.Sessions, s)
		}
	}
	return some
}

// labels returns the labels that a text means.
func (all contents) labels(text string) (labels []string) {
	for _, b := range all.Bindings {
		labels = append(labels, b.Destination)
	}
	for _, s := range all.Sessions {
		labels = append(labels, s.Endpoint)
	}
	slices.Sort(labels)
	return slices.DeleteFunc(slices.Compact(labels), func(label string) bool { return !isMeant(label, text) })
}

// escaped returns the same with labels and properties as they are shown.
func (all contents) escaped() contents {
	shown := contents{Bindings: []control.Binding{}, Sessions: []control.Session{}} // in JSON: empty, not null
	for _, b := range all.Bindings {
		b.Destination, b.Endpoint, b.Property = control.Escape(b.Destination), control.Escape(b.Endpoint), control.Escape(b.Property)
		shown.Bindings = append(shown.Bindings, b)
	}
	for _, s := range all.Sessions {
		s.Endpoint, s.Property = control.Escape(s.Endpoint), control.Escape(s.Property)
		shown.Sessions = append(shown.Sessions, s)
	}
	return shown
}

// An endpoint is one with its sessions in sum.
type endpoint struct {
	label, remote string // the remote address of the oldest session
	limit         string
	sessions      int
	age, left     control.Seconds // of the session that was saved first, and of the one that ends last
}

// endpoints returns the endpoints in the order of their labels.
func (all contents) endpoints() (list []endpoint) {
	for _, s := range all.Sessions { // in the order of the labels
		if len(list) == 0 || list[len(list)-1].label != s.Endpoint {
			list = append(list, endpoint{label: s.Endpoint, remote: s.Remote, limit: s.Limit})
		}
		e := &list[len(list)-1]
		e.sessions++
		e.age, e.left = max(e.age, s.Age), max(e.left, s.Left)
	}
	return list
}

// An order is what a list is sorted by. It is a flag.
type order string

// orders are those there are.
var orders = []order{"label", "sessions", "age", "left"}

func (o *order) String() string { return string(*o) }
func (o *order) Type() string   { return "order" }

func (o *order) Set(text string) error {
	if !slices.Contains(orders, order(text)) {
		return fmt.Errorf("want one of %s", joinOrders(", "))
	}
	*o = order(text)
	return nil
}

// next is the one after this.
func (o order) next() order { return orders[(slices.Index(orders, o)+1)%len(orders)] }

func joinOrders(separator string) string {
	var names []string
	for _, o := range orders {
		names = append(names, string(o))
	}
	return strings.Join(names, separator)
}

// addOrder gives a command the option that says what its list is sorted by.
func addOrder(cmd *cobra.Command, o *order) {
	cmd.Flags().Var(o, "sort", "by label, sessions, age or left; the most comes first")
	cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(strings.Fields(joinOrders(" ")), cobra.ShellCompDirectiveNoFileComp))
}

// arrange sorts rows, those first that have most of it, and returns not more of them
// than a limit, if there is one. Rows that are equal stay as they are.
func arrange[R any](rows []R, o order, limit int, key func(R) (sessions int, age, left control.Seconds)) []R {
	value := func(r R) int64 {
		sessions, age, left := key(r)
		return map[order]int64{"sessions": int64(sessions), "age": int64(age), "left": int64(left)}[o]
	}
	slices.SortStableFunc(rows, func(a, b R) int { return cmp.Compare(value(b), value(a)) })
	if limit > 0 && limit < len(rows) {
		return rows[:limit]
	}
	return rows
}

func keyOfBinding(b control.Binding) (int, control.Seconds, control.Seconds) {
	return 0, b.Age, b.Left
}
func keyOfSession(s control.Session) (int, control.Seconds, control.Seconds) {
	return 1, s.Age, s.Left
}
func keyOfEndpoint(e endpoint) (int, control.Seconds, control.Seconds) {
	return e.sessions, e.age, e.left
}
