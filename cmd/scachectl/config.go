// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"scache/internal/mailconf"
	"scache/internal/receivers"
)

// A setting is a parameter as the server reads it.
type setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"set_by"`
	Error  string `json:"error,omitempty"`
}

func newConfigCommand(c *site) *cobra.Command {
	asJSON := false
	cmd := withoutArgs("config", "Show the parameters that the server reads",
		func(cmd *cobra.Command) error {
			system, err := c.open()
			if err != nil {
				return err
			}
			conf, err := system.ServerConfig()
			if err != nil {
				return err
			}
			settings, problems := readSettings(conf)
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), settings)
			} else {
				err = printSettings(cmd.OutOrStdout(), settings)
			}
			return errors.Join(err, problems)
		})
	cmd.Long = `config shows the effective value of every parameter that the server reads, and
where it is set: nowhere (default), at a line of main.cf, or by -o in master.cf.
A value that the server would not take is an error.`
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// readSettings returns the parameters, and all errors in their values.
func readSettings(conf *mailconf.Config) (settings []setting, problems error) {
	for _, p := range mailconf.Parameters {
		if p.Type == mailconf.ReadOnly {
			continue
		}
		one := setting{Name: p.Name, Source: conf.Source(p.Name)}
		one.Value, _ = conf.String(p.Name)
		if one.Source == mailconf.CommandLine {
			one.Source = "master.cf -o"
		}
		if err := conf.Check(p.Name); err != nil {
			one.Error = err.Error()
			problems = errors.Join(problems, err)
		}
		settings = append(settings, one)
	}
	const name = "connection_cache_receivers"
	if text, err := conf.String(name); err == nil {
		if _, err := receivers.Parse(text); err != nil {
			problems = errors.Join(problems, fmt.Errorf("bad value of parameter %s: %w", name, err))
		}
	}
	return settings, problems
}

func printSettings(w io.Writer, settings []setting) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "PARAMETER\tVALUE\tSET BY\n")
	for _, s := range settings {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, s.Value, s.Source)
	}
	return t.Flush()
}
