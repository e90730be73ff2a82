// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
)

// A listing is how the contents are shown.
type listing struct {
	naming
	order   order
	limit   int
	verbose bool
	json    bool
}

const listHelp = `list shows each destination with the endpoints that it is bound to, and each
endpoint with its sessions in sum: the cached connections. Age is the time since
the last save, left is the rest of the time to live.

With LABEL, list shows only what belongs to it: a domain, an address, or a label as
list shows it, short or whole.

With --sort none, list prints what the server sends while it arrives, each session by
itself.` + labelHelp

func newListCommand(c *site) *cobra.Command {
	l := listing{order: "label"}
	cmd := &cobra.Command{
		Use:               "list [LABEL]",
		Short:             "List destinations, endpoints and sessions",
		Long:              listHelp,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeLabels(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := unescapeAll(args); err != nil {
				return err
			}
			if l.order == unsorted {
				if len(args) > 0 || l.limit > 0 {
					return usageError{errors.New("list: --sort none takes no label and no --limit")}
				}
				return l.stream(c, cmd.OutOrStdout())
			}
			all, err := c.list()
			if err != nil {
				return err
			}
			if all.Truncated {
				warnTruncated(cmd)
			}
			if len(args) > 0 {
				all = all.of(args[0])
			}
			if l.json {
				all.Bindings = arrange(all.Bindings, l.order, l.limit, keyOfBinding)
				all.Sessions = arrange(all.Sessions, l.order, l.limit, keyOfSession)
				return writeJSON(cmd.OutOrStdout(), all.forJSON())
			}
			return l.print(cmd.OutOrStdout(), all)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&l.json, "json", false, "print JSON, with each session; times are in seconds")
	flags.BoolVarP(&l.verbose, "verbose", "v", false, "show each session by itself, and properties")
	flags.IntVar(&l.limit, "limit", 0, "show at most `number` rows of each kind; 0 is all")
	addOrder(cmd, &l.order, "sort by label, sessions, age or left, the highest first; or none",
		unsorted)
	l.addLabels(cmd)
	return cmd
}

// addLabels adds the option --labels to a command.
func (n *naming) addLabels(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&n.whole, "labels", false, "show whole labels")
}

// warnTruncated prints a warning that an answer was longer than this program accepts.
func warnTruncated(cmd *cobra.Command) {
	fmt.Fprintln(cmd.ErrOrStderr(), "warning:", client.ErrTruncated)
}

func (l listing) print(w io.Writer, all contents) error {
	endpoints := all.endpoints()
	total := fmt.Sprintf("%d destinations, %d bindings, %d endpoints, %d sessions",
		all.destinations(), len(all.Bindings), len(endpoints), len(all.Sessions))
	if all.Truncated {
		total += " (truncated)"
	}
	bindings := l.bindings()
	for _, b := range arrange(all.Bindings, l.order, l.limit, keyOfBinding) {
		l.addBinding(bindings, b)
	}
	bindings.print(w, len(all.Bindings)-len(bindings.rows))
	if l.verbose {
		t := l.sessions()
		for _, s := range arrange(all.Sessions, l.order, l.limit, keyOfSession) {
			l.addSession(t, s)
		}
		t.print(w, len(all.Sessions)-len(t.rows))
	} else {
		t := newTable("ENDPOINT|>SESSIONS|RECEIVER|REMOTE|>AGE|>LEFT")
		for _, e := range arrange(endpoints, l.order, l.limit, keyOfEndpoint) {
			t.add(l.of(e.label), e.sessions, cmp.Or(e.receiver, "-"), remote(e.remote), age(e.age),
				age(e.left))
		}
		t.print(w, len(endpoints)-len(t.rows))
	}
	_, err := fmt.Fprintln(w, total)
	return err
}

// bindings returns a table of bindings, with properties if they are asked for.
func (l listing) bindings() *table {
	return newTable(l.withProperty("DESTINATION|ENDPOINT|>AGE|>LEFT"))
}

func (l listing) sessions() *table { return newTable(l.withProperty("ENDPOINT|REMOTE|>AGE|>LEFT")) }

func (l listing) withProperty(heading string) string {
	if l.verbose {
		heading += "|PROPERTY"
	}
	return heading
}

func (l listing) addBinding(t *table, b control.Binding) {
	l.add(t, b.Property, l.of(b.Destination), l.of(b.Endpoint), age(b.Age), age(b.Remaining))
}

func (l listing) addSession(t *table, s control.Session) {
	l.add(t, s.Property, l.of(s.Endpoint), remote(s.Remote), age(s.Age), age(s.Remaining))
}

func (l listing) add(t *table, property string, cells ...any) {
	if l.verbose {
		cells = append(cells, property)
	}
	t.add(cells...)
}

// streamRows and streamSize bound how much of a list is kept while it arrives.
const (
	streamRows = 1000
	streamSize = 1 << 20
)

// stream prints what the server sends while it arrives.
func (l listing) stream(c *site, w io.Writer) error {
	s := &streamer{how: l, w: w}
	err := c.ask(func(cl *client.Client) error {
		return cl.Each(func(entry any) error {
			s.err = s.entry(entry)
			return s.err
		})
	})
	switch {
	case s.err != nil: // of the output, not of the conversation
		return s.err
	case err != nil:
		return err
	}
	return s.end()
}

// A streamer prints entries in parts: each part is a table with a heading.
type streamer struct {
	how                listing
	w                  io.Writer
	part               *table
	ofSessions         bool
	bindings, sessions int
	err                error
}

func (s *streamer) entry(entry any) error {
	switch entry := entry.(type) {
	case control.Binding:
		s.bindings++
		if s.how.json {
			return s.line("binding", entry)
		}
		if err := s.begin(false); err != nil {
			return err
		}
		s.how.addBinding(s.part, entry)
	case control.Session:
		s.sessions++
		if s.how.json {
			return s.line("session", entry)
		}
		if err := s.begin(true); err != nil {
			return err
		}
		s.how.addSession(s.part, entry)
	}
	if s.part != nil && (len(s.part.rows) >= streamRows || s.part.size >= streamSize) {
		return s.flush()
	}
	return nil
}

// line prints an entry as JSON on a line.
func (s *streamer) line(kind string, entry any) error {
	e := json.NewEncoder(s.w)
	e.SetEscapeHTML(false)
	return e.Encode(map[string]any{kind: entry})
}

// begin begins another part where the kind of entry changes.
func (s *streamer) begin(ofSessions bool) error {
	if s.part != nil && s.ofSessions == ofSessions {
		return nil
	}
	err := s.flush()
	s.ofSessions = ofSessions
	if s.part = s.how.bindings(); ofSessions {
		s.part = s.how.sessions()
	}
	return err
}

// flush prints the part.
func (s *streamer) flush() error {
	if s.part == nil {
		return nil
	}
	err := s.part.print(s.w, 0)
	s.part = nil
	return err
}

func (s *streamer) end() error {
	if s.how.json {
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.w, "%d bindings, %d sessions\n", s.bindings, s.sessions)
	return err
}

// remote returns the remote address of a session, as it is shown.
func remote(address string) string { return cmp.Or(address, "(opaque)") }
