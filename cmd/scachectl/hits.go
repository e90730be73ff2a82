// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
)

// counts are what hits can be sorted by.
var counts = []struct {
	name  string
	value func(control.LabelCounts) int64
}{
	{"lookups", lookups},
	{"misses", func(h control.LabelCounts) int64 { return h.Misses }},
	{"hits", func(h control.LabelCounts) int64 { return h.Hits }},
	{"saves", func(h control.LabelCounts) int64 { return h.Saves }},
	{"expired", func(h control.LabelCounts) int64 { return h.Expired }},
	{"dead", func(h control.LabelCounts) int64 { return h.Dead }},
	{"evicted", func(h control.LabelCounts) int64 { return h.Evicted }},
	{"flushed", func(h control.LabelCounts) int64 { return h.Flushed }},
}

func lookups(h control.LabelCounts) int64 { return h.Hits + h.Misses }

const hitsHelp = `hits shows the busiest destinations, or endpoints: how often each was looked up,
with a connection found (hits) or not (misses), how often a connection was saved for it, and
what became of the others: expired, closed by the remote end before they were wanted
(dead), closed to make room for others (evicted), or dropped by an operator (flushed).
The counts continue over reloads.

Up to 1,000 of each kind are counted. One that takes the place of another may have had
more events before: at most as many as the error says.

Many misses and few saves: delivery agents do not save connections for it. Many misses
and many expired: mail is too rare for the time limit. Many dead: the receiver's time
limit is shorter than ours. "scachectl explain" looks at one destination.`

func newHitsCommand(c *site) *cobra.Command {
	level, sort, limit, asJSON, names := control.LevelDestination, "misses", 20, false, naming{}
	var orders []string
	for _, count := range counts {
		orders = append(orders, count.name)
	}
	const short = "Show which destinations reuse connections, and what became of saved ones"
	cmd := withoutArgs("hits", short,
		func(cmd *cobra.Command) error {
			if !slices.Contains(orders, sort) {
				return usageError{fmt.Errorf("--sort %s: want one of %s", sort, strings.Join(orders, ", "))}
			}
			if level != control.LevelDestination && level != control.LevelEndpoint {
				return usageError{fmt.Errorf("--by %s: want destination or endpoint", level)}
			}
			all, truncated, err := c.hits(level)
			if err != nil {
				return err
			}
			if truncated {
				warnTruncated(cmd)
			}
			value := counts[slices.Index(orders, sort)].value
			slices.SortStableFunc(all, func(a, b control.LabelCounts) int {
				return cmp.Compare(value(b), value(a))
			})
			shown := all
			if limit > 0 {
				shown = all[:min(limit, len(all))]
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), append([]control.LabelCounts{}, shown...)) // not null
			}
			return hitsTable(level, shown, names).print(cmd.OutOrStdout(), len(all)-len(shown))
		})
	cmd.Long = hitsHelp
	flags := cmd.Flags()
	flags.StringVar(&level, "by", level, "destination or endpoint")
	flags.StringVar(&sort, "sort", sort, "sort by "+strings.Join(orders, ", ")+", the highest first")
	flags.IntVar(&limit, "limit", limit, "show at most `number` rows; 0 is all")
	flags.BoolVar(&asJSON, "json", false, "print JSON; times are in seconds")
	names.addLabels(cmd)
	cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(orders,
		cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions([]string{control.LevelDestination,
		control.LevelEndpoint}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// hits asks for the counts of a level.
func (c *site) hits(level string) (all []control.LabelCounts, truncated bool, err error) {
	err = c.ask(func(cl *client.Client) error {
		all, err = cl.LabelCounts(level)
		return err
	})
	if errors.Is(err, client.ErrTruncated) {
		return all, true, nil
	}
	return all, false, err
}

func hitsTable(level string, shown []control.LabelCounts, names naming) *table {
	heading := strings.ToUpper(level) +
		"|>LOOKUPS|>HITS|>MISSES|>HIT RATE|>SAVES|>EXPIRED|>DEAD|>EVICTED|>FLUSHED|>ERROR|>COUNTED"
	if level == control.LevelEndpoint {
		heading += "|RECEIVER"
	}
	t := newTable(heading)
	for _, h := range shown {
		cells := []any{names.of(h.Label), lookups(h), h.Hits, h.Misses, percent(h.Hits, lookups(h)),
			h.Saves, h.Expired, h.Dead, h.Evicted, h.Flushed, h.Error, age(h.Counted)}
		if level == control.LevelEndpoint {
			cells = append(cells, cmp.Or(h.Receiver, "-"))
		}
		t.add(cells...)
	}
	return t
}
