// SPDX-License-Identifier: EPL-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/control"
	"scache/internal/stats"
)

func newStatusCommand(c *site) *cobra.Command {
	asJSON := false
	const short = "Show what the server holds and what it has done"
	cmd := withoutArgs("status", short, func(cmd *cobra.Command) error {
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
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON; times are in seconds")
	return cmd
}

// fullStatus is the status of the server, and the installed binary.
type fullStatus struct {
	control.Status
	Installed *installed `json:"installed" help:"The installed binary, if it is known."`
}

// MarshalJSON implements json.Marshaler.
func (all fullStatus) MarshalJSON() ([]byte, error) { return control.MarshalFields(&all) }

// installed returns the installed binary, or nil if it cannot be found.
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
	printSizes(t, &s.Values)
	fmt.Fprintln(w)
	seconds := max(time.Duration(max(s.Counted, s.Uptime)).Seconds(), 1) // over all processes
	printLookups(t, &s.Values, seconds)
	fmt.Fprintln(w)
	printEvents(w, &s.Values, seconds)
	_, err := fmt.Fprintf(w, "times:    half of the requests took less than %v, 99%% less than %v; "+
		"half of the reused sessions waited less than %v\n",
		s.Took.Quantile(0.5), s.Took.Quantile(0.99), s.Waited.Quantile(0.5))
	fmt.Fprintf(w, "settings: ttl limit %v, client timeout %v, liveness check %s, "+
		"goodbye %s, announcement %s\n",
		time.Duration(s.TTLLimit), time.Duration(s.ClientTimeout),
		onOff(s.LivenessCheck), onOff(s.Goodbye), onOff(s.Announces))
	if i := all.Installed; i != nil && !i.Running {
		_, err = fmt.Fprintf(w, "\nThe installed binary is another one (scache %s): "+
			"scachectl restart puts it in place.\n", i.Version)
	}
	return err
}

// printSizes prints what the server holds, a row for each kind.
func printSizes(t *tabwriter.Writer, v *stats.Values) {
	columns := []string{"now", "peak", "limit"}
	fmt.Fprintf(t, "\t%s\t\n", strings.Join(columns, "\t"))
	for _, row := range stats.Rows(stats.Sizes) {
		cells := map[string]string{}
		for _, n := range stats.Columns(stats.Sizes, row) {
			cells[n.Place.Column] = fmt.Sprint(*n.Field(v))
		}
		fmt.Fprintf(t, "%s\t", row)
		for _, column := range columns {
			fmt.Fprintf(t, "%s\t", cells[column])
		}
		fmt.Fprintln(t)
	}
	t.Flush()
}

// printLookups prints hits and misses, a row for each level.
func printLookups(t *tabwriter.Writer, v *stats.Values, seconds float64) {
	fmt.Fprintf(t, "lookups\thits\tmisses\thit rate\tper second\t\n")
	for _, row := range stats.Rows(stats.Lookups) {
		cells := map[string]int64{}
		for _, n := range stats.Columns(stats.Lookups, row) {
			cells[n.Place.Column] = *n.Field(v)
		}
		hits, misses := cells["hits"], cells["misses"]
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%.1f\t\n",
			row, hits, misses, percent(hits, hits+misses), float64(hits+misses)/seconds)
	}
	t.Flush()
}

// printEvents prints what has happened, a line for each row.
func printEvents(w io.Writer, v *stats.Values, seconds float64) {
	for _, row := range stats.Rows(stats.Events) {
		var cells []string
		for _, n := range stats.Columns(stats.Events, row) {
			cell := fmt.Sprintf("%d %s", *n.Field(v), n.Place.Column)
			if n.Name == "saved" {
				cell += fmt.Sprintf(" (%.1f per second)", float64(v.Saved)/seconds)
			}
			cells = append(cells, cell)
		}
		if row == "sessions" {
			cells = append(cells, fmt.Sprintf("%d reused", v.DestinationHits+v.EndpointHits))
		}
		fmt.Fprintf(w, "%-9s %s\n", row+":", strings.Join(cells, ", "))
	}
}

// round rounds a time to tenths of a second or, from a minute on, to seconds.
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
