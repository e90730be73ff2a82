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
// it, such as the stock one. The client can still be used.
var ErrStock = errors.New("the server does not know this request: " +
	"it is the stock scache, or one like it")

// ErrTruncated is the error of a request whose answer is larger than the bounds of the
// client. The part within the bounds is returned with it. The client can only be closed.
var ErrTruncated = errors.New("truncated: the server sends more entries or bytes than are taken")

// Bounds of an answer that the client holds in memory: a false server may send without end.
const (
	maxEntries = 1 << 20
	maxBytes   = 64 << 20 // of the attributes, after escape

	// maxListSize bounds one list of an answer: two labels, a property, and small attributes.
	maxListSize = 4 << 20
)

// Status asks for the state of the server.
func (c *Client) Status() (s control.Status, err error) {
	list, err := c.operate(control.RequestStatus)
	if err == nil {
		err = control.Decode(list, &s)
	}
	return s, err
}

// List asks for everything in the cache. It is sorted by label; entries with the same label
// are in the order of lookups. Labels, properties and addresses are escaped as by
// [control.Escape].
func (c *Client) List() (bindings []control.Binding, sessions []control.Session, err error) {
	err = c.collect(control.RequestList, func(entry any) {
		switch entry := entry.(type) {
		case control.Binding:
			bindings = append(bindings, entry)
		case control.Session:
			sessions = append(sessions, entry)
		}
	})
	slices.SortStableFunc(bindings, func(a, b control.Binding) int {
		return strings.Compare(a.Destination, b.Destination)
	})
	slices.SortStableFunc(sessions, func(a, b control.Session) int {
		return strings.Compare(a.Endpoint, b.Endpoint)
	})
	return bindings, sessions, err
}

// Each asks for everything in the cache, and calls a function for each [control.Binding]
// and [control.Session] in the order of the server. It keeps none of them. The timeout
// of [Ask] is restarted with each entry. If the function returns an error, Each returns it.
func (c *Client) Each(do func(entry any) error) error {
	return c.entries(control.RequestList, func(entry any, _ int) error {
		c.extend()
		return do(entry)
	})
}

// LabelCounts asks for the counts of the busiest labels of a level. It returns them sorted by
// label, each label once. Labels are escaped as by [control.Escape].
func (c *Client) LabelCounts(level string) (all []control.LabelCounts, err error) {
	err = c.collect(control.RequestHits, func(entry any) {
		if h, ok := entry.(control.LabelCounts); ok {
			all = append(all, h)
		}
	}, "level", level)
	slices.SortStableFunc(all, func(a, b control.LabelCounts) int {
		return strings.Compare(a.Label, b.Label)
	})
	all = slices.CompactFunc(all, func(a, b control.LabelCounts) bool { return a.Label == b.Label })
	return all, err
}

// collect is entries for a caller that keeps them. It returns ErrTruncated at a bound.
func (c *Client) collect(request string, add func(entry any), attributes ...string) error {
	entries, bytes := 0, 0
	return c.entries(request, func(entry any, size int) error {
		entries, bytes = entries+1, bytes+size
		if entries > c.maxEntries || bytes > c.maxBytes {
			return ErrTruncated
		}
		add(entry)
		return nil
	}, attributes...)
}

// entries makes a request that is answered by a list of entries, and calls a function
// with each of them and its size.
func (c *Client) entries(request string, do func(entry any, size int) error,
	attributes ...string) error {
	if _, err := c.operate(request, attributes...); err != nil {
		return err
	}
	for {
		list, err := c.decode()
		if err != nil {
			return err
		}
		size := escape(list)
		entry, err := control.DecodeEntry(list)
		if err != nil {
			return err
		}
		if entry == (control.End{}) {
			return nil
		}
		if err := do(entry, size); err != nil {
			return err
		}
	}
}

// escape escapes all values of a reply, so that they are safe for a terminal, a log or a
// metric: the server may be a false one. No other code does this for an operator's
// requests. It returns the size of the values.
func escape(list attr.List) (size int) {
	for i, a := range list {
		list[i].Value = []byte(control.Escape(string(a.Value)))
		size += len(list[i].Value)
	}
	return size
}

// Restart makes the server hand everything over to a new process, including this
// client.
func (c *Client) Restart() error {
	_, err := c.operate(control.RequestRestart)
	return err
}

// labelsSize bounds the labels of one request, below what a list may have.
const labelsSize = attr.DefaultMaxSize / 2

// FlushAll drops everything.
func (c *Client) FlushAll() (control.Flushed, error) { return c.flush(nil) }

// Flush drops the destinations and endpoints with these labels, which are not escaped.
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
// reply, escaped.
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
	escape(list)
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
