// SPDX-License-Identifier: EPL-2.0

package main

import (
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

// measureOutages reloads stock and ours. The time goes from the end of master's status
// channel to the first answer of the next process.
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
	begin := time.Now()
	if err := c.HangUp(); err != nil {
		return 0, err
	}
	answered := make(chan error, 1)
	go func() {
		_, err := clients[0].FindEndpoint(missing)
		if err != nil {
			err = ask(c.Socket) // smtp(8) would sleep for a second first
		}
		answered <- err
	}()
	if err := c.StartWhenNeeded(time.Minute); err != nil {
		return 0, err
	}
	err = <-answered
	return time.Since(begin), err
}

func (r *report) printOutages(w io.Writer) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "reload with %d clients and\tserver\tms to the first answer\tmost\t\n", outageClients)
	for _, o := range r.Outages {
		most := o.Milliseconds[len(o.Milliseconds)-1]
		fmt.Fprintf(t, "%d sessions\t%s\t%.1f\t%.1f\t\n",
			o.Cached, o.Server, median(o.Milliseconds), most)
	}
	t.Flush()
}
