// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"scache/internal/client"
)

// An outage says for how long a server did not answer at a reload.
type outage struct {
	Server       string
	Cached       int
	Milliseconds []float64 // sorted
}

// outageClients is how many clients are connected during a reload.
const outageClients = 300

// measureOutages reloads stock and ours while a client asks one question after the other. The
// time is the longest one that it has waited for an answer.
func (b *bench) measureOutages(r *report) error {
	const repetitions = 5
	for _, cached := range []int{0, 1000, 17_000} {
		for _, server := range b.servers[:2] {
			o := outage{Server: server.name, Cached: cached}
			for range repetitions {
				d, err := measureOutage(server, cached)
				if err != nil {
					return fmt.Errorf("reload of %s: %w", server.name, err)
				}
				o.Milliseconds = append(o.Milliseconds, float64(d.Microseconds())/1000)
			}
			slices.Sort(o.Milliseconds)
			r.Outages = append(r.Outages, o)
		}
		fmt.Fprintln(os.Stderr, "reloaded with", cached, "sessions")
	}
	return nil
}

func measureOutage(server server, cached int) (time.Duration, error) {
	c, err := start(server)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.prepare(scenario{cached: cached}); err != nil {
		return 0, err
	}
	var clients []*client.Client
	for range outageClients {
		cl, err := dial(c.Socket)
		if err == nil {
			_, err = cl.FindEndpoint(missing)
		}
		if err != nil {
			return 0, err
		}
		defer cl.Close()
		clients = append(clients, cl)
	}
	started := make(chan struct{})
	longest := make(chan time.Duration, 1)
	failed := make(chan error, 1)
	go func() {
		wait, err := askUntil(started, clients[0], c.Socket)
		longest <- wait
		failed <- err
	}()
	if err := c.HangUp(); err != nil {
		return 0, err
	}
	err = c.StartWhenNeeded(time.Minute)
	close(started)
	return <-longest, errors.Join(err, <-failed)
}

// askUntil asks one question after the other, and a last one after the next process has
// started. It returns the longest time without an answer.
func askUntil(
	started <-chan struct{}, cl *client.Client, socket string,
) (longest time.Duration, err error) {
	for last := false; !last && err == nil; {
		select {
		case <-started:
			last = true
		default:
		}
		begin := time.Now()
		if cl == nil {
			err = ask(socket)
		} else if _, broken := cl.FindEndpoint(missing); broken != nil {
			cl = nil // smtp(8) would sleep for a second first
			err = ask(socket)
		}
		longest = max(longest, time.Since(begin))
	}
	return longest, err
}

func (r *report) printOutages(w io.Writer) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "reload with %d clients and\tserver\tms without an answer\tmost\t\n", outageClients)
	for _, o := range r.Outages {
		most := o.Milliseconds[len(o.Milliseconds)-1]
		fmt.Fprintf(t, "%d sessions\t%s\t%.1f\t%.1f\t\n",
			o.Cached, o.Server, median(o.Milliseconds), most)
	}
	t.Flush()
}
