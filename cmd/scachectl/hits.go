// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
)

// counts are what hits can be sorted by.
var counts = []struct {
	name  string
	value func(control.Hits) int64
}{
	{"lookups", lookups},
	{"misses", func(h control.Hits) int64 { return h.Misses }},
	{"hits", func(h control.Hits) int64 { return h.Hits }},
	{"saves", func(h control.Hits) int64 { return h.Saves }},
	{"expired", func(h control.Hits) int64 { return h.Expired }},
	{"dead", func(h control.Hits) int64 { return h.Dead }},
	{"evicted", func(h control.Hits) int64 { return h.Evicted }},
	{"flushed", func(h control.Hits) int64 { return h.Flushed }},
}

func lookups(h control.Hits) int64 { return h.Hits + h.Misses }

func newHitsCommand(c *site) *cobra.Command {
	level, sort, limit, asJSON := control.LevelDestination, "misses", 20, false
	var names []string
	for _, count := range counts {
		names = append(names, count.name)
	}
	cmd := terse("hits", "Show who reuses connections, and who does not and why", func(cmd *cobra.Command) error {
		if !slices.Contains(names, sort) {
			return usageError(fmt.Errorf("--sort %s: want one of %s", sort, strings.Join(names, ", ")))
		}
		if level != control.LevelDestination && level != control.LevelEndpoint {
			return usageError(fmt.Errorf("--by %s: want destination or endpoint", level))
		}
		all, err := c.hits(level)
		if err != nil {
			return err
		}
		value := counts[slices.Index(names, sort)].value
		slices.SortStableFunc(all, func(a, b control.Hits) int { return cmp.Compare(value(b), value(a)) })
		shown := all
		if limit > 0 {
			shown = all[:min(limit, len(all))]
		}
		if asJSON {
			shown = append([]control.Hits{}, shown...)
			for i := range shown {
				shown[i].Label = control.Escape(shown[i].Label)
			}
			return writeJSON(cmd.OutOrStdout(), shown)
		}
		printHits(cmd.OutOrStdout(), level, len(all), shown)
		return nil
	})
	cmd.Long = `hits shows the busiest destinations, or endpoints: how often each was looked up, with
a connection found (hits) or not (misses), how often something was saved for it, and
what became of that: it expired, the remote end had closed it before it was wanted
(dead), it had to make room for others (evicted), or an operator had it dropped
(flushed). The counts continue over reloads.

Up to 1,000 of each are counted. One that comes in place of another one may have had
more events before, not more than the error says.

Many misses and few saves: agents do not save for it. Many misses and many expired: mail
comes too rarely for the time limit. Many dead: the time limit is longer than the
receiver's.`
	flags := cmd.Flags()
	flags.StringVar(&level, "by", level, "destination or endpoint")
	flags.StringVar(&sort, "sort", sort, "by "+strings.Join(names, ", ")+"; the most comes first")
	flags.IntVar(&limit, "limit", limit, "not more rows than `number`; 0 is all")
	flags.BoolVar(&asJSON, "json", false, "as JSON; times are in seconds")
	cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{control.LevelDestination, control.LevelEndpoint}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *site) hits(level string) (all []control.Hits, err error) {
	err = c.ask(func(cl *client.Client) error {
		all, err = cl.Hits(level)
		return err
	})
	return all, err
}

func printHits(w io.Writer, level string, all int, shown []control.Hits) {
	heading := strings.ToUpper(level) + "\tLOOKUPS\tHITS\tMISSES\tHIT RATE\tSAVES\tEXPIRED\tDEAD\tEVICTED\tFLUSHED\tERROR\tCOUNTED"
	if level == control.LevelEndpoint {
		heading += "\tLIMIT"
	}
	printTable(w, heading, all, shown, func(h control.Hits) []any {
		cells := []any{control.Escape(h.Label), lookups(h), h.Hits, h.Misses, percent(h.Hits, lookups(h)), h.Saves, h.Expired, h.Dead, h.Evicted, h.Flushed, h.Error, round(h.Counted)}
		if level == control.LevelEndpoint {
			cells = append(cells, cmp.Or(h.Limit, "-"))
		}
		return cells
	})
}
