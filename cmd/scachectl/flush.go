// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/operator"
)

func newFlushCommand(c *control) *cobra.Command {
	return &cobra.Command{
		Use:   "flush [LABEL]",
		Short: "Close cached connections and forget destinations",
		Long: `flush closes all cached connections and forgets all destinations, or those with
this label: as list shows it, or one of its lines, such as a domain or an address.
With a destination go the sessions of the endpoints that it is bound to.

Connections in use by a delivery agent are not in the cache, and stay.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var f operator.Flushed
			err := c.ask(func(cl *client.Client) (err error) {
				if len(args) == 0 {
					f, err = cl.Flush()
				} else {
					f, err = flushMatching(cl, args[0])
				}
				return err
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "flushed %d sessions and %d bindings\n", f.Sessions, f.Bindings)
			return err
		},
	}
}

// flushMatching flushes all labels that the text is meant for.
func flushMatching(cl *client.Client, text string) (total operator.Flushed, err error) {
	bindings, sessions, err := cl.List()
	if err != nil {
		return total, err
	}
	var labels []string
	for _, b := range bindings {
		labels = append(labels, b.Destination)
	}
	for _, s := range sessions {
		labels = append(labels, s.Endpoint)
	}
	labels = slices.DeleteFunc(labels, func(label string) bool { return !matches(label, text) })
	if len(labels) == 0 {
		return total, fmt.Errorf("no destination or endpoint has the label %q, or a line like this (see scachectl list)", text)
	}
	slices.Sort(labels)
	for _, label := range slices.Compact(labels) {
		f, err := cl.FlushLabel(label)
		if err != nil {
			return total, err
		}
		total.Sessions += f.Sessions
		total.Bindings += f.Bindings
	}
	return total, nil
}

// matches tells whether a text is a label, in one line or as it is, or one line
// of it.
func matches(label, text string) bool {
	return text == label || text == oneLine(label) || text != "" && slices.Contains(strings.Split(label, "\n"), text)
}
