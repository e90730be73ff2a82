// SPDX-License-Identifier: EPL-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
)

func newStatusCommand(c *site) *cobra.Command {
	asJSON := false
	cmd := terse("status", "Show what the server holds and what it has done", func(cmd *cobra.Command) error {
		s, err := c.status()
		if err != nil {
			return err
		}
		path, err := c.path()
		if err != nil {
			return err
		}
		all := fullStatus{Status: s}
		if c.socket == "" {
			all.Installed = c.installed(s)
		}
		if asJSON {
			return writeJSON(cmd.OutOrStdout(), all)
		}
		return all.print(cmd.OutOrStdout(), path)
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON; times are in seconds")
	return cmd
}

// fullStatus is what the server says, and what is installed.
type fullStatus struct {
	control.Status
	Installed *installed `json:"installed,omitempty"`
}

// installed returns the binary that is installed, if that can be found out.
func (c *site) installed(s control.Status) *installed {
	system, err := c.open()
	if err != nil {
		return nil
	}
	i, err := findInstalled(system, s)
	if err != nil {
		return nil
	}
	return &i
}

func (c *site) status() (s control.Status, err error) {
	err = c.ask(func(cl *client.Client) error {
		s, err = cl.Status()
		return err
	})
	return s, err
}

func writeJSON(w io.Writer, x any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(x)
}

func (all fullStatus) print(w io.Writer, path string) error {
	s := all.Status
	fmt.Fprintf(w, "scache %s, pid %d, up %v, at %s\n\n", s.Version, s.PID, round(s.Uptime), path)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\tnow\tpeak\tlimit\t\n")
	fmt.Fprintf(t, "sessions\t%d\t%d\t%d\t\n", s.Sessions, s.PeakSessions, s.SessionLimit)
	fmt.Fprintf(t, "endpoints\t%d\t%d\t\t\n", s.Endpoints, s.PeakEndpoints)
	fmt.Fprintf(t, "destinations\t%d\t%d\t\t\n", s.Destinations, s.PeakDestinations)
	fmt.Fprintf(t, "clients\t%d\t\t\t\n", s.Clients)
	t.Flush()
	fmt.Fprintln(w)
	seconds := max(time.Duration(max(s.Counted, s.Uptime)).Seconds(), 1) // over all processes
	fmt.Fprintf(t, "lookups\thits\tmisses\thit rate\tper second\t\n")
	for _, l := range []struct {
		name         string
		hits, misses int64
	}{{"destination", s.DestinationHits, s.DestinationMisses}, {"endpoint", s.EndpointHits, s.EndpointMisses}} {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%.1f\t\n", l.name, l.hits, l.misses, percent(l.hits, l.hits+l.misses), float64(l.hits+l.misses)/seconds)
	}
	t.Flush()
	_, err := fmt.Fprintf(w, `
sessions: %d saved (%.1f per second), %d taken over
          %d reused, %d expired, %d dead, %d evicted, %d flushed
clients:  %d connections, %d refused
lost:     %d sessions and clients at reloads, %d log lines
times:    half of the requests took less than %v, 99%% less than %v; half of the reused sessions waited less than %v
settings: ttl limit %v, client timeout %v, liveness check %s, goodbye %s, announcement %s
`,
		s.Saved, float64(s.Saved)/seconds, s.TakenOver,
		s.DestinationHits+s.EndpointHits, s.Expired, s.Dead, s.Evicted, s.Flushed,
		s.Connections, s.Refused, s.Lost, s.LostLines, s.Took.Quantile(0.5), s.Took.Quantile(0.99), s.Waited.Quantile(0.5),
		time.Duration(s.TTLLimit), time.Duration(s.ClientTimeout), onOff(s.LivenessCheck), onOff(s.Goodbye), onOff(s.Announces))
	if i := all.Installed; i != nil && !i.Running {
		_, err = fmt.Fprintf(w, "\nThe installed binary is another one (scache %s): scachectl restart puts it in place.\n", i.Version)
	}
	return err
}

// round writes a time with as many digits as are of interest.
func round(s control.Seconds) time.Duration {
	d := time.Duration(s)
	if d < time.Minute {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

func percent(part, all int64) string {
	if all == 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", 100*part/all)
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
