// SPDX-License-Identifier: EPL-2.0

package main

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/control"
)

// completionLimit is how long a person who presses a key is kept waiting.
const completionLimit = time.Second

// completeLabels offers the domains and addresses that are cached, and the labels of
// what has none, for so many arguments, or any number.
func (c *site) completeLabels(arguments int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if arguments >= 0 && len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.offer(place)
	}
}

// completeWholeLabels offers the labels as they are, for the requests of delivery
// agents.
func (c *site) completeWholeLabels(arguments int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.offer(func(label string) string { return label })
	}
}

func (c *site) offer(name func(label string) string) ([]string, cobra.ShellCompDirective) {
	c.patience = completionLimit
	all, err := c.list()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, b := range all.Bindings {
		names = append(names, control.Escape(name(b.Destination)), control.Escape(name(b.Endpoint)))
	}
	for _, s := range all.Sessions {
		names = append(names, control.Escape(name(s.Endpoint)))
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
