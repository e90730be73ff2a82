// SPDX-License-Identifier: EPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/fdpass"
	"scache/internal/postfix"
)

// libexec is where the server is installed, in a directory of its own, and is set
// by the build. Postfix looks for commands in its daemon_directory, and finds this
// one by a path that leads out of there: so nothing is made in a directory that
// belongs to Postfix, and the entry in master.cf is all there is to put back.
var libexec = "/usr/local/libexec/scache-go"

var (
	errRoot        = errors.New("to change master.cf and to reload Postfix takes root")
	errSocket      = errors.New("option --socket: this is for a mail system, not for a server; use -c")
	errInterrupted = errors.New("interrupted")
	errSilent      = errors.New("the server does not answer")
)

// interruptions are what may come while a mail system is being changed: the change is
// taken back then, or brought to its end.
var interruptions = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE}

func newEnableCommand(c *site) *cobra.Command {
	cmd := newSwitchCommand(c, "enable", "Switch the mail system to this server", (*switcher).enable)
	cmd.Long = `enable first has this server look at its configuration, as the scache entry in
master.cf and main.cf have it, and serve one client with that. If anything is wrong,
it says so, and changes nothing. Then it changes the command of the entry, and
nothing else of the file, keeps a copy of the entry in master.cf.scache-saved,
reloads Postfix if it runs, and asks the new server for its status. If that fails, or
is interrupted, the old entry comes back.`
	return cmd
}

func newDisableCommand(c *site) *cobra.Command {
	cmd := newSwitchCommand(c, "disable", "Switch the mail system back to the server of before", (*switcher).disable)
	cmd.Long = `disable puts back the command that the scache entry in master.cf had before enable,
reloads Postfix if it runs, and waits until the old server answers. If that does not,
a warning says so: this server does not come back. If Postfix cannot be reloaded, it
fails: Postfix goes on with this server then, although master.cf has the old one.`
	return cmd
}

func newSwitchCommand(c *site, use, short string, do func(*switcher) error) *cobra.Command {
	dryRun, all := false, false
	cmd := terse(use, short, func(cmd *cobra.Command) error {
		s := &switcher{site: c, dryRun: dryRun, out: cmd.OutOrStdout()}
		if all {
			return c.inInstances(s.out, use == "disable", func(dir string) error { return s.in(dir, do) })
		}
		return s.in(c.dir, do)
	})
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().BoolVar(&all, "all", false, "in the other instances of the mail system, too")
	return cmd
}

// A switcher switches a mail system between servers.
type switcher struct {
	*site
	*postfix.System
	dryRun      bool
	out         io.Writer
	restored    bool            // master.cf was put back, and Postfix does not know
	interrupted <-chan struct{} // closed when somebody has lost patience
}

// in does something with the mail system of a directory, if it may be changed, and
// first puts right what an earlier call may have left half-way.
func (s *switcher) in(dir string, do func(*switcher) error) (err error) {
	one := *s
	one.site = &site{dir: dir}
	switch {
	case s.socket != "":
		return errSocket
	case !s.dryRun && os.Geteuid() != 0:
		return errRoot
	}
	if one.System, err = one.open(); err != nil {
		return err
	}
	if s.dryRun && one.Interrupted() {
		return errors.New("an earlier call was interrupted, and left master.cf without the entry: without --dry-run, it comes back first")
	}
	if !s.dryRun {
		if one.restored, err = one.Restore(); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), interruptions...)
	defer stop()
	one.interrupted = ctx.Done()
	return do(&one)
}

// isInterrupted tells whether to stop.
func (s *switcher) isInterrupted() bool {
	select {
	case <-s.interrupted:
		return true
	default:
		return false
	}
}

func (s *switcher) enable() error {
	entry, err := s.Entry()
	if err != nil {
		return err
	}
	command, path, err := s.findServer()
	if err != nil {
		return err
	}
	ours := postfix.IsOurs(entry.Command)
	if ours && s.isAt(entry.Command, path) {
		return s.settle(entry.Command, "already enabled")
	}
	if err := s.Try(path, entry, askOnce); err != nil {
		return fmt.Errorf("%w\nThis server would not serve with %s and its entry; nothing was changed", err, s.Directory)
	}
	running, err := s.Running()
	switch {
	case err != nil:
		return err
	case s.isInterrupted():
		return fmt.Errorf("%w; nothing was changed", errInterrupted)
	}
	if !ours { // but that of another place
		if err := s.step("save the entry to "+s.SavedPath(), s.Save); err != nil {
			return err
		}
	}
	if err := s.change(entry.Command, command, running); err != nil {
		return err
	}
	s.conclude("enabled")
	return nil
}

// isAt tells whether a command of an entry is the binary at this path.
func (s *switcher) isAt(command, path string) bool {
	other, err := s.CommandPath(command)
	if err != nil {
		return false
	}
	a, err := os.Stat(other)
	b, errPath := os.Stat(path)
	return err == nil && errPath == nil && os.SameFile(a, b)
}

// askOnce is the client of a trial.
func askOnce(conn *net.UnixConn) error {
	_, err := client.Detect(fdpass.New(conn)).Status()
	return err
}

// change replaces the command and makes Postfix use it. If that fails, it puts the
// old one back.
func (s *switcher) change(old, command string, running bool) error {
	err := s.put(command)
	if err == nil {
		err = s.step(s.line("check"), s.Check)
	}
	if err == nil {
		err = s.use(command, running)
	}
	if err == nil {
		return nil
	}
	s.interrupted = nil // the way back is gone to its end
	if undo := s.put(old); undo != nil {
		return fmt.Errorf("%w; and the old entry could not be put back: %v: please look at master.cf: its command was %q", err, undo, old)
	}
	if !postfix.IsOurs(old) {
		s.DropSaved() // it is of no use any more
	}
	if undo := s.use(old, running); undo != nil {
		return fmt.Errorf("%w; the old entry is back, and Postfix does not use it: %v", err, undo)
	}
	return fmt.Errorf("%w; the old entry is back", err)
}

// disable goes back to the server of before. It depends on nothing of ours, and does
// not undo what it has done: if the old server does not answer, that is for somebody
// to look at, but ours is not the better one.
func (s *switcher) disable() error {
	entry, err := s.Entry()
	if errors.Is(err, postfix.ErrNoEntry) {
		s.conclude("not enabled")
		return nil
	}
	if err != nil {
		return err
	}
	if !postfix.IsOurs(entry.Command) {
		return s.settle(entry.Command, "not enabled")
	}
	command, err := s.SavedCommand()
	if err != nil {
		return err
	}
	running, err := s.Running()
	if err != nil {
		return err
	}
	if err := s.put(command); err != nil {
		return err
	}
	return s.disabled(command, running, "disabled")
}

// disabled makes Postfix use the server of before, which master.cf has already.
func (s *switcher) disabled(command string, running bool, conclusion string) error {
	switch err := s.use(command, running); {
	case errors.Is(err, errSilent), errors.Is(err, errInterrupted):
		s.say("warning: %v", err)
	case err != nil:
		return fmt.Errorf("%w; master.cf has the old entry again, and Postfix does not use it: correct what is wrong, and run postfix -c %s reload", err, s.Directory)
	}
	if !s.dryRun {
		if err := s.DropSaved(); err != nil {
			return err
		}
	}
	s.conclude(conclusion)
	return nil
}

// settle is for an entry that has the command already. Somebody may have been
// interrupted before Postfix was told.
func (s *switcher) settle(command, conclusion string) error {
	running, err := s.Running()
	if err != nil {
		return err
	}
	switch {
	case !postfix.IsOurs(command):
		// How another server is doing is none of our business.
		if running && (s.restored || s.answers(postfix.OurName)) {
			return s.disabled(command, running, conclusion)
		}
	case running && !s.waitFor(command, promptly):
		if err := s.reload(command); err != nil {
			return err
		}
	}
	s.conclude(conclusion)
	return nil
}

// put changes the command in master.cf.
func (s *switcher) put(command string) error {
	return s.step(fmt.Sprintf("%s: let the command of %s unix be %s", filepath.Join(s.Directory, "master.cf"), s.Service, command),
		func() error { return s.SetCommand(command) })
}

// use makes Postfix use the server of this command, if it runs.
func (s *switcher) use(command string, running bool) error {
	if !running {
		s.say("Postfix is not running: the change takes effect when it is started")
		return nil
	}
	return s.reload(command)
}

// promptly is how soon a server answers that master(8) starts at once.
const promptly = 3 * time.Second

// reload makes Postfix read master.cf again, and waits until the right server
// answers.
func (s *switcher) reload(command string) error {
	if err := s.step(s.line("reload"), s.Reload); err != nil || s.dryRun || s.waitFor(command, promptly) {
		return err
	}
	if s.isInterrupted() {
		return fmt.Errorf("%w before %s has answered", errInterrupted, command)
	}
	s.say("no answer yet: master(8) may be waiting after a failure; it is made to forget that")
	if err := s.Forget(); err != nil {
		return err
	}
	if s.waitFor(command, timeout) {
		return nil
	}
	_, err := s.status()
	return fmt.Errorf("after the reload, %w: see the mail log (%s was asked for its status: %v)", errSilent, command, err)
}

func (s *switcher) waitFor(command string, limit time.Duration) bool {
	s.patience = limit / 2
	defer func() { s.patience = 0 }()
	for end := time.Now().Add(limit); time.Now().Before(end) && !s.isInterrupted(); time.Sleep(100 * time.Millisecond) {
		if s.answers(command) {
			return true
		}
	}
	return false
}

// answers tells whether it is the server of this command that answers.
func (s *switcher) answers(command string) bool {
	_, err := s.status()
	switch {
	case postfix.IsOurs(command):
		return err == nil
	case command == postfix.StockCommand:
		return errors.Is(err, client.ErrStock)
	}
	return err == nil || errors.Is(err, client.ErrStock)
}

// findServer returns this server's command for master.cf, and where it is: where the build
// says, or else below the directory of Postfix's own servers.
func (s *switcher) findServer() (command, path string, err error) {
	directory, err := s.DaemonDirectory()
	if err != nil {
		return "", "", err
	}
	path = filepath.Join(libexec, "scache")
	if _, err := os.Stat(path); err != nil {
		path = filepath.Join(directory, postfix.OurName)
		if _, other := os.Stat(path); other != nil {
			return "", "", fmt.Errorf("%w (make install puts it there)", err)
		}
	}
	command, err = filepath.Rel(directory, path)
	return command, path, err
}

// step does something and says so, or only says what it would do.
func (s *switcher) step(what string, do func() error) error {
	s.say("%s", what)
	if s.dryRun {
		return nil
	}
	return do()
}

// line is a command as a person would give it.
func (s *switcher) line(command string) string {
	return "postfix -c " + s.Directory + " " + command
}

// conclude says what has come out.
func (s *switcher) conclude(what string) {
	if s.dryRun {
		what = "nothing was done; without --dry-run: " + what
	}
	s.say("%s in %s", what, s.Directory)
}

func (s *switcher) say(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}
