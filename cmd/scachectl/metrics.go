// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"scache/internal/operator"
)

func newMetricsCommand(c *control) *cobra.Command {
	output := "-"
	cmd := terse("metrics", "Print metrics for Prometheus", func(cmd *cobra.Command) error {
		s, err := c.status()
		if err != nil {
			return err
		}
		text := metrics(s, time.Now())
		if output == "-" {
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}
		if st, err := os.Lstat(output); err == nil && !st.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file, and is not replaced", output)
		}
		return renameio.WriteFile(output, text, 0o644, renameio.IgnoreUmask())
	})
	cmd.Long = `metrics prints the state of the server in Prometheus' text format. With --output,
it goes to a file that is replaced in one step, as the textfile collector of
node_exporter wants it.`
	cmd.Flags().StringVar(&output, "output", "-", "write to this `file`; - is standard output")
	cmd.MarkFlagFilename("output", "prom")
	return cmd
}

// A metric is a family of values.
type metric struct {
	name, kind, help string
	samples          []sample
}

type sample struct {
	labels string
	value  float64
}

func metrics(s operator.Status, now time.Time) []byte {
	one := func(n int64) []sample { return []sample{{"", float64(n)}} }
	started := now.Add(-time.Duration(s.Uptime))
	var b bytes.Buffer
	for _, m := range []metric{
		{"scache_build_info", "gauge", "The version of the server; the value is always 1.", []sample{{fmt.Sprintf(`version=%q`, s.Version), 1}}},
		{"scache_start_time_seconds", "gauge", "When the server was started, in seconds since the epoch.", []sample{{"", float64(started.UnixMilli()) / 1000}}},
		{"scache_clients", "gauge", "Clients that are connected: delivery agents, and whoever asks for metrics.", one(s.Clients)},
		{"scache_client_connections_total", "counter", "Connections of clients.", one(s.Connections)},
		{"scache_clients_refused_total", "counter", "Clients that were refused for being another user's.", one(s.Refused)},
		{"scache_sessions", "gauge", "Connections in the cache.", one(s.Sessions)},
		{"scache_endpoints", "gauge", "Endpoints with connections in the cache.", one(s.Endpoints)},
		{"scache_destinations", "gauge", "Destinations that are bound to endpoints.", one(s.Destinations)},
		{"scache_sessions_limit", "gauge", "How many connections the cache takes at present.", one(s.SessionLimit)},
		{"scache_lookups_total", "counter", "Lookups by level and result.", []sample{
			{`level="destination",result="hit"`, float64(s.DestinationHits)},
			{`level="destination",result="miss"`, float64(s.DestinationMisses)},
			{`level="endpoint",result="hit"`, float64(s.EndpointHits)},
			{`level="endpoint",result="miss"`, float64(s.EndpointMisses)},
		}},
		{"scache_sessions_saved_total", "counter", "Connections that delivery agents have saved.", one(s.Saved)},
		{"scache_sessions_taken_over_total", "counter", "Connections that the previous process has left.", one(s.TakenOver)},
		{"scache_sessions_closed_total", "counter", "Connections that the cache has closed, by reason.", []sample{
			{`reason="expired"`, float64(s.Expired)},
			{`reason="dead"`, float64(s.Dead)},
			{`reason="evicted"`, float64(s.Evicted)},
			{`reason="flushed"`, float64(s.Flushed)},
		}},
	} {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind)
		for _, s := range m.samples {
			labels := s.labels
			if labels != "" {
				labels = "{" + labels + "}"
			}
			fmt.Fprintf(&b, "%s%s %s\n", m.name, labels, strings.TrimSuffix(fmt.Sprintf("%.3f", s.value), ".000"))
		}
	}
	return b.Bytes()
}
