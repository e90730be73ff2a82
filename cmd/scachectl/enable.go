// SPDX-License-Identifier: EPL-2.0

// enable and disable: switching a mail system to this server and back.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/postfix"
)

// libexec is the directory of the server, which has nothing else in it. It is set by the build.
// Postfix looks for commands in its daemon_directory. The entry has a relative path that leads
// out of there, so nothing is installed in a directory that belongs to Postfix.
var libexec = "/usr/local/libexec/scache-go"

var (
	errRoot        = errors.New("must be run as root, to change master.cf and to reload Postfix")
	errSocket      = errors.New("option --socket: this is for a mail system, not for a server; use -c")
	errInterrupted = errors.New("interrupted")
	errSilent      = errors.New("the server does not answer")
)

// hintPrint is for a master.cf that cannot be written.
const hintPrint = "\nhint: scachectl %s --print prints the changed master.cf, " +
	"for the place that the file comes from"

func newEnableCommand(c *site) *cobra.Command {
	cmd := newSwitchCommand(c, "enable", "Switch the mail system to this server", (*switcher).enable)
	cmd.Long = `enable first checks the entry of the service in master.cf, column by column, and has
this server check its configuration, as the entry and main.cf have it. Then one process
of the server serves a client in a trial, with a connection passed to it and back, and
hands over to a second process. If anything is wrong, enable says so, and changes
nothing. Otherwise it changes the command of the entry, and nothing else of the file,
keeps a copy of the entry in master.cf.scache-saved, reloads Postfix if it runs, and
asks the new server for its status. If that fails, or is interrupted, it rolls back.

A master.cf that cannot be replaced, such as a mount point, is written in place, with a
backup beside it until that is done. For a file that comes from elsewhere, such as from
configuration management, --print writes the changed master.cf to standard output, and
changes nothing.`
	return cmd
}

func newDisableCommand(c *site) *cobra.Command {
	const short = "Switch the mail system back to the previous server"
	cmd := newSwitchCommand(c, "disable", short, (*switcher).disable)
	cmd.Long = `disable puts back the command that the scache entry in master.cf had before enable,
reloads Postfix if it runs, and waits until the previous server answers. If that does
not, a warning says so: this server does not come back. If Postfix cannot be reloaded,
disable fails: Postfix continues with this server then, although master.cf has the
previous one. With --print, it only writes the changed master.cf to standard output.`
	return cmd
}

func newSwitchCommand(c *site, use, short string, do func(*switcher) error) *cobra.Command {
	s := switcher{site: c, use: use, intervals: intervals{10 * time.Second, 20 * time.Second}}
	all := false
	cmd := withoutArgs(use, short, func(cmd *cobra.Command) error {
		s.out, s.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
		if all {
			orNone := use == "disable"
			return c.inInstances(s.out, orNone, func(dir string) error { return s.in(dir, do) })
		}
		return s.in(c.dir, do)
	})
	cmd.Flags().BoolVar(&s.dryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().BoolVar(&s.print, "print", false, "only print the changed master.cf")
	cmd.Flags().BoolVar(&all, "all", false, "in the other instances of the mail system, too")
	cmd.MarkFlagsMutuallyExclusive("print", "all")
	cmd.MarkFlagsMutuallyExclusive("print", "dry-run")
	return cmd
}

// A switcher switches a mail system between servers.
type switcher struct {
	site          *site
	system        *postfix.System
	use           string // of the command: enable or disable
	dryRun, print bool
	out, errOut   io.Writer
	restored      bool            // master.cf was restored, and Postfix has not read it yet
	interrupted   <-chan struct{} // closed after a signal
	signal        context.Context // done after a signal, also during a rollback
	former        int64           // pid of our server that answered before the reload, or 0
	intervals     intervals
}

// in runs a command for the mail system of a directory, if the caller may change it. First it
// restores master.cf if an earlier call was interrupted.
func (s *switcher) in(dir string, do func(*switcher) error) (err error) {
	one := *s
	one.site = &site{dir: dir}
	changes := !s.dryRun && !s.print
	switch {
	case s.site.socket != "":
		return errSocket
	case changes && os.Geteuid() != 0:
		return errRoot
	}
	if one.system, err = one.site.open(); err != nil {
		return err
	}
	if !changes && one.system.Interrupted() {
		return errors.New("an earlier call was interrupted, and left master.cf incomplete: " +
			"without --dry-run or --print, it comes back first")
	}
	if changes {
		if one.restored, err = one.system.Restore(); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), interruptions...)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	one.out, one.errOut = output{s.out, cancel}, output{s.errOut, cancel}
	// A handler for SIGPIPE keeps it from ending the process. If it were ignored, commands
	// would inherit that.
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGPIPE)
	defer signal.Stop(ignored)
	one.interrupted, one.signal = ctx.Done(), ctx
	return do(&one)
}

func (s *switcher) enable() error {
	entry, err := s.system.Entry()
	if err != nil {
		return err
	}
	if err := s.system.CheckEntry(entry); err != nil {
		return fmt.Errorf("%w\nThis server would not serve with this entry; nothing was changed", err)
	}
	s.warnOfDuplicates()
	command, path, err := s.findServer()
	if err != nil {
		return err
	}
	if postfix.IsOurs(entry.Command) && s.isAt(entry.Command, path) {
		if s.print {
			return s.printWith(entry.Command)
		}
		return s.settle(entry.Command, "already enabled")
	}
	if err := s.try(path, entry); err != nil {
		return fmt.Errorf("%w\nThis server would not serve with %s and its entry; nothing was changed",
			err, s.system.Directory)
	}
	if s.print {
		return s.printWith(command)
	}
	running, err := s.system.Running()
	switch {
	case err != nil:
		return err
	case s.isInterrupted():
		return fmt.Errorf("%w; nothing was changed", errInterrupted)
	}
	if err := s.change(entry.Command, command, running); err != nil {
		return err
	}
	s.conclude("enabled")
	return nil
}

// try runs the server in a trial. Only root can start it as master(8) does.
func (s *switcher) try(path string, entry postfix.Entry) error {
	if os.Geteuid() != 0 {
		fmt.Fprintln(s.errOut, "warning: only root can try the server first")
		return nil
	}
	return s.system.Probe(path, entry, trialClients()...)
}

// warnOfDuplicates prints a warning if there are several entries.
func (s *switcher) warnOfDuplicates() {
	if lines := s.system.Duplicates(); lines != nil {
		fmt.Fprintf(s.errOut, "warning: %s\n", describeDuplicates(s.system, lines))
	}
}

func describeDuplicates(system *postfix.System, lines []int) string {
	return fmt.Sprintf("master.cf has %d entries %s unix, at lines %v: "+
		"master(8) uses the last one, and so does this command", len(lines), system.Service, lines)
}

// printWith prints master.cf with another command in the entry.
func (s *switcher) printWith(command string) error {
	text, err := s.system.WithCommand(command)
	if err != nil {
		return err
	}
	_, err = s.out.Write(text)
	return err
}

// isAt reports whether the command of an entry is the binary at this path.
func (s *switcher) isAt(command, path string) bool {
	other, err := s.system.CommandPath(command)
	if err != nil {
		return false
	}
	a, err := os.Stat(other)
	b, errPath := os.Stat(path)
	return err == nil && errPath == nil && os.SameFile(a, b)
}

// change replaces the command and makes Postfix use it. If that fails, it rolls back.
func (s *switcher) change(old, command string, running bool) error {
	fromOther := !postfix.IsOurs(old) // otherwise only the path of our server changes
	if fromOther {
		if err := s.step("save the entry to "+s.system.SavedPath(), s.system.Save); err != nil {
			return fmt.Errorf("%w; nothing was changed"+hintPrint, err, s.use)
		}
	}
	err := s.writeCommand(command)
	if err != nil {
		if fromOther {
			err = errors.Join(err, s.system.DropSaved())
		}
		return s.notWritten(err)
	}
	if err = s.reloadIf(command, running); err == nil {
		return nil
	}
	s.interrupted = nil // the rollback is not interrupted
	if undo := s.writeCommand(old); undo != nil {
		return fmt.Errorf("%w; and the old entry could not be put back: %v\n"+
			"hint: look at master.cf: its command was %q", err, undo, old)
	}
	if fromOther {
		s.system.DropSaved()
	}
	if undo := s.reloadIf(old, running); undo != nil {
		return fmt.Errorf("%w; the old entry is back, and Postfix does not use it: %v", err, undo)
	}
	return fmt.Errorf("%w; the old entry is back", err)
}

// notWritten adds the state of master.cf to an error of writeCommand.
func (s *switcher) notWritten(err error) error {
	if s.system.Interrupted() {
		return fmt.Errorf("%w; master.cf is incomplete\n"+
			"hint: scachectl disable puts it back from the backup", err)
	}
	return fmt.Errorf("%w; nothing was changed"+hintPrint, err, s.use)
}

// disable switches back to the previous server. It does not need a binary of this server. It
// does not roll back: if the previous server does not answer, an administrator must repair it.
func (s *switcher) disable() error {
	entry, err := s.system.Entry()
	if errors.Is(err, postfix.ErrNoEntry) && !s.print {
		return s.cleanUp("not enabled")
	}
	if err != nil {
		return err
	}
	s.warnOfDuplicates()
	if !postfix.IsOurs(entry.Command) {
		if s.print {
			return s.printWith(entry.Command)
		}
		return s.settle(entry.Command, "not enabled")
	}
	command, err := s.system.SavedCommand()
	if err != nil {
		return err
	}
	if s.print {
		return s.printWith(command)
	}
	running, err := s.system.Running()
	if err != nil {
		return err
	}
	if err := s.writeCommand(command); err != nil {
		return s.notWritten(err)
	}
	return s.usePrevious(command, running, "disabled")
}

// usePrevious makes Postfix use the previous server, when master.cf has it again.
func (s *switcher) usePrevious(command string, running bool, conclusion string) error {
	switch err := s.reloadIf(command, running); {
	case errors.Is(err, errSilent), errors.Is(err, errInterrupted):
		s.say("warning: %v", err)
	case err != nil:
		return fmt.Errorf("%w; master.cf has the old entry again, and Postfix does not use it\n"+
			"hint: correct what is wrong, and run postfix -c %s reload", err, s.system.Directory)
	}
	return s.cleanUp(conclusion)
}

// cleanUp removes the entry that enable has saved, and prints the result. There may be a saved
// entry without disable, if configuration management has restored master.cf.
func (s *switcher) cleanUp(conclusion string) error {
	if s.system.HasSaved() {
		if err := s.step("remove "+s.system.SavedPath(), s.system.DropSaved); err != nil {
			return err
		}
	}
	s.conclude(conclusion)
	return nil
}

// settle completes a switch whose command is in the entry already: an earlier call may have
// been interrupted before Postfix was reloaded.
func (s *switcher) settle(command, conclusion string) error {
	running, err := s.system.Running()
	if err != nil {
		return err
	}
	switch {
	case !postfix.IsOurs(command):
		// If our server still answers, Postfix has not read the entry.
		if running && (s.restored || s.answers(postfix.OurName, usualTimeout)) {
			return s.usePrevious(command, running, conclusion)
		}
		return s.cleanUp(conclusion)
	case running && !s.waitFor(command, quickTimeout):
		if err := s.reload(command); err != nil {
			return err
		}
	}
	s.conclude(conclusion)
	return nil
}

// writeCommand changes the command in master.cf.
func (s *switcher) writeCommand(command string) error {
	file := filepath.Join(s.system.Directory, "master.cf")
	what := fmt.Sprintf("%s: set the command of %s unix to %s", file, s.system.Service, command)
	return s.step(what, func() error { return s.system.SetCommand(command) })
}

// reloadIf makes Postfix use the server of this command, if Postfix runs.
func (s *switcher) reloadIf(command string, running bool) error {
	if !running {
		s.say("Postfix is not running: the change takes effect when it is started")
		return nil
	}
	return s.reload(command)
}

// quickTimeout is the time within which a server answers if master(8) starts it without a pause.
const quickTimeout = 3 * time.Second

// reload makes Postfix read master.cf again, and waits until the right server
// answers.
func (s *switcher) reload(command string) error {
	s.former = 0
	if !postfix.IsOurs(command) && command != postfix.StockCommand && !s.dryRun {
		s.former = s.pid()
	}
	reload := func() error { return s.wait(s.system.Reload) }
	err := s.step("postfix -c "+s.system.Directory+" reload", reload)
	if err != nil || s.dryRun || s.waitFor(command, quickTimeout) {
		return err
	}
	if s.isInterrupted() {
		return fmt.Errorf("%w before %s has answered", errInterrupted, command)
	}
	s.say("no answer yet; master(8) may be throttling the service after a failed start. " +
		"Clearing the throttle and retrying.")
	if err := s.wait(s.system.ClearThrottle); err != nil {
		return err
	}
	if s.waitFor(command, usualTimeout) {
		return nil
	}
	_, err = s.site.status()
	return fmt.Errorf("after the reload, %w: see the mail log (%s was asked for its status: %v)",
		errSilent, command, err)
}

// Intervals say how long to wait for a command of Postfix.
type intervals struct {
	note        time.Duration // until a message says that it takes long, again and again
	afterSignal time.Duration // until the command is killed after a signal
}

// wait runs a command of Postfix, which has no timeout. After a signal, it is killed if it
// does not end soon.
func (s *switcher) wait(do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := context.AfterFunc(s.signal, func() {
		select {
		case <-ctx.Done():
		case <-time.After(s.intervals.afterSignal):
			cancel()
		}
	})
	defer stop()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	note := time.NewTicker(s.intervals.note)
	defer note.Stop()
	for start := time.Now(); ; {
		select {
		case err := <-done:
			return err
		case <-note.C:
			fmt.Fprintf(s.errOut, "Postfix has taken %v so far; an interrupt ends this\n",
				time.Since(start).Round(time.Second))
		}
	}
}

// pid returns the pid of our server that answers, or 0.
func (s *switcher) pid() int64 {
	status, err := s.site.statusWithin(quickTimeout)
	if err != nil {
		return 0
	}
	return status.PID
}

// waitFor waits until the server of this command answers, and reports whether it does within
// the timeout.
func (s *switcher) waitFor(command string, timeout time.Duration) bool {
	const pause = 100 * time.Millisecond

	end := time.Now().Add(timeout)
	for ; time.Now().Before(end) && !s.isInterrupted(); time.Sleep(pause) {
		if s.answers(command, timeout/2) {
			return true
		}
	}
	return false
}

// answers reports whether a server answers within the timeout, and is the one of this command.
func (s *switcher) answers(command string, timeout time.Duration) bool {
	status, err := s.site.statusWithin(timeout)
	switch {
	case postfix.IsOurs(command):
		return err == nil
	case command == postfix.StockCommand:
		return errors.Is(err, client.ErrStock)
	}
	// The command may be a path of the stock server, or another name of this one.
	return err == nil && status.PID != s.former || errors.Is(err, client.ErrStock)
}

// findServer returns this server's command for master.cf, and its path: in libexec, or else
// below the directory of Postfix's daemons.
func (s *switcher) findServer() (command, path string, err error) {
	directory, err := s.system.DaemonDirectory()
	if err != nil {
		return "", "", err
	}
	path = filepath.Join(libexec, "scache")
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(directory, postfix.OurName)
		if _, other := os.Stat(path); other != nil {
			return "", "", fmt.Errorf("%w\nhint: make install puts it there", err)
		}
	}
	command, err = filepath.Rel(directory, path)
	return command, path, err
}

// step prints a step and makes it. In a dry run, it only prints the step.
func (s *switcher) step(what string, do func() error) error {
	s.say("%s", what)
	if s.dryRun {
		return nil
	}
	return do()
}

// conclude prints the result.
func (s *switcher) conclude(what string) {
	if s.dryRun {
		what = "nothing was done; without --dry-run: " + what
	}
	s.say("%s in %s", what, s.system.Directory)
}

func (s *switcher) say(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}
