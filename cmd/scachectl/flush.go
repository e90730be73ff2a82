// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
)

func newFlushCommand(c *site) *cobra.Command {
	all, dryRun, asJSON := false, false, false
	cmd := &cobra.Command{
		Use:   "flush LABEL... | --all",
		Short: "Close cached connections and forget destinations",
		Long: `flush closes the cached connections of an endpoint, and forgets a destination and
closes the connections of the endpoints that it is bound to. LABEL is a domain, an
address, or a whole label as list shows it.

Connections in use by a delivery agent are not in the cache, and stay.` + labelHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) > 0) == all {
				return fmt.Errorf("flush: say what, or --all")
			}
			return nil
		},
		ValidArgsFunction: c.completeLabels(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := unescapeAll(args); err != nil {
				return err
			}
			f, err := c.flush(args, dryRun)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), f)
			}
			done := "flushed"
			if dryRun {
				done = "nothing was done; without --dry-run: flushed"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %d sessions and %d bindings\n", done, f.Sessions, f.Bindings)
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "everything")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say how much it would be")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// flush flushes what the texts mean, and everything if there is none. In a dry run it
// counts only.
func (c *site) flush(texts []string, dryRun bool) (f control.Flushed, err error) {
	err = c.ask(func(cl *client.Client) error {
		if len(texts) == 0 && !dryRun {
			f, err = cl.FlushAll()
			return err
		}
		bindings, sessions, err := cl.List()
		all := contents{bindings, sessions}
		if err != nil {
			return err
		}
		if len(texts) == 0 {
			f = control.Flushed{Sessions: int64(len(sessions)), Bindings: int64(len(bindings))}
			return nil
		}
		var labels []string
		for _, text := range texts {
			found := all.labels(text)
			if len(found) == 0 {
				return fmt.Errorf("nothing is cached for %s: it is neither a label, nor the domain or address in one (see scachectl list)", control.Escape(text))
			}
			labels = append(labels, found...)
		}
		if dryRun {
			f = all.count(labels)
			return nil
		}
		f, err = cl.Flush(labels...)
		return err
	})
	return f, err
}

// count returns what would be flushed with these labels.
func (all contents) count(labels []string) (f control.Flushed) {
	named, bound := map[string]bool{}, map[string]bool{}
	for _, label := range labels {
		named[label] = true
	}
	for _, b := range all.Bindings {
		if named[b.Destination] {
			f.Bindings++
			bound[b.Endpoint] = true
		}
	}
	for _, s := range all.Sessions {
		if named[s.Endpoint] || bound[s.Endpoint] {
			f.Sessions++
		}
	}
	return f
}
