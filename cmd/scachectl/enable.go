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
	"strings"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/client"
)

// ourCommand is the server in master.cf. Postfix looks for it in its
// daemon_directory, where a directory of our own is safe from its upgrades.
const ourCommand = "scache-go/scache"

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
	cmd := terse("disable", "Switch the mail system back to the server of before", func(cmd *cobra.Command) error {
		s.out = cmd.OutOrStdout()
		return s.disable()
	})
	cmd.Long = `disable puts back the command that the scache entry in master.cf had before enable,
checks the configuration, and reloads Postfix if it runs.`
	cmd.Flags().BoolVar(&s.dryRun, "dry-run", false, "only print the commands")
	return cmd
}

// A switcher switches a mail system between servers.
type switcher struct {
	*control
	dryRun bool
	out    io.Writer
}

func (s *switcher) enable() error {
	entry, err := s.entry()
	if err != nil {
		return err
	}
	if err := s.checkBinary(); err != nil {
		return err
	}
	if commandOf(entry) == ourCommand {
		s.say("already enabled in %s", s.configDir())
		return nil
	}
	if err := s.save(entry); err != nil {
		return err
	}
	if err := s.change(entry, withCommand(entry, ourCommand), true); err != nil {
		if now, entryErr := s.entry(); entryErr == nil && commandOf(now) != ourCommand {
			os.Remove(s.savedPath()) // it is of no use any more
		}
		return err
	}
	s.say("enabled in %s", s.configDir())
	return nil
}

func (s *switcher) disable() error {
	entry, err := s.entry()
	if err != nil {
		return err
	}
	if commandOf(entry) != ourCommand {
		s.say("not enabled in %s", s.configDir())
		return nil
	}
	command := "scache"
	if saved, err := os.ReadFile(s.savedPath()); err == nil {
		command = commandOf(string(saved))
	}
	if err := s.change(entry, withCommand(entry, command), false); err != nil {
		return err
	}
	if !s.dryRun {
		if err := os.Remove(s.savedPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	s.say("disabled in %s", s.configDir())
	return nil
}

// change replaces the entry and makes Postfix use it. If that fails, it puts the
// old one back.
func (s *switcher) change(old, new string, ours bool) error {
	running := exec.Command("postfix", "-c", s.configDir(), "status").Run() == nil
	before, err := s.options()
	if err != nil {
		return err
	}
	err = s.apply(new, running)
	if err == nil && !s.dryRun {
		err = s.verify(before, ours, running)
	}
	if err == nil || s.dryRun {
		return err
	}
	if undo := s.apply(old, running); undo != nil {
		return fmt.Errorf("%w; and the old entry could not be put back: %v: please look at master.cf: it was %q", err, undo, old)
	}
	return fmt.Errorf("%w; the old entry is back", err)
}

func (s *switcher) apply(entry string, running bool) error {
	service, err := s.service()
	if err != nil {
		return err
	}
	if err := s.run("postconf", "-c", s.configDir(), "-M", service+"="+entry); err != nil {
		return err
	}
	if err := s.run("postfix", "-c", s.configDir(), "check"); err != nil {
		return err
	}
	if !running {
		s.say("Postfix is not running: the change takes effect when it is started")
		return nil
	}
	return s.run("postfix", "-c", s.configDir(), "reload")
}

// verify checks that the options of the entry are as before, and that the right
// server answers.
func (s *switcher) verify(before string, ours, running bool) error {
	after, err := s.options()
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("the options in master.cf have changed from %q to %q", before, after)
	}
	if !running {
		return nil
	}
	var probe error
	for end := time.Now().Add(timeout); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		_, probe = s.status()
		if ours && probe == nil || !ours && errors.Is(probe, client.ErrStock) {
			return nil
		}
	}
	if probe == nil {
		probe = errors.New("it is this server that still answers")
	}
	return fmt.Errorf("after the reload: %w", probe)
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
		return "", fmt.Errorf("%s has no entry %s", filepath.Join(s.configDir(), "master.cf"), service)
	}
	return entry, nil
}

// options returns the parameters that the entry sets with -o.
func (s *switcher) options() (string, error) {
	service, err := s.service()
	if err != nil {
		return "", err
	}
	out, err := exec.Command("postconf", "-c", s.configDir(), "-P").Output()
	if err != nil {
		return "", commandError("postconf -P", err)
	}
	var options strings.Builder
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, service+"/") {
			options.WriteString(line)
		}
	}
	return options.String(), nil
}

// entryForm is seven columns, the command, and its arguments.
var entryForm = regexp.MustCompile(`^((?:\S+\s+){7})(\S+)([\s\S]*)$`)

func commandOf(entry string) string {
	if m := entryForm.FindStringSubmatch(strings.TrimSpace(entry)); m != nil {
		return m[2]
	}
	return "scache"
}

func withCommand(entry, command string) string {
	return entryForm.ReplaceAllString(entry, "${1}"+command+"${3}")
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
