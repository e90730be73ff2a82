// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"scache/internal/client"
	"scache/internal/postfix"
)

// timeout bounds a conversation. It includes the time that master(8) takes to
// start the server.
const timeout = 10 * time.Second

// open returns the mail system.
func (c *site) open() (*postfix.System, error) {
	s, err := postfix.Open(c.dir)
	if err != nil {
		return nil, fmt.Errorf("%w (option -c tells another directory)", err)
	}
	return s, nil
}

// inInstances does something with the mail system and its other instances, whether or not
// it fails in some, unless it is interrupted. It may be no failure that none is configured.
func (c *site) inInstances(out io.Writer, orNone bool, do func(dir string) error) error {
	system, err := c.open()
	if orNone && errors.Is(err, os.ErrNotExist) {
		_, err = fmt.Fprintf(out, "no mail system is configured: %v\n", err)
		return err
	}
	if err != nil {
		return err
	}
	present, missing, err := system.Instances()
	for _, dir := range missing {
		fmt.Fprintf(out, "warning: %s is in multi_instance_directories, and has no main.cf: left alone\n", dir)
	}
	for _, dir := range present {
		if failed := do(dir); failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", dir, failed))
		}
		if errors.Is(err, errInterrupted) {
			break
		}
	}
	return err
}

// path returns where the server's socket is.
func (c *site) path() (string, error) {
	if c.socket != "" {
		return c.socket, nil
	}
	s, err := c.open()
	if err != nil {
		return "", fmt.Errorf("where is the server? %w, or --socket its path", err)
	}
	return s.Socket()
}

func explainDial(path string, err *net.OpError) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.ENOENT):
		hint = ": there is no such socket; options -c and --socket tell another one"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = ": nobody listens; is Postfix running? (postfix status)"
	case errors.Is(err, syscall.EACCES):
		hint = ": only root and the mail system's own user may connect"
	}
	return fmt.Errorf("connect to %s: %w%s", path, err.Err, hint)
}

// explain adds what can be done about an error of a conversation.
func explain(path string, err error) error {
	if err == nil {
		return nil
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return explainDial(path, op)
	}
	hint := ""
	switch {
	case errors.Is(err, client.ErrStock):
		hint = "; only save and find work with it (scachectl enable switches to this server)"
	case errors.Is(err, os.ErrDeadlineExceeded):
		hint = fmt.Sprintf(": nobody has answered for %v; see the mail log", timeout)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		hint = ": the server has hung up: only root and the mail system's own user may ask; see the mail log"
	}
	return fmt.Errorf("%s: %w%s", path, err, hint)
}

// ask connects, and has the server asked something.
func (c *site) ask(question func(*client.Client) error) error {
	path, err := c.path()
	if err != nil {
		return err
	}
	return explain(path, client.Ask(path, cmp.Or(c.patience, timeout), question))
}
