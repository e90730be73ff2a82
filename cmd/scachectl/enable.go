// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/client"
)

// ourCommand is the server in master.cf. Postfix looks for it in its
// daemon_directory, where a directory of our own is safe from its upgrades.
const ourCommand = "scache-go/scache"

// stockCommand is the server that comes with Postfix.
const stockCommand = "scache"

var (
	errNoEntry = errors.New("no entry for the connection cache")
	errSocket  = errors.New("option --socket: enable and disable are for a mail system, not for a server; use -c")
)

// savedName is the file beside master.cf that keeps the entry of before.
const savedName = "master.cf.scache-saved"

func newEnableCommand(c *control) *cobra.Command {
	s := &switcher{control: c}
	cmd := terse("enable", "Switch the mail system to this server", func(cmd *cobra.Command) error {
		s.out = cmd.OutOrStdout()
		return s.enable()
	})
	cmd.Long = `enable changes the command of the scache entry in master.cf to ` + ourCommand + `,
and nothing else of it, keeps a copy of the entry in ` + savedName + `, checks the
configuration, reloads Postfix if it runs, and asks the new server for its status.
If anything fails, all is put back.`
	cmd.Flags().BoolVar(&s.dryRun, "dry-run", false, "only print the commands")
	return cmd
}

func newDisableCommand(c *control) *cobra.Command {
	s := &switcher{control: c}
	all := false
	cmd := terse("disable", "Switch the mail system back to the server of before", func(cmd *cobra.Command) error {
		s.out = cmd.OutOrStdout()
		if all {
			return s.disableAll()
		}
		return s.disable()
	})
	cmd.Long = `disable puts back the command that the scache entry in master.cf had before enable,
checks the configuration, reloads Postfix if it runs, and waits until the old
server answers. If anything fails, all is put back.`
	cmd.Flags().BoolVar(&s.dryRun, "dry-run", false, "only print the commands")
	cmd.Flags().BoolVar(&all, "all", false, "in the other instances of the mail system, too")
	return cmd
}

// A switcher switches a mail system between servers.
type switcher struct {
	*control
	dryRun bool
	out    io.Writer
}

func (s *switcher) enable() error {
	if s.socket != "" {
		return errSocket
	}
	entry, err := s.entry()
	if err != nil {
		return err
	}
	if err := s.checkBinary(); err != nil {
		return err
	}
	if commandOf(entry) == ourCommand {
		return s.settle(ourCommand, "already enabled")
	}
	if err := s.save(entry); err != nil {
		return err
	}
	if err := s.change(entry, withCommand(entry, ourCommand)); err != nil {
		if now, entryErr := s.entry(); entryErr == nil && commandOf(now) != ourCommand {
			os.Remove(s.savedPath()) // it is of no use any more
		}
		return err
	}
	s.conclude("enabled")
	return nil
}

// disableAll disables in this mail system and in its other instances.
func (s *switcher) disableAll() error {
	if _, err := os.Stat(filepath.Join(s.configDir(), "main.cf")); errors.Is(err, os.ErrNotExist) {
		s.say("no mail system is configured in %s", s.configDir())
		return nil
	}
	conf, err := s.readConfig()
	if err != nil {
		return err
	}
	others, err := conf.String("multi_instance_directories")
	if err != nil {
		return err
	}
	dirs := strings.FieldsFunc(others, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
	for _, dir := range append([]string{s.configDir()}, dirs...) {
		one := *s
		one.control = &control{dir: dir}
		err = errors.Join(err, one.disable())
	}
	return err
}

func (s *switcher) disable() error {
	if s.socket != "" {
		return errSocket
	}
	entry, err := s.entry()
	if errors.Is(err, errNoEntry) {
		s.conclude("not enabled")
		return nil
	}
	if err != nil {
		return err
	}
	if command := commandOf(entry); command != ourCommand {
		return s.settle(command, "not enabled")
	}
	command := stockCommand
	saved, err := os.ReadFile(s.savedPath())
	if err == nil {
		command = commandOf(string(saved))
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.change(entry, withCommand(entry, command)); err != nil {
		return err
	}
	if !s.dryRun {
		if err := os.Remove(s.savedPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	s.conclude("disabled")
	return nil
}

// settle is for an entry that has the command already. Somebody may have been
// interrupted before Postfix was told.
func (s *switcher) settle(command, conclusion string) error {
	running, err := s.running()
	if err != nil {
		return err
	}
	stale := s.answers(ourCommand) != (command == ourCommand)
	if running && stale {
		if err := s.reload(command); err != nil {
			return err
		}
	}
	s.conclude(conclusion)
	return nil
}

// change replaces the entry and makes Postfix use it. If that fails, it puts the
// old one back.
func (s *switcher) change(old, new string) error {
	running, err := s.running()
	if err != nil {
		return err
	}
	service, err := s.service()
	if err != nil {
		return err
	}
	options, err := s.options(service)
	if err != nil {
		return err
	}
	err = s.apply(service, new, options, running)
	if err == nil || s.dryRun {
		return err
	}
	undo := s.put(service, old)
	if undo == nil && running {
		undo = s.run("postfix", "-c", s.configDir(), "reload")
	}
	if undo != nil {
		return fmt.Errorf("%w; and the old entry could not be put back: %v: please look at master.cf: it was %q", err, undo, old)
	}
	return fmt.Errorf("%w; the old entry is back", err)
}

// apply puts an entry in place, which sets the same options as the old one.
func (s *switcher) apply(service, entry string, options []string, running bool) error {
	if err := s.put(service, entry); err != nil {
		return err
	}
	if now, err := s.options(service); !s.dryRun && (err != nil || !slices.Equal(now, options)) {
		return fmt.Errorf("the options in master.cf have changed from %q to %q (%v)", options, now, err)
	}
	if err := s.run("postfix", "-c", s.configDir(), "check"); err != nil {
		return err
	}
	if !running {
		s.say("Postfix is not running: the change takes effect when it is started")
		return nil
	}
	return s.reload(commandOf(entry))
}

func (s *switcher) put(service, entry string) error {
	return s.run("postconf", "-c", s.configDir(), "-M", service+"="+entry)
}

// reload makes Postfix read master.cf again, and waits until the right server
// answers.
func (s *switcher) reload(command string) error {
	if err := s.run("postfix", "-c", s.configDir(), "reload"); err != nil || s.dryRun {
		return err
	}
	for end := time.Now().Add(timeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if s.answers(command) {
			return nil
		}
	}
	_, err := s.status()
	return fmt.Errorf("after the reload, %s does not answer (asked for its status: %v)", command, err)
}

// answers tells whether it is the server of this command that answers.
func (s *switcher) answers(command string) bool {
	_, err := s.status()
	switch command {
	case ourCommand:
		return err == nil
	case stockCommand:
		return errors.Is(err, client.ErrStock)
	}
	return err == nil || errors.Is(err, client.ErrStock)
}

// running tells whether the mail system runs. "postfix status" would speak of
// all instances, where there are several.
func (s *switcher) running() (bool, error) {
	conf, err := s.readConfig()
	if err != nil {
		return false, err
	}
	queue, err := conf.String("queue_directory")
	if err != nil {
		return false, err
	}
	text, err := os.ReadFile(filepath.Join(queue, "pid", "master.pid"))
	if err != nil {
		return false, nil // it never ran
	}
	name, err := os.ReadFile(filepath.Join("/proc", strings.TrimSpace(string(text)), "comm"))
	return err == nil && string(name) == "master\n", nil
}

// run runs a command, or says what it would run.
func (s *switcher) run(name string, args ...string) error {
	line := name
	for _, arg := range args {
		line += " " + quote(arg)
	}
	s.say("%s", line)
	if s.dryRun {
		return nil
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// conclude says what has come out.
func (s *switcher) conclude(what string) {
	if s.dryRun {
		what = "nothing was done; without --dry-run: " + what
	}
	s.say("%s in %s", what, s.configDir())
}

func (s *switcher) say(format string, args ...any) {
	fmt.Fprintf(s.out, format+"\n", args...)
}

var plain = regexp.MustCompile(`^[\w./=:,@%+-]+$`)

// quote quotes a word for the shell, where it needs that.
func quote(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// service returns the entry's name for postconf.
func (s *switcher) service() (string, error) {
	conf, err := s.readConfig()
	if err != nil {
		return "", err
	}
	name, err := conf.String("connection_cache_service_name")
	return name + "/unix", err
}

// entry returns the entry of master.cf, on one line.
func (s *switcher) entry() (string, error) {
	service, err := s.service()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("postconf", "-c", s.configDir(), "-M", service).Output()
	if err != nil {
		return "", commandError("postconf -M", err)
	}
	entry := strings.TrimSpace(string(out))
	if !entryForm.MatchString(entry) {
		return "", fmt.Errorf("%s: %w: %s", filepath.Join(s.configDir(), "master.cf"), errNoEntry, service)
	}
	return entry, nil
}

// entryForm is seven columns, the command, and its arguments.
var entryForm = regexp.MustCompile(`^((?:\S+\s+){7})(\S+)([\s\S]*)$`)

func commandOf(entry string) string {
	if m := entryForm.FindStringSubmatch(strings.TrimSpace(entry)); m != nil {
		return m[2]
	}
	return stockCommand
}

func withCommand(entry, command string) string {
	m := entryForm.FindStringSubmatch(entry)
	return m[1] + command + m[3]
}

func (s *switcher) savedPath() string { return filepath.Join(s.configDir(), savedName) }

func (s *switcher) save(entry string) error {
	if s.dryRun {
		s.say("save the entry to %s: %s", s.savedPath(), entry)
		return nil
	}
	return replaceFile(s.savedPath(), []byte(entry+"\n"))
}

// checkBinary makes sure that Postfix will find a server that runs.
func (s *switcher) checkBinary() error {
	out, err := exec.Command("postconf", "-c", s.configDir(), "-h", "daemon_directory").Output()
	if err != nil {
		return commandError("postconf -h daemon_directory", err)
	}
	path := filepath.Join(strings.TrimSpace(string(out)), ourCommand)
	out, err = exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s does not run: %w %s(make install puts it there)", path, err, out)
	}
	return nil
}
