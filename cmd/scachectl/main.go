// SPDX-License-Identifier: EPL-2.0

// Command scachectl shows what a connection cache server holds and does, and switches a
// Postfix mail system between this server and the stock one.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"scache/internal/postfix"
)

// version is set by the build.
var version = "unknown"

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

// execute runs a command, prints its error, and returns the exit code.
func execute(args []string, stdout, stderr io.Writer) int {
	root := newCommand(stdout, stderr)
	root.SetArgs(args)
	err := root.Execute()
	if err != nil {
		printError(stderr, err)
	}
	if exitCode(err) == exitUsage {
		fmt.Fprintln(stderr, "Try scachectl --help.")
	}
	return exitCode(err)
}

// newCommand returns the command, with a new site: what a command finds out about the
// mail system is kept until it ends.
func newCommand(stdout, stderr io.Writer) *cobra.Command {
	c := &site{}
	root := &cobra.Command{
		Use:   "scachectl",
		Short: "Inspect the connection cache of Postfix, and install it",
		Long: `scachectl shows what the connection cache server of a Postfix mail system holds and
does, and switches the mail system to this server and back.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", "",
		"the `path` of the server's socket (default: as in main.cf)")
	flags.StringVarP(&c.dir, "config", "c", "",
		"the `directory` of main.cf (default: $MAIL_CONFIG, or "+postfix.DefaultDirectory+")")
	root.MarkFlagDirname("config")
	root.MarkFlagFilename("socket")
	root.AddCommand(
		newStatusCommand(c), newListCommand(c), newTopCommand(c), newFlushCommand(c),
		newMetricsCommand(c), newConfigCommand(c), newEnableCommand(c), newDisableCommand(c),
		newRestartCommand(c), newDoctorCommand(c), newHitsCommand(c),
		newReceiversCommand(c), newExplainCommand(c), newReportCommand(c), newDebugCommand(c),
		hidden(newSaveCommand(c)), hidden(newFindCommand(c)),
	)
	root.CompletionOptions.DisableNoDescFlag = true
	root.InitDefaultCompletionCmd()
	checkUsage(root)
	return root
}

// hidden returns the command, which is left out of the help text.
func hidden(cmd *cobra.Command) *cobra.Command {
	cmd.Hidden = true
	return cmd
}

// checkUsage makes errors in the flags and arguments of a command, and of its subcommands,
// usage errors.
func checkUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	if cmd.HasSubCommands() {
		cmd.Args = unknownCommand
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			return usageError{fmt.Errorf("%s: missing command: one of %s", cmd.CommandPath(),
				subcommands(cmd))}
		}
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		checkUsage(sub)
	}
}

// unknownCommand checks the arguments of a command that has only subcommands.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s: unknown command %q: want one of %s", cmd.CommandPath(), args[0],
			subcommands(cmd))
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

// withoutArgs returns a command that takes no arguments.
func withoutArgs(use, short string, run func(*cobra.Command) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd) },
	}
}
