// SPDX-License-Identifier: EPL-2.0

package main

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/client"
)

// completionTimeout bounds how long completion takes: a person waits for it.
const completionTimeout = time.Second

// completeLabels offers the domains and addresses that are cached, and labels that have
// neither. It does so for up to this number of arguments, or for any if it is negative.
func (c *site) completeLabels(arguments int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if arguments >= 0 && len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.offer(placeOf)
	}
}

// completeWholeLabels offers whole labels, for the requests of delivery agents.
func (c *site) completeWholeLabels(arguments int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.offer(func(label string) string { return label })
	}
}

func (c *site) offer(name func(shown string) string) ([]string, cobra.ShellCompDirective) {
	var all contents
	err := c.askWithin(completionTimeout, func(cl *client.Client) (err error) {
		all, err = listOf(cl)
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, b := range all.Bindings {
		names = append(names, name(b.Destination), name(b.Endpoint))
	}
	for _, s := range all.Sessions {
		names = append(names, name(s.Endpoint))
	}
	slices.Sort(names)
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
