// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"scache/internal/control"
)

// A listing is how the contents are shown.
type listing struct {
	order   order
	limit   int
	verbose bool
}

func newListCommand(c *site) *cobra.Command {
	l, asJSON := listing{order: "label"}, false
	cmd := &cobra.Command{
		Use:   "list [LABEL]",
		Short: "List destinations, endpoints and sessions",
		Long: `list shows each destination with the endpoints that it is bound to, and each
endpoint with its sessions in sum: the cached connections. Age is the time since
the last save, left is what remains of the time to live.

With LABEL, only what belongs to it is shown: a domain, an address, or a whole label
as list shows it.` + labelHelp,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeLabels(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := unescapeAll(args); err != nil {
				return err
			}
			all, err := c.list()
			if err != nil {
				return err
			}
			if len(args) > 0 {
				all = all.of(args[0])
			}
			if asJSON {
				all.Bindings = arrange(all.Bindings, l.order, l.limit, keyOfBinding)
				all.Sessions = arrange(all.Sessions, l.order, l.limit, keyOfSession)
				return writeJSON(cmd.OutOrStdout(), all.escaped())
			}
			return l.print(cmd.OutOrStdout(), all)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&asJSON, "json", false, "as JSON, with each session; times are in seconds")
	flags.BoolVarP(&l.verbose, "verbose", "v", false, "each session by itself, and with properties")
	flags.IntVar(&l.limit, "limit", 0, "not more rows of each kind than `number`; 0 is all")
	addOrder(cmd, &l.order)
	return cmd
}

func (l listing) print(w io.Writer, all contents) error {
	endpoints := all.endpoints()
	total := fmt.Sprintf("%d destinations, %d bindings, %d endpoints, %d sessions",
		all.destinations(), len(all.Bindings), len(endpoints), len(all.Sessions))

	heading := "DESTINATION\tENDPOINT\tAGE\tLEFT"
	if l.verbose {
		heading += "\tPROPERTY"
	}
	printTable(w, heading, len(all.Bindings), arrange(all.Bindings, l.order, l.limit, keyOfBinding), func(b control.Binding) []any {
		return l.cells(b.Property, control.Escape(b.Destination), control.Escape(b.Endpoint), round(b.Age), round(b.Left))
	})
	if l.verbose {
		printTable(w, "ENDPOINT\tREMOTE\tAGE\tLEFT\tPROPERTY", len(all.Sessions), arrange(all.Sessions, l.order, l.limit, keyOfSession), func(s control.Session) []any {
			return l.cells(s.Property, control.Escape(s.Endpoint), remote(s.Remote), round(s.Age), round(s.Left))
		})
	} else {
		printTable(w, "ENDPOINT\tSESSIONS\tLIMIT\tREMOTE\tAGE\tLEFT", len(endpoints), arrange(endpoints, l.order, l.limit, keyOfEndpoint), func(e endpoint) []any {
			return []any{control.Escape(e.label), e.sessions, cmp.Or(e.limit, "-"), remote(e.remote), round(e.age), round(e.left)}
		})
	}
	_, err := fmt.Fprintln(w, total)
	return err
}

// cells adds the property where it is wanted.
func (l listing) cells(property string, cells ...any) []any {
	if l.verbose {
		return append(cells, control.Escape(property))
	}
	return cells
}

// printTable prints those rows of all that are shown, and an empty line.
func printTable[R any](w io.Writer, heading string, all int, shown []R, cells func(R) []any) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, heading)
	for _, row := range shown {
		for i, cell := range cells(row) {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell)
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	if more := all - len(shown); more > 0 {
		fmt.Fprintf(w, "… %d more\n", more)
	}
	fmt.Fprintln(w)
}

func (all contents) destinations() int {
	labels := map[string]bool{}
	for _, b := range all.Bindings {
		labels[b.Destination] = true
	}
	return len(labels)
}

// remote returns the address at the other end of a session.
func remote(address string) string { return cmp.Or(address, "(opaque)") }
