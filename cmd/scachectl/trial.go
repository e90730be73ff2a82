// SPDX-License-Identifier: EPL-2.0

// The clients of a trial: they save a connection and find it again, before and after a
// handover.

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/fdpass"
	"scache/internal/postfix"
)

// trialLabel is the endpoint of the connection that a trial saves.
const trialLabel = "scachectl trial"

// A trialClient saves a connection, and looks for it.
type trialClient struct {
	saved, peer int // both ends of the connection
}

// trialClients returns the clients of a trial, in their order.
func trialClients() []func(postfix.Trial) error {
	c := &trialClient{-1, -1}
	return []func(postfix.Trial) error{c.before, c.after}
}

// before is the client of the first process, which hands the saved connection over.
func (c *trialClient) before(t postfix.Trial) error {
	cl := client.Detect(fdpass.New(t.Conn))
	if _, err := cl.Status(); err != nil {
		return err
	}
	pair, err := fdpass.Pair()
	if err != nil {
		return err
	}
	c.saved, c.peer = pair[0], pair[1]
	if err := c.save(cl, t); err != nil {
		return err
	}
	if err := c.find(cl, errNotSentBack); err != nil {
		return err
	}
	return c.save(cl, t)
}

// after is the client of the second process.
func (c *trialClient) after(t postfix.Trial) error {
	defer unix.Close(c.saved)
	defer unix.Close(c.peer)
	cl := client.Detect(fdpass.New(t.Conn))
	// The process serves new clients while it still receives what was handed over.
	for end := time.Now().Add(handoverTimeout); ; time.Sleep(10 * time.Millisecond) {
		err := c.find(cl, errLostInHandover)
		if err != errLostInHandover || time.Now().After(end) {
			return err
		}
	}
}

// handoverTimeout is how long a process may take to receive one connection.
const handoverTimeout = 3 * time.Second

var (
	errNotSentBack    = errors.New("the server did not find the connection that it had saved")
	errLostInHandover = errors.New("a connection was lost in the handover to the next process")
)

func (c *trialClient) save(cl *client.Client, t postfix.Trial) error {
	const ttl = 3600
	status, err := cl.SaveEndpoint(ttl, trialLabel, "", c.saved)
	if err == nil && status != client.OK {
		err = descriptorError("the server did not receive a descriptor", t.PID)
	}
	return err
}

func (c *trialClient) find(cl *client.Client, otherwise error) error {
	found, err := cl.FindEndpoint(trialLabel)
	switch {
	case errors.Is(err, fdpass.ErrLost), errors.Is(err, fdpass.ErrDenied),
		errors.Is(err, fdpass.ErrNone):
		return descriptorError("scachectl did not receive a descriptor", os.Getpid())
	case err != nil:
		return err
	case found.Code != client.OK:
		return otherwise
	}
	defer unix.Close(found.FD)
	if !sameFile(found.FD, c.saved) {
		return errors.New("the server sent another descriptor than the one that was saved")
	}
	return nil
}

func sameFile(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// descriptorError explains why a process has not received a descriptor: its limit of open
// files is reached, or else the kernel denies it.
func descriptorError(what string, pid int) error {
	open, limit, err := openFiles(pid)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case open+1 >= limit:
		return fmt.Errorf("%s: it has %d open files, and the limit is %d\n"+
			"hint: raise the limit of open files (systemd: LimitNOFILE)",
			what, open, limit)
	}
	return fmt.Errorf("%s, although it has only %d of %d open files: "+
		"mandatory access control (SELinux, AppArmor) seems to deny it\n"+
		"hint: look for denials: ausearch -m avc -ts recent, or journalctl -k -g 'apparmor|avc'",
		what, open, limit)
}
