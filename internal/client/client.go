// SPDX-License-Identifier: EPL-2.0

// Package client speaks to a connection cache server: to ours or the stock one, as smtp(8)
// does, and to ours, as an operator does.
package client

import (
	"fmt"
	"io"
	"time"

	"scache/attr"
	"scache/internal/control"
	"scache/internal/fdpass"
)

// A Code is the status of a reply.
type Code = control.Code

// The values of a Code.
const (
	OK       = control.OK
	Bad      = control.Bad
	NotFound = control.NotFound
)

// A Conn is a stream that descriptors can be passed over, such as a Conn of
// package fdpass.
type Conn interface {
	io.ReadWriteCloser
	Send(fd int) error
	Take() (fd int, err error)
}

// A Client is a connection to a server. Its methods are not safe for concurrent
// use. After an error it can only be closed.
type Client struct {
	Conn  Conn
	in    *attr.Decoder
	out   *attr.Encoder
	first bool // the next list from the server may be the announcement

	maxEntries, maxBytes int    // bound an answer that is collected
	extend               func() // restarts the timeout of Ask
}

// Ask connects to the server at a path, and calls question with the client. The timeout is for
// everything, including the connection.
func Ask(path string, timeout time.Duration, question func(*Client) error) error {
	conn, err := fdpass.Dial(path, timeout)
	if err != nil {
		return err
	}
	c := Detect(fdpass.New(conn))
	defer c.Close()
	c.extend = func() { conn.SetDeadline(time.Now().Add(timeout)) }
	c.extend()
	return question(c)
}

// Detect returns a client on a connection to a server that may speak first or
// not: its first request does not wait for that.
func Detect(conn Conn) *Client {
	c := &Client{
		Conn: conn, in: attr.NewDecoder(conn), out: attr.NewEncoder(conn), first: true,
		maxEntries: maxEntries, maxBytes: maxBytes, extend: func() {},
	}
	c.in.SetMaxSize(maxListSize)
	return c
}

func checkProtocol(list attr.List) error {
	if string(list[0].Value) != "connection_cache_protocol" {
		return fmt.Errorf("the server speaks %q, not connection_cache_protocol", list[0].Value)
	}
	return nil
}

// decode returns the next list that is not an announcement.
func (c *Client) decode() (attr.List, error) {
	list, err := c.in.Decode()
	if c.first && err == nil && list.Expect("protocol") == nil {
		if err := checkProtocol(list); err != nil {
			return nil, err
		}
		list, err = c.in.Decode()
	}
	c.first = false
	return list, unexpected(err)
}

// unexpected returns the error of a read while a reply is due: then io.EOF is unexpected.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close closes the connection.
func (c *Client) Close() error { return c.Conn.Close() }

// SaveEndpoint saves a session. The caller keeps its own copy of the
// descriptor.
func (c *Client) SaveEndpoint(ttl int32, label, property string, fd int) (Code, error) {
	c.out.String("request", control.RequestSaveEndpoint)
	c.out.Int("ttl", ttl)
	c.out.String("label", label)
	c.out.String("property", property)
	if err := c.out.End(); err != nil {
		return Bad, err
	}
	// The server asks for the descriptor, or answers with an error at once.
	list, err := c.decode()
	if err != nil {
		return Bad, err
	}
	if list.Expect("dummy") != nil {
		return status(list)
	}
	if err := c.Conn.Send(fd); err != nil {
		return Bad, err
	}
	return c.receiveStatus()
}

// SaveDestination saves a binding.
func (c *Client) SaveDestination(ttl int32, label, property, endpoint string) (Code, error) {
	c.out.String("request", control.RequestSaveDestination)
	c.out.Int("ttl", ttl)
	c.out.String("label", label)
	c.out.String("property", property)
	c.out.String("label", endpoint)
	if err := c.out.End(); err != nil {
		return Bad, err
	}
	return c.receiveStatus()
}

// Found is the reply to a request to find a session. The descriptor belongs to
// the caller, if Code is OK.
type Found struct {
	Code                Code
	DestinationProperty string // only if it was found by destination
	Property            string
	FD                  int
}

// FindEndpoint asks for a session of an endpoint.
func (c *Client) FindEndpoint(label string) (Found, error) {
	list, err := c.find(control.RequestFindEndpoint, label, "status", "property")
	if err != nil {
		return Found{}, err
	}
	return c.accept(list, Found{Property: string(list[1].Value)})
}

// FindDestination asks for a session of any endpoint of a destination.
func (c *Client) FindDestination(label string) (Found, error) {
	list, err := c.find(control.RequestFindDestination, label, "status", "property", "property")
	if err != nil {
		return Found{}, err
	}
	return c.accept(list, Found{
		DestinationProperty: string(list[1].Value),
		Property:            string(list[2].Value),
	})
}

func (c *Client) find(request, label string, reply ...string) (attr.List, error) {
	c.out.String("request", request)
	c.out.String("label", label)
	if err := c.out.End(); err != nil {
		return nil, err
	}
	return c.receive(reply...)
}

// accept asks for the descriptor of a session that was found, and acknowledges
// it.
func (c *Client) accept(list attr.List, f Found) (Found, error) {
	var err error
	if f.Code, err = status(list); err != nil || f.Code != OK {
		return f, err
	}
	if err := c.sendDummy(); err != nil {
		return f, err
	}
	if _, err := c.in.ReadByte(); err != nil {
		return f, unexpected(err)
	}
	if f.FD, err = c.Conn.Take(); err != nil {
		return f, err
	}
	return f, c.sendDummy()
}

func (c *Client) sendDummy() error {
	c.out.String("dummy", "")
	return c.out.End()
}

func (c *Client) receiveStatus() (Code, error) {
	list, err := c.receive("status")
	if err != nil {
		return Bad, err
	}
	return status(list)
}

func (c *Client) receive(names ...string) (attr.List, error) {
	list, err := c.decode()
	if err != nil {
		return nil, err
	}
	return list, list.Expect(names...)
}

// status returns the value of the first attribute, which must be a status.
func status(list attr.List) (Code, error) {
	if a, found := list.Lookup("status"); found {
		n, err := a.Int()
		return Code(n), err
	}
	return Bad, fmt.Errorf("reply without a status: %q", list)
}
