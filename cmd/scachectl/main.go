// SPDX-License-Identifier: EPL-2.0

// Command scachectl looks into a connection cache server, and switches a Postfix
// mail system between this one and the stock one.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "unknown"

// A control is what all commands have in common: where the server is.
type control struct {
	socket string
	dir    string // of main.cf and master.cf
}

func main() {
	if err := newCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "scachectl:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	c := &control{}
	root := &cobra.Command{
		Use:   "scachectl",
		Short: "Look into the connection cache of Postfix, and install it",
		Long: `scachectl looks into the connection cache server of a Postfix mail system, by the
server's own socket, and switches the mail system to this server and back.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", "", "the server's `path`, instead of the one that main.cf tells")
	flags.StringVarP(&c.dir, "config", "c", "", "the `directory` of main.cf (default: $MAIL_CONFIG, or "+defaultDir+")")
	root.MarkFlagDirname("config")
	root.MarkFlagFilename("socket")
	root.AddCommand(
		newStatusCommand(c), newListCommand(c), newTopCommand(c), newFlushCommand(c), newMetricsCommand(c),
		newConfigCommand(c), newSaveCommand(c), newFindCommand(c), newEnableCommand(c), newDisableCommand(c),
		newRestartCommand(c),
	)
	return root
}

// terse is for commands without arguments of their own.
func terse(use, short string, run func(*cobra.Command) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd) },
	}
}
