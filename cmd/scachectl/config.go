// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"scache/internal/mailconf"
)

func newConfigCommand(c *control) *cobra.Command {
	cmd := terse("config", "Show the parameters that the server reads", func(cmd *cobra.Command) error {
		system, err := c.open()
		if err != nil {
			return err
		}
		conf, err := system.ServerConfig()
		if err != nil {
			return err
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "PARAMETER\tVALUE\tSET BY\n")
		var all error
		for _, p := range mailconf.Parameters {
			if p.Type == mailconf.ReadOnly {
				continue
			}
			value, _ := conf.String(p.Name)
			all = errors.Join(all, conf.Check(p.Name))
			source := conf.Source(p.Name)
			if source == mailconf.CommandLine {
				source = "master.cf -o"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", p.Name, value, source)
		}
		return errors.Join(t.Flush(), all)
	})
	cmd.Long = `config shows the effective value of every parameter that the server reads, and
where it is set: nowhere (default), at a line of main.cf, or by -o in master.cf.
A value that the server would not take is an error.`
	return cmd
}
