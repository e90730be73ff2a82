// SPDX-License-Identifier: EPL-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/fdpass"
)

// A delay says how late a server did what no client waits for, while clients made requests
// as fast as they could.
type delay struct {
	Server      string
	Expiry, Log []float64 // milliseconds, sorted
}

const (
	delayClients = 64
	delaySeconds = 9
	delaySamples = 100 // 17 in a second: of one kind, a server logs 20
)

// measureDelays measures, for stock and ours, how late a session is closed after its time to
// live, and how long it takes until a line is in the log.
func (b *bench) measureDelays(ctx context.Context, r *report) error {
	for _, server := range b.servers[:2] {
		d, err := measureDelay(ctx, server)
		if err != nil {
			return fmt.Errorf("delays of %s: %w", server.name, err)
		}
		r.Delays = append(r.Delays, d)
		fmt.Fprintln(os.Stderr, "delays are measured:", server.name)
	}
	return nil
}

func measureDelay(ctx context.Context, server server) (d delay, err error) {
	d.Server = server.name
	c, err := start(server)
	if err != nil {
		return d, err
	}
	defer c.Close()
	driven := make(chan error, 1)
	go func() {
		_, err := c.drive(ctx, scenario{load: load{
			Workload: "pair", Clients: delayClients, TTL: longTTL, Seconds: delaySeconds,
		}})
		driven <- err
	}()
	logged, err := d.sample(c.Socket)
	if err != nil {
		return d, err
	}
	if err := <-driven; err != nil {
		return d, err
	}
	for text, at := range logged {
		arrived, found := c.Arrived(text)
		if !found {
			return d, fmt.Errorf("%s was not logged", text)
		}
		d.Log = append(d.Log, float64(arrived.Sub(at).Microseconds())/1000)
	}
	slices.Sort(d.Expiry)
	slices.Sort(d.Log)
	return d, nil
}

// sample lets sessions expire, and returns when which texts should have been in the log.
func (d *delay) sample(socket string) (logged map[string]time.Time, err error) {
	cl, err := dial(socket)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var mu sync.Mutex
	var expiring sync.WaitGroup
	defer expiring.Wait()
	logged = map[string]time.Time{}
	for i := range delaySamples {
		time.Sleep((delaySeconds - 3) * time.Second / delaySamples) // the last ones have to expire
		remote, end, err := expire(cl)
		if err != nil {
			return nil, err
		}
		expiring.Go(func() {
			defer remote.Close()
			unix.Read(remote.FD(), make([]byte, 1)) // until the session is closed
			late := float64(time.Since(end).Microseconds()) / 1000
			mu.Lock()
			defer mu.Unlock()
			d.Expiry = append(d.Expiry, late)
		})
		text := fmt.Sprintf("nonsense-%d-", i)
		logged[text] = time.Now()
		if err := provoke(cl, text); err != nil {
			return nil, err
		}
	}
	return logged, nil
}

// expire saves a session for one second. It returns the remote end and the time when the
// server should close the session.
func expire(cl *client.Client) (remote *fdpass.Socket, end time.Time, err error) {
	local, remote, err := fdpass.SocketPair()
	if err != nil {
		return nil, end, err
	}
	defer local.Close()
	status, err := cl.SaveEndpoint(1, "expires", "p", local.FD())
	if err == nil && status != client.OK {
		err = fmt.Errorf("save_endp: status %d", status)
	}
	if err != nil {
		remote.Close()
	}
	return remote, time.Now().Add(time.Second), err
}

// provoke makes a request that a server does not know and logs, and reads its status.
func provoke(cl *client.Client, request string) error {
	if _, err := io.WriteString(cl.Conn, "request\x00"+request+"\x00\x00"); err != nil {
		return err
	}
	_, err := io.ReadFull(cl.Conn, make([]byte, len("status\x001\x00\x00")))
	return err
}

func (r *report) printDelays(w io.Writer) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "under %d clients, ms late\tserver\tmedian\tworst of %d\t\n",
		delayClients, delaySamples)
	for _, d := range r.Delays {
		fmt.Fprintf(t, "a session is closed\t%s\t%.1f\t%.1f\t\n",
			d.Server, median(d.Expiry), d.Expiry[len(d.Expiry)-1])
		fmt.Fprintf(t, "a line is in the log\t%s\t%.1f\t%.1f\t\n",
			d.Server, median(d.Log), d.Log[len(d.Log)-1])
	}
	t.Flush()
}
