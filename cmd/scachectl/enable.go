// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
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
	"golang.org/x/sys/unix"

	"scache/internal/client"
)

// libexec is where the server is installed, in a directory of its own, and is set
// by the build. Postfix looks for commands in its daemon_directory, and finds this
// one by a path that leads out of there: so nothing is made in a directory that
// belongs to Postfix, and the entry in master.cf is all there is to put back.
var libexec = "/usr/local/libexec/scache-go"

// ourName is how each command ends that is this server.
const ourName = "scache-go/scache"

// isOurs tells whether a command in master.cf is this server.
func isOurs(command string) bool {
	return command == ourName || strings.HasSuffix(command, "/"+ourName)
}

// stockCommand is the server that comes with Postfix.
const stockCommand = "scache"

var (
	errNoEntry = errors.New("no entry for the connection cache")
	errRoot    = errors.New("to change master.cf and to reload Postfix takes root")
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
	cmd.Long = `enable changes the command of the scache entry in master.cf to this server, and
nothing else of it, keeps a copy of the entry in ` + savedName + `, checks the configuration, reloads Postfix if it runs, and asks the new server for its status.
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
reloads Postfix if it runs, and waits until the old server answers. If that does not,
a warning says so: this server does not come back.`
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
	if err := s.begin(); err != nil {
		return err
	}
	entry, err := s.entry()
	if err != nil {
		return err
	}
	ours, err := s.findServer()
	if err != nil {
		return err
	}
	if isOurs(commandOf(entry)) {
		return s.settle(ours, "already enabled")
	}
	if err := s.save(entry); err != nil {
		return err
	}
	if err := s.change(entry, withCommand(entry, ours)); err != nil {
		if now, entryErr := s.entry(); entryErr == nil && !isOurs(commandOf(now)) {
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
		if _, missing := os.Stat(filepath.Join(dir, "main.cf")); errors.Is(missing, os.ErrNotExist) {
			s.say("warning: %s is in multi_instance_directories, and has no main.cf: left alone", dir)
			continue
		}
		one := *s
		one.control = &control{dir: dir}
		err = errors.Join(err, one.disable())
	}
	return err
}

// begin makes sure that the mail system can be changed, and puts right what an
// earlier call may have left half-way.
func (s *switcher) begin() error {
	switch {
	case s.socket != "":
		return errSocket
	case s.dryRun:
		return nil
	case os.Geteuid() != 0:
		return errRoot
	}
	return s.restoreWhole()
}

func (s *switcher) disable() error {
	if err := s.begin(); err != nil {
		return err
	}
	entry, err := s.entry()
	if errors.Is(err, errNoEntry) {
		s.conclude("not enabled")
		return nil
	}
	if err != nil {
		return err
	}
	if command := commandOf(entry); !isOurs(command) {
		return s.settle(command, "not enabled")
	}
	command := stockCommand
	saved, err := os.ReadFile(s.savedPath())
	if err == nil {
		command = commandOf(string(saved))
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := s.goBack(entry, withCommand(entry, command)); err != nil {
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
	stale := s.answers(ourName) != isOurs(command)
	if running && stale {
		if err := s.reload(command); err != nil && isOurs(command) {
			return err
		} else if err != nil {
			s.say("warning: %v", err)
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
		undo = s.reload(commandOf(old))
	}
	if undo != nil {
		return fmt.Errorf("%w; and the old entry could not be put back: %v: please look at master.cf: it was %q", err, undo, old)
	}
	return fmt.Errorf("%w; the old entry is back", err)
}

// goBack replaces the entry by the old one, and makes Postfix use it. It depends on
// nothing of ours, and does not undo what it has done: if the old server does not
// answer, that is for somebody to look at, but ours is not the better one.
func (s *switcher) goBack(old, new string) error {
	running, err := s.running()
	if err != nil {
		return err
	}
	service, err := s.service()
	if err != nil {
		return err
	}
	if err := s.put(service, new); err != nil {
		return err
	}
	if err := s.use(commandOf(new), running); err != nil {
		s.say("warning: %v", err)
	}
	return nil
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
	return s.use(commandOf(entry), running)
}

// use makes Postfix use the server of this command, if it runs.
func (s *switcher) use(command string, running bool) error {
	if !running {
		s.say("Postfix is not running: the change takes effect when it is started")
		return nil
	}
	return s.reload(command)
}

func (s *switcher) put(service, entry string) error {
	return s.run("postconf", "-c", s.configDir(), "-M", service+"="+entry)
}

// promptly is how soon a server answers that master(8) starts at once.
const promptly = 3 * time.Second

// reload makes Postfix read master.cf again, and waits until the right server
// answers.
//
// master(8) waits for a minute before it starts a server again that has failed,
// whatever its entry says by then. A reload without the entry, and one with it, makes
// it forget.
func (s *switcher) reload(command string) error {
	if err := s.tellPostfix(); err != nil || s.dryRun || s.waitFor(command, promptly) {
		return err
	}
	s.say("no answer yet: master(8) may be waiting after a failure; it is made to forget that")
	if err := s.forget(); err != nil {
		return err
	}
	if s.waitFor(command, timeout) {
		return nil
	}
	_, err := s.status()
	return fmt.Errorf("after the reload, %s does not answer: see the mail log (asked for its status: %v)", command, err)
}

func (s *switcher) tellPostfix() error { return s.run("postfix", "-c", s.configDir(), "reload") }

func (s *switcher) waitFor(command string, limit time.Duration) bool {
	s.patience = limit / 2
	defer func() { s.patience = 0 }()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if s.answers(command) {
			return true
		}
	}
	return false
}

// forget makes master(8) forget that the server has failed. master.cf is without
// the entry for a moment, and then as it was, byte for byte: also when this is
// interrupted, as the next call finds the whole file beside it.
func (s *switcher) forget() error {
	service, err := s.service()
	if err != nil {
		return err
	}
	path := filepath.Join(s.configDir(), "master.cf")
	whole, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := replaceFile(s.wholePath(), whole); err != nil {
		return err
	}
	if err := replaceFile(path, withoutEntry(whole, strings.TrimSuffix(service, "/unix"))); err != nil {
		return err
	}
	err = s.tellPostfix()
	if restored := s.restoreWhole(); restored != nil {
		return errors.Join(err, restored)
	}
	return errors.Join(err, s.tellPostfix())
}

// wholePath is the file that keeps master.cf while it is without the entry.
func (s *switcher) wholePath() string { return filepath.Join(s.configDir(), "master.cf.scache-whole") }

// restoreWhole puts master.cf back, if it was left without the entry.
func (s *switcher) restoreWhole() error {
	err := os.Rename(s.wholePath(), filepath.Join(s.configDir(), "master.cf"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// withoutEntry returns master.cf without the entry of a service of type unix: its
// line, and those that go on with it.
func withoutEntry(text []byte, service string) []byte {
	var out []byte
	inside := false
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		switch {
		case len(fields) > 0 && strings.HasPrefix(fields[0], "#"), len(fields) == 0: // a comment ends nothing
		case line[0] == ' ' || line[0] == '\t': // it goes on
			if inside {
				continue
			}
		default:
			inside = len(fields) > 1 && fields[0] == service && fields[1] == "unix"
			if inside {
				continue
			}
		}
		out = append(out, line...)
	}
	return out
}

// answers tells whether it is the server of this command that answers.
func (s *switcher) answers(command string) bool {
	_, err := s.status()
	switch {
	case isOurs(command):
		return err == nil
	case command == stockCommand:
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
	// A pid in a file proves nothing; master has a lock on it.
	f, err := os.OpenFile(filepath.Join(queue, "pid", "master.pid"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil // it never ran
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		return false, nil
	case unix.EWOULDBLOCK:
		return true, nil
	default:
		return false, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
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

// findServer returns this server's command for master.cf, if it runs.
func (s *switcher) findServer() (command string, err error) {
	out, err := exec.Command("postconf", "-c", s.configDir(), "-h", "daemon_directory").Output()
	if err != nil {
		return "", commandError("postconf -h daemon_directory", err)
	}
	// Where daemon_directory is a link, the path would lead elsewhere.
	directory, err := filepath.EvalSymlinks(strings.TrimSpace(string(out)))
	if err != nil {
		return "", err
	}
	command = ourName
	if _, err := os.Stat(filepath.Join(directory, command)); err != nil {
		if command, err = filepath.Rel(directory, filepath.Join(libexec, "scache")); err != nil {
			return "", err
		}
	}
	path := filepath.Join(directory, command)
	if out, err = exec.Command(path, "--version").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s does not run: %w %s(make install puts it there)", path, err, out)
	}
	return command, nil
}
