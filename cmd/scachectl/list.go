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
	var lines []line
	for i, b := range all.Bindings {
		if i == 0 || b.Destination != all.Bindings[i-1].Destination {
			lines = append(lines, line{name: oneLine(b.Destination)})
		}
		lines = append(lines, line{"  " + oneLine(b.Endpoint), round(b.Age).String(), round(b.Left).String(), oneLine(b.Property)})
	}
	printLines(w, "DESTINATION, endpoint", lines, verbose)
	fmt.Fprintln(w)
	lines = nil
	for i, s := range all.Sessions {
		if i == 0 || s.Endpoint != all.Sessions[i-1].Endpoint {
			lines = append(lines, line{name: oneLine(s.Endpoint)})
		}
		lines = append(lines, line{"  " + remote(s), round(s.Age).String(), round(s.Left).String(), oneLine(s.Property)})
	}
	printLines(w, "ENDPOINT, session", lines, verbose)
	destinations, endpoints := all.count()
	_, err := fmt.Fprintf(w, "\n%d destinations, %d bindings, %d endpoints, %d sessions\n", destinations, len(all.Bindings), endpoints, len(all.Sessions))
	return err
}

// A line is one of the tables that list prints.
type line struct{ name, age, left, property string }

func printLines(w io.Writer, heading string, lines []line, verbose bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	for _, l := range append([]line{{heading, "AGE", "LEFT", "PROPERTY"}}, lines...) {
		if verbose {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", l.name, l.age, l.left, l.property)
		} else {
			fmt.Fprintf(t, "%s\t%s\t%s\n", l.name, l.age, l.left)
		}
	}
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
