// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"scache/internal/client"
)

// usualTimeout bounds a conversation. It includes the time that master(8) takes to
// start the server.
const usualTimeout = 10 * time.Second

// onlyOwner is a hint for a server that refuses the connection.
const onlyOwner = "only root and the mail system's own user may ask the server"

// ask connects to the server, and calls question with the client.
func (c *site) ask(question func(*client.Client) error) error {
	return c.askWithin(usualTimeout, question)
}

// askWithin is ask with another timeout.
func (c *site) askWithin(timeout time.Duration, question func(*client.Client) error) error {
	path, err := c.path()
	if err != nil {
		return err
	}
	return conversationError(path, timeout, client.Ask(path, timeout, question))
}

// conversationError adds the path of the socket and hints to an error.
func conversationError(path string, timeout time.Duration, err error) error {
	if err == nil {
		return nil
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return dialError(path, op)
	}
	at := fmt.Errorf("%s: %w", path, err)
	switch {
	case errors.Is(err, client.ErrStock):
		return hintError(at, "scachectl enable switches to this server",
			"with the stock server, only scachectl debug works")
	case errors.Is(err, os.ErrDeadlineExceeded):
		at = fmt.Errorf("%s: no answer within %v: %w", path, timeout, os.ErrDeadlineExceeded)
		return hintError(at, "the mail log says why the server did not start, or what keeps it busy")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		at = fmt.Errorf("%s: the server has hung up: %w", path, err)
		return hintError(at, onlyOwner+"; see the mail log")
	}
	return at
}

// dialError is conversationError for an error of connect(2).
func dialError(path string, err *net.OpError) error {
	cause := err.Err
	if errno, ok := errors.AsType[syscall.Errno](cause); ok {
		cause = errno
	}
	at := fmt.Errorf("connect to %s: %w", path, cause)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return hintError(at, "there is no such socket: was Postfix started?",
			"options -c and --socket name another one")
	case errors.Is(err, syscall.ECONNREFUSED):
		return hintError(at, "no process listens there: is Postfix running? (postfix status)")
	case errors.Is(err, syscall.EACCES):
		return hintError(at, onlyOwner)
	}
	return at
}
