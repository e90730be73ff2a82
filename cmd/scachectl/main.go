// SPDX-License-Identifier: EPL-2.0

// Command scachectl looks into a connection cache server, and switches a Postfix
// mail system between this one and the stock one.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/postfix"
)

// version is set by the build.
var version = "unknown"

// A site is what all commands have in common: where the server is.
type site struct {
	socket string
	dir    string // of main.cf and master.cf

	patience time.Duration // with one conversation, instead of the usual
}

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	if err := newCommand().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "scachectl:", err)
		if running {
			os.Exit(exitFailure)
		}
		fmt.Fprintln(os.Stderr, "Try scachectl --help.")
		os.Exit(exitUsage)
	}
}

// running is set when a command runs: an error before that is about how it was
// called.
var running bool

// usageError marks an error that a command itself finds in how it was called.
func usageError(err error) error {
	running = false
	return err
}

func newCommand() *cobra.Command {
	c := &site{}
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
	flags.StringVarP(&c.dir, "config", "c", "", "the `directory` of main.cf (default: $MAIL_CONFIG, or "+postfix.DefaultDirectory+")")
	root.MarkFlagDirname("config")
	root.MarkFlagFilename("socket")
	root.AddCommand(
		newStatusCommand(c), newListCommand(c), newTopCommand(c), newFlushCommand(c), newMetricsCommand(c),
		newConfigCommand(c), newSaveCommand(c), newFindCommand(c), newEnableCommand(c), newDisableCommand(c),
		newRestartCommand(c), newDoctorCommand(c), newHitsCommand(c),
	)
	root.PersistentPreRun = func(*cobra.Command, []string) { running = true }
	root.CompletionOptions.DisableNoDescFlag = true
	root.InitDefaultCompletionCmd()
	for _, cmd := range append(root.Commands(), root) {
		if cmd.HasSubCommands() {
			cmd.Args = unknownCommand
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				return usageError(fmt.Errorf("%s: say which: %s", cmd.CommandPath(), subcommands(cmd)))
			}
		}
	}
	return root
}

// unknownCommand is for a command that has nothing but others.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s: there is no %q: want one of %s", cmd.CommandPath(), args[0], subcommands(cmd))
	}
	return nil
}

func subcommands(cmd *cobra.Command) string {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return strings.Join(names, ", ")
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
