// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
)

func newFlushCommand(c *site) *cobra.Command {
	all, dryRun, asJSON := false, false, false
	cmd := &cobra.Command{
		Use:   "flush LABEL... | --all",
		Short: "Close cached connections and forget destinations",
		Long: `flush closes the cached connections of an endpoint. Of a destination, it closes the
connections of the endpoints that it is bound to, and forgets the destination. LABEL is
a domain, an address, or a label as list shows it, short or whole. Where it means more
than one destination or endpoint, all of them are flushed.

Connections in use by a delivery agent are not in the cache, and stay open.` + labelHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if (len(args) > 0) == all {
				return hintError(errors.New("flush: nothing or too much to flush"),
					"give a domain or an address, or --all")
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
			if f.truncated {
				warnTruncated(cmd)
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), f)
			}
			return f.print(cmd.OutOrStdout(), dryRun)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "flush everything")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count what would be flushed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// flushed is the result of a flush, and the labels that were flushed.
type flushed struct {
	control.Flushed
	Matches []match `json:"matches,omitempty"`

	truncated bool
}

// A match is the labels that a text means.
type match struct {
	Text   string   `json:"text"`
	Labels []string `json:"labels"`
}

func (f flushed) print(w io.Writer, dryRun bool) error {
	for _, m := range f.Matches {
		if len(m.Labels) < 2 {
			continue
		}
		fmt.Fprintf(w, "%s means %d labels, all of them:\n", m.Text, len(m.Labels))
		for _, label := range m.Labels {
			fmt.Fprintf(w, "  %s\n", label)
		}
	}
	done := "flushed"
	if dryRun {
		done = "nothing was done; without --dry-run: flushed"
	}
	_, err := fmt.Fprintf(w, "%s %d sessions and %d bindings\n", done, f.Sessions, f.Bindings)
	return err
}

// flush flushes what the texts mean, or everything if there is none. In a dry run it only
// counts.
func (c *site) flush(texts []string, dryRun bool) (f flushed, err error) {
	err = c.ask(func(cl *client.Client) error {
		f, err = flush(cl, texts, dryRun)
		return err
	})
	if err == nil && f.truncated && !dryRun && len(f.Matches) > 0 {
		// The first connection cannot be used: the rest of the list was not read.
		err = c.ask(func(cl *client.Client) error {
			f.Flushed, err = cl.Flush(f.labels()...)
			return err
		})
	}
	return f, err
}

func flush(cl *client.Client, texts []string, dryRun bool) (f flushed, err error) {
	if len(texts) == 0 && !dryRun {
		f.Flushed, err = cl.FlushAll()
		return f, err
	}
	all, err := listOf(cl)
	if err != nil {
		return f, err
	}
	f.truncated = all.Truncated
	if len(texts) == 0 {
		f.Sessions, f.Bindings = int64(len(all.Sessions)), int64(len(all.Bindings))
		return f, nil
	}
	for _, text := range texts {
		found := all.labels(text)
		if len(found) == 0 {
			err := fmt.Errorf("nothing is cached for %s", control.Escape(text))
			return f, hintError(err,
				"it is neither a label, nor a domain or address in one: see scachectl list",
				`a label with a space is quoted: "smtp example.com"`)
		}
		f.Matches = append(f.Matches, match{control.Escape(text), found})
	}
	switch {
	case dryRun:
		f.Flushed = all.count(f.shownLabels())
	case !all.Truncated:
		f.Flushed, err = cl.Flush(f.labels()...)
	}
	return f, err
}

func (f flushed) shownLabels() (labels []string) {
	for _, m := range f.Matches {
		labels = append(labels, m.Labels...)
	}
	return labels
}

// labels returns the unescaped labels.
func (f flushed) labels() []string {
	labels := f.shownLabels()
	for i, label := range labels {
		labels[i] = raw(label)
	}
	return labels
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
