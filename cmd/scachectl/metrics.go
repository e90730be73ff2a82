// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/google/renameio/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/spf13/cobra"

	"scache/internal/metrics"
)

func newMetricsCommand(c *site) *cobra.Command {
	output, hits := "-", false
	cmd := withoutArgs("metrics", "Print metrics for Prometheus", func(cmd *cobra.Command) error {
		text, err := writeMetrics(&metrics.Collector{Sources: c.sources, Hits: hits})
		if err != nil {
			return err
		}
		if output == "-" {
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}
		if st, err := os.Lstat(output); err == nil && !st.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file: not replaced", output)
		}
		return replaceFile(output, text)
	})
	cmd.Long = `metrics prints the state of the server of each instance of the mail system, or of one
instance with -c, in the text format of Prometheus. A server that does not answer within
a second, or is the stock one, has scache_up 0. With --output, metrics replaces a file in
one step, as the textfile collector of node_exporter needs it, with mode 0644.
scache_exporter serves the same metrics over HTTP.`
	cmd.Flags().StringVar(&output, "output", output, "write to this `file`; - is standard output")
	cmd.Flags().BoolVar(&hits, "hits", false,
		"also print counters of the 20 busiest destinations and endpoints")
	cmd.MarkFlagFilename("output", "prom")
	return cmd
}

// replaceFile writes a file in one step. Another user reads it: umask and mode of an earlier
// file do not matter.
func replaceFile(path string, text []byte) error {
	f, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(0o644))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// sources returns the servers whose metrics are printed.
func (c *site) sources() []metrics.Source {
	switch {
	case c.socket != "":
		return []metrics.Source{{Instance: c.socket, Socket: c.socket}}
	case c.dir != "":
		return metrics.Systems([]string{c.dir})
	}
	return metrics.Systems(nil)
}

func writeMetrics(c prometheus.Collector) ([]byte, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&b, family); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}
