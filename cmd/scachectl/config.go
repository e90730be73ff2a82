// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"scache/internal/mailconf"
)

func newConfigCommand(c *control) *cobra.Command {
	cmd := terse("config", "Show the parameters that the server reads", func(cmd *cobra.Command) error {
		conf, err := c.serverConfig()
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

// serverConfig returns main.cf with the -o options of the server's entry in
// master.cf.
func (c *control) serverConfig() (*mailconf.Config, error) {
	conf, err := c.readConfig()
	if err != nil {
		return nil, err
	}
	name, err := conf.String("connection_cache_service_name")
	if err != nil {
		return nil, err
	}
	conf.SetReadOnly("service_name", name)
	options, err := c.options(name + "/unix")
	if err != nil {
		return nil, err
	}
	for _, option := range options {
		if err := conf.Override(option); err != nil {
			return nil, fmt.Errorf("master.cf: %w", err)
		}
	}
	return conf, nil
}

// options returns what the entry of a service in master.cf sets with -o, each as
// "name = value".
func (c *control) options(service string) (all []string, err error) {
	out, err := exec.Command("postconf", "-c", c.configDir(), "-P").Output()
	if err != nil {
		return nil, commandError("postconf -P", err)
	}
	for line := range strings.Lines(string(out)) {
		if option, found := strings.CutPrefix(line, service+"/"); found {
			all = append(all, strings.TrimSuffix(option, "\n"))
		}
	}
	return all, nil
}

// commandError adds what a command has said to its error.
func commandError(command string, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(exit.Stderr)))
	}
	return fmt.Errorf("%s: %w", command, err)
}
