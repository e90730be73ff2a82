// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/postfix"
)

// A site is the mail system and the server that a command is about. There is one for each
// call, or for each instance of the mail system.
type site struct {
	socket string // option --socket, or empty
	dir    string // option --config: of main.cf and master.cf, or empty

	system *postfix.System // set when main.cf was read
}

// open returns the mail system. It reads main.cf once.
func (c *site) open() (*postfix.System, error) {
	if c.system == nil {
		system, err := postfix.Open(c.dir)
		if err != nil {
			return nil, hintError(err, "option -c names another directory of main.cf")
		}
		c.system = system
	}
	return c.system, nil
}

// path returns the path of the server's socket.
func (c *site) path() (string, error) {
	if c.socket != "" {
		return c.socket, nil
	}
	system, err := c.open()
	if err != nil {
		err = fmt.Errorf("cannot find the server's socket: %w", err)
		return "", hintError(err, "option --socket names the socket itself")
	}
	return system.Socket()
}

// status asks the server for its status.
func (c *site) status() (control.Status, error) { return c.statusWithin(usualTimeout) }

func (c *site) statusWithin(timeout time.Duration) (s control.Status, err error) {
	err = c.askWithin(timeout, func(cl *client.Client) error {
		s, err = cl.Status()
		return err
	})
	return s, err
}

// inInstances calls a function for the mail system and its other instances. It continues
// after an error, unless it is interrupted. If orNone is set, it is not an error that no
// mail system is configured.
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
		fmt.Fprintf(out, "warning: %s is in multi_instance_directories, and has no main.cf: skipped\n",
			dir)
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
