// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/postfix"
)

// restartTimeout is how long the next process may take to answer.
const restartTimeout = 10 * time.Second

func newRestartCommand(c *site) *cobra.Command {
	all := false
	cmd := withoutArgs("restart", "Replace the running process by the installed binary",
		func(cmd *cobra.Command) error {
			if all {
				return c.restartAll(cmd.OutOrStdout())
			}
			return c.restartAndSay(cmd.OutOrStdout())
		})
	cmd.Long = `restart has the daemon hand over to a new process, which master(8) starts at once, and
waits until that answers. No connection and no client is lost, and Postfix need not be
reloaded. Use it after an upgrade. Called by root, it tries the new binary first, as
enable does, and does nothing if it would not serve. With --all, it restarts the server
in each instance of the mail system that this server serves.`
	cmd.Flags().BoolVar(&all, "all", false,
		"in each instance of the mail system that this server serves")
	return cmd
}

// restartAll restarts the servers of this mail system and of its other instances, as far as
// they are ours and run.
func (c *site) restartAll(out io.Writer) error {
	if c.socket != "" {
		return errSocket
	}
	return c.inInstances(out, true, func(dir string) error {
		one := &site{dir: dir}
		if _, err := one.statusWithin(quickTimeout); err != nil {
			return one.excuse(err)
		}
		return one.restartAndSay(out)
	})
}

// excuse returns nil if this server need not answer, and statusErr otherwise.
func (c *site) excuse(statusErr error) error {
	system, err := c.open()
	if err != nil {
		return err
	}
	if running, err := system.Running(); !running || errors.Is(statusErr, client.ErrStock) {
		return err
	}
	_, err = system.Enabled()
	if errors.Is(err, postfix.ErrNotEnabled) || errors.Is(err, postfix.ErrNoEntry) {
		return nil
	}
	return statusErr
}

func (c *site) restartAndSay(out io.Writer) error {
	if err := c.tryInstalled(); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w\nThe entry names a server that is not there; nothing was done\n"+
			"hint: scachectl enable finds the one that is installed", err)
	} else if err != nil {
		return fmt.Errorf("%w\nThe installed server would not serve; nothing was done", err)
	}
	before, after, err := c.restart()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "restarted: scache %s, pid %d, instead of %s, pid %d; "+
		"%d sessions and %d clients go on\n",
		after.version, after.pid, before.version, before.pid, after.sessions, after.clients)
	return err
}

// tryInstalled runs the server of the entry in a trial. Without root, it does nothing.
func (c *site) tryInstalled() error {
	if c.socket != "" || os.Geteuid() != 0 {
		return nil
	}
	system, err := c.open()
	if err != nil {
		return err
	}
	enabled, err := system.Enabled()
	if errors.Is(err, postfix.ErrNotEnabled) {
		return nil // the daemon that is asked to restart returns the error
	}
	if err != nil {
		return err
	}
	if err := system.CheckEntry(enabled.Entry); err != nil {
		return err
	}
	return system.Probe(enabled.Path, enabled.Entry, trialClients()...)
}

// A summary is the part of a server's status that restart prints.
type summary struct {
	version           string
	pid               int64
	sessions, clients int64
}

// restart asks for a restart, and waits for the next process.
func (c *site) restart() (before, after summary, err error) {
	if err := c.ask(func(cl *client.Client) error {
		if before, err = summarize(cl); err != nil {
			return err
		}
		return cl.Restart()
	}); err != nil {
		return before, after, err
	}
	end := time.Now().Add(restartTimeout)
	for ; time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		err = c.ask(func(cl *client.Client) (err error) {
			after, err = summarize(cl)
			return err
		})
		if err == nil && after.pid != before.pid {
			return before, after, nil
		}
	}
	silent := fmt.Errorf("no other process has answered within %v\nhint: see the mail log",
		restartTimeout)
	return before, after, errors.Join(silent, err)
}

func summarize(cl *client.Client) (summary, error) {
	s, err := cl.Status()
	return summary{s.Version, s.PID, s.Sessions, s.Clients}, err
}
