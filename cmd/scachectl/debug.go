// SPDX-License-Identifier: EPL-2.0

// The four requests of delivery agents, for debugging.

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/control"
)

const labelHelp = `

In a whole label or property, \n is a line end, \\ a backslash, and \xNN a byte by its
hexadecimal number, as list --labels writes them: a label of smtp(8) looks like
smtp\n192.0.2.1\n25\n0\n.`

const stockToo = " It works with the stock server, too."

// newDebugCommand returns the command whose subcommands are save and find. These were
// commands in an earlier version, and still work as such.
func newDebugCommand(c *site) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Make the requests of delivery agents",
		Long:  `debug makes a request as a delivery agent would. It works with the stock server, too.`,
	}
	cmd.AddCommand(newSaveCommand(c), newFindCommand(c))
	return cmd
}

// unescapeAll unescapes all texts in place.
func unescapeAll(texts []string) (err error) {
	for i, text := range texts {
		if texts[i], err = control.Unescape(text); err != nil {
			return err
		}
	}
	return nil
}

func newSaveCommand(c *site) *cobra.Command {
	save := &cobra.Command{Use: "save", Short: "Save a session or a binding"}
	ttl, property, fd := int32(0), "", 0
	endpoint := &cobra.Command{
		Use:   "endpoint LABEL",
		Short: "Save a descriptor as a session of an endpoint",
		Long:  "endpoint saves a descriptor, by default standard input." + labelHelp + stockToo,
		Args:  cobra.ExactArgs(1),

		ValidArgsFunction: c.completeWholeLabels(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			args = append(args, property)
			if err := unescapeAll(args); err != nil {
				return err
			}
			return c.save(cmd.OutOrStdout(), func(cl *client.Client) (client.Code, error) {
				return cl.SaveEndpoint(ttl, args[0], args[1], fd)
			})
		},
	}
	endpoint.Flags().IntVar(&fd, "fd", 0, "the `number` of the descriptor")
	destination := &cobra.Command{
		Use:   "destination LABEL ENDPOINT",
		Short: "Bind a destination to an endpoint",
		Long:  "destination binds a destination to an endpoint." + labelHelp + stockToo,
		Args:  cobra.ExactArgs(2),

		ValidArgsFunction: c.completeWholeLabels(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			args = append(args, property)
			if err := unescapeAll(args); err != nil {
				return err
			}
			return c.save(cmd.OutOrStdout(), func(cl *client.Client) (client.Code, error) {
				return cl.SaveDestination(ttl, args[0], args[2], args[1])
			})
		},
	}
	for _, cmd := range []*cobra.Command{endpoint, destination} {
		cmd.Flags().Int32Var(&ttl, "ttl", 2,
			"the time to live in `seconds`, up to the limit of the server")
		cmd.Flags().StringVar(&property, "property", "", "the `text` that comes with it when it is found")
	}
	save.AddCommand(endpoint, destination)
	return save
}

func (c *site) save(w io.Writer, save func(*client.Client) (client.Code, error)) error {
	return c.ask(func(cl *client.Client) error {
		status, err := save(cl)
		if err != nil {
			return err
		}
		if status != client.OK {
			err := fmt.Errorf("not saved: status %d (%s)", status, meaning(status))
			return hintError(err, "the mail log says what the server has against it")
		}
		_, err = fmt.Fprintln(w, "saved")
		return err
	})
}

func newFindCommand(c *site) *cobra.Command {
	find := &cobra.Command{
		Use:   "find",
		Short: "Find a session, take it out of the cache, and close it",
	}
	for name, request := range map[string]func(*client.Client, string) (client.Found, error){
		"endpoint":    (*client.Client).FindEndpoint,
		"destination": (*client.Client).FindDestination,
	} {
		find.AddCommand(&cobra.Command{
			Use:   name + " LABEL",
			Short: "Find a session by the label of its " + name,
			Long: name + " takes a session out of the cache, describes it, and closes it." + labelHelp +
				stockToo,
			Args: cobra.ExactArgs(1),

			ValidArgsFunction: c.completeWholeLabels(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := unescapeAll(args); err != nil {
					return err
				}
				return c.ask(func(cl *client.Client) error {
					f, err := request(cl, args[0])
					if err != nil {
						return err
					}
					return describe(cmd.OutOrStdout(), name, f)
				})
			},
		})
	}
	return find
}

// describe prints what was found, and closes it.
func describe(w io.Writer, level string, f client.Found) error {
	if f.Code != client.OK {
		return fmt.Errorf("not found: status %d (%s)", f.Code, meaning(f.Code))
	}
	defer unix.Close(f.FD)
	if level == "destination" {
		fmt.Fprintf(w, "destination property: %s\n", control.Escape(f.DestinationProperty))
	}
	fmt.Fprintf(w, "endpoint property: %s\n", control.Escape(f.Property))
	_, err := fmt.Fprintf(w, "descriptor: %s\n", fileType(f.FD))
	return err
}

// fileType describes what a descriptor refers to.
func fileType(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err.Error()
	}
	names := map[uint32]string{unix.S_IFSOCK: "socket", unix.S_IFREG: "file",
		unix.S_IFDIR: "directory",
		unix.S_IFCHR: "character device", unix.S_IFBLK: "block device", unix.S_IFIFO: "pipe"}
	return fmt.Sprintf("%s, inode %d", names[st.Mode&unix.S_IFMT], st.Ino)
}

func meaning(s client.Code) string {
	switch s {
	case client.Bad:
		return "the request was malformed"
	case client.NotFound:
		return "there is no such session, or no descriptor arrived"
	}
	return "unknown"
}
