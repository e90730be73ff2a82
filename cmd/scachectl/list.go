// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/operator"
)

// contents is what a cache holds.
type contents struct {
	Bindings []operator.Binding `json:"bindings"`
	Sessions []operator.Session `json:"sessions"`
}

func newListCommand(c *control) *cobra.Command {
	asJSON, verbose := false, false
	cmd := terse("list", "List destinations, endpoints and sessions", func(cmd *cobra.Command) error {
		all, err := c.list()
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(cmd.OutOrStdout(), all)
		}
		return all.print(cmd.OutOrStdout(), verbose)
	})
	cmd.Long = `list shows each destination with the endpoints that it is bound to, and each
endpoint with its sessions: the cached connections. Age is the time since the last
save, left is what remains of the time to live. The lines of a label are shown on
one line.`
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON; times are in seconds, labels as they are")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "with properties")
	return cmd
}

func (c *control) list() (all contents, err error) {
	all = contents{Bindings: []operator.Binding{}, Sessions: []operator.Session{}} // in JSON: empty, not null
	err = c.ask(func(cl *client.Client) error {
		bindings, sessions, err := cl.List()
		all.Bindings = append(all.Bindings, bindings...)
		all.Sessions = append(all.Sessions, sessions...)
		return err
	})
	return all, err
}

func (all contents) print(w io.Writer, verbose bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "DESTINATION, endpoint\tAGE\tLEFT\n")
	last := ""
	for _, b := range all.Bindings {
		if b.Destination != last {
			fmt.Fprintf(t, "%s\t\t\n", oneLine(b.Destination))
			last = b.Destination
		}
		fmt.Fprintf(t, "  %s\t%v\t%v\n", oneLine(b.Endpoint), round(b.Age), round(b.Left))
		if verbose {
			fmt.Fprintf(t, "    %s\t\t\n", oneLine(b.Property))
		}
	}
	t.Flush()
	fmt.Fprintf(w, "\n")
	fmt.Fprintf(t, "ENDPOINT, session\tAGE\tLEFT\n")
	last = ""
	for _, s := range all.Sessions {
		if s.Endpoint != last {
			fmt.Fprintf(t, "%s\t\t\n", oneLine(s.Endpoint))
			last = s.Endpoint
		}
		fmt.Fprintf(t, "  %s\t%v\t%v\n", remote(s), round(s.Age), round(s.Left))
		if verbose {
			fmt.Fprintf(t, "    %s\t\t\n", oneLine(s.Property))
		}
	}
	t.Flush()
	destinations, endpoints := all.count()
	_, err := fmt.Fprintf(w, "\n%d destinations, %d bindings, %d endpoints, %d sessions\n", destinations, len(all.Bindings), endpoints, len(all.Sessions))
	return err
}

func (all contents) count() (destinations, endpoints int) {
	d, e := map[string]bool{}, map[string]bool{}
	for _, b := range all.Bindings {
		d[b.Destination] = true
	}
	for _, s := range all.Sessions {
		e[s.Endpoint] = true
	}
	return len(d), len(e)
}

func remote(s operator.Session) string {
	if s.Remote == "" {
		return "(opaque)"
	}
	return s.Remote
}

// oneLine writes the lines of a label or a property on one line.
func oneLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.Join(lines, " "))
}
