// SPDX-License-Identifier: EPL-2.0

package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"scache/attr"
	"scache/internal/control"
)

// ErrStock is the error of an operator's request to a server that does not know
// it, such as the stock one. The client is as good as before.
var ErrStock = errors.New("the server does not know this request: it is the stock scache, or one like it")

// Status asks for the state of the server.
func (c *Client) Status() (s control.Status, err error) {
	list, err := c.operate(control.RequestStatus)
	if err == nil {
		err = control.Decode(list, &s)
	}
	return s, err
}

// List asks for all that is in the cache, in the order of the labels and, of
// each, in the order in which it would be found.
func (c *Client) List() (bindings []control.Binding, sessions []control.Session, err error) {
	err = c.entries(control.RequestList, func(entry any) {
		switch entry := entry.(type) {
		case control.Binding:
			bindings = append(bindings, entry)
		case control.Session:
			sessions = append(sessions, entry)
		}
	})
	slices.SortStableFunc(bindings, func(a, b control.Binding) int { return strings.Compare(a.Destination, b.Destination) })
	slices.SortStableFunc(sessions, func(a, b control.Session) int { return strings.Compare(a.Endpoint, b.Endpoint) })
	return bindings, sessions, err
}

// Hits asks for the counts of the busiest labels of a level, and returns them in the
// order of the labels.
func (c *Client) Hits(level string) (all []control.Hits, err error) {
	err = c.entries(control.RequestHits, func(entry any) {
		if h, ok := entry.(control.Hits); ok {
			all = append(all, h)
		}
	}, "level", level)
	slices.SortFunc(all, func(a, b control.Hits) int { return strings.Compare(a.Label, b.Label) })
	return all, err
}

// entries makes a request that is answered by a list of entries.
func (c *Client) entries(request string, each func(entry any), attributes ...string) error {
	if _, err := c.operate(request, attributes...); err != nil {
		return err
	}
	for {
		list, err := c.decode()
		if err != nil {
			return err
		}
		entry, err := control.DecodeEntry(list)
		if err != nil {
			return err
		}
		if entry == (control.End{}) {
			return nil
		}
		each(entry)
	}
}

// Restart makes the server leave everything to a new process, this client
// included.
func (c *Client) Restart() error {
	_, err := c.operate(control.RequestRestart)
	return err
}

// labelsSize bounds the labels of one request, below what a list may have.
const labelsSize = attr.DefaultMaxSize / 2

// FlushAll drops everything.
func (c *Client) FlushAll() (control.Flushed, error) { return c.flush(nil) }

// Flush drops the destinations and endpoints with these labels.
func (c *Client) Flush(labels ...string) (total control.Flushed, err error) {
	for len(labels) > 0 {
		var attributes []string
		for size := 0; len(labels) > 0 && size < labelsSize; labels = labels[1:] {
			attributes = append(attributes, "label", labels[0])
			size += len("label") + len(labels[0]) + 2
		}
		f, err := c.flush(attributes)
		if err != nil {
			return total, err
		}
		total.Sessions += f.Sessions
		total.Bindings += f.Bindings
	}
	return total, nil
}

func (c *Client) flush(attributes []string) (f control.Flushed, err error) {
	list, err := c.operate(control.RequestFlush, attributes...)
	if err == nil {
		err = control.Decode(list, &f)
	}
	return f, err
}

// operate makes an operator's request, with names and values, and returns the
// reply.
func (c *Client) operate(request string, attributes ...string) (attr.List, error) {
	c.out.String("request", request)
	for i := 0; i < len(attributes); i += 2 {
		c.out.String(attributes[i], attributes[i+1])
	}
	if err := c.out.End(); err != nil {
		return nil, err
	}
	list, err := c.decode()
	if err != nil {
		return nil, err
	}
	switch s, err := status(list); {
	case err != nil:
		return nil, err
	case s == Bad:
		return nil, ErrStock
	case s != OK:
		return nil, fmt.Errorf("request %s: status %d", request, s)
	}
	return list, nil
}
