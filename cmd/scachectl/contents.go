// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"slices"

	"scache/internal/client"
	"scache/internal/control"
)

// contents is what a cache holds. All texts in it are escaped.
type contents struct {
	Bindings []control.Binding `json:"bindings"`
	Sessions []control.Session `json:"sessions"`

	// Truncated reports that the server has sent more than this program accepts.
	Truncated bool `json:"truncated,omitempty"`
}

// list asks for the contents.
func (c *site) list() (all contents, err error) {
	err = c.ask(func(cl *client.Client) error {
		all, err = listOf(cl)
		return err
	})
	return all, err
}

// listOf is list for a client that is connected.
func listOf(cl *client.Client) (all contents, err error) {
	all.Bindings, all.Sessions, err = cl.List()
	if errors.Is(err, client.ErrTruncated) {
		all.Truncated, err = true, nil
	}
	return all, err
}

// of returns the contents that a text means: destinations and endpoints with this label,
// domain or address, and the endpoints that such a destination is bound to.
func (all contents) of(text string) contents {
	some := contents{Truncated: all.Truncated}
	bound := map[string]bool{}
	for _, b := range all.Bindings {
		if isMeant(raw(b.Destination), text) {
			bound[b.Endpoint] = true
		} else if !isMeant(raw(b.Endpoint), text) {
			continue
		}
		some.Bindings = append(some.Bindings, b)
	}
	for _, s := range all.Sessions {
		if bound[s.Endpoint] || isMeant(raw(s.Endpoint), text) || s.Remote == text && text != "" {
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
	labels = slices.Compact(labels)
	return slices.DeleteFunc(labels, func(label string) bool { return !isMeant(raw(label), text) })
}

// forJSON returns the same contents, with empty lists instead of nil.
func (all contents) forJSON() contents {
	all.Bindings = append([]control.Binding{}, all.Bindings...)
	all.Sessions = append([]control.Session{}, all.Sessions...)
	return all
}

// destinations counts the destinations.
func (all contents) destinations() int {
	labels := map[string]bool{}
	for _, b := range all.Bindings {
		labels[b.Destination] = true
	}
	return len(labels)
}

// An endpoint is the summary of the sessions of one endpoint.
type endpoint struct {
	label, remote string // the remote address of the oldest session
	receiver      string
	sessions      int
	age, left     control.Seconds // the highest of its sessions
}

// endpoints returns the endpoints, sorted by label.
func (all contents) endpoints() (list []endpoint) {
	for _, s := range all.Sessions { // in the order of the labels
		if len(list) == 0 || list[len(list)-1].label != s.Endpoint {
			list = append(list, endpoint{label: s.Endpoint, remote: s.Remote, receiver: s.Receiver})
		}
		e := &list[len(list)-1]
		e.sessions++
		e.age, e.left = max(e.age, s.Age), max(e.left, s.Remaining)
	}
	return list
}
