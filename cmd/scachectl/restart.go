// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/client"
)

// restartLimit is how long the next process may take to answer.
const restartLimit = 10 * time.Second

func newRestartCommand(c *control) *cobra.Command {
	cmd := terse("restart", "Put the installed binary in the place of the running one", func(cmd *cobra.Command) error {
		before, after, err := c.restart()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "restarted: scache %s, pid %d, instead of %s, pid %d; %d sessions and %d clients go on\n",
			after.version, after.pid, before.version, before.pid, after.sessions, after.clients)
		return err
	})
	cmd.Long = `restart has the daemon leave all that it holds to a new process, which master(8)
starts at once, and waits until that answers. No connection and no client is lost,
and Postfix need not be reloaded. It is how a new version is put in place.`
	return cmd
}

// A look at a running server.
type glance struct {
	version           string
	pid               int64
	sessions, clients int64
}

// restart asks for a restart, and waits for the next process.
func (c *control) restart() (before, after glance, err error) {
	if err := c.ask(func(cl *client.Client) error {
		if before, err = look(cl); err != nil {
			return err
		}
		return cl.Restart()
	}); err != nil {
		return before, after, err
	}
	for end := time.Now().Add(restartLimit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		err = c.ask(func(cl *client.Client) (err error) {
			after, err = look(cl)
			return err
		})
		if err == nil && after.pid != before.pid {
			return before, after, nil
		}
	}
	return before, after, errors.Join(fmt.Errorf("no other process has answered for %v; see the mail log", restartLimit), err)
}

func look(cl *client.Client) (glance, error) {
	s, err := cl.Status()
	return glance{s.Version, s.PID, s.Sessions, s.Clients}, err
}
