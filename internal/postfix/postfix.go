// SPDX-License-Identifier: EPL-2.0

// Package postfix reads and changes one Postfix installation as its administrator
// does: parameters, the entry of the connection cache in master.cf, the log, and the
// commands of postfix(1).
//
// Every change can be interrupted at any point. It leaves the old file or the new one,
// or a backup from which Restore restores it.
package postfix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/mailconf"
)

// DefaultDirectory is where main.cf is by default.
const DefaultDirectory = "/etc/postfix"

// A System is one instance of Postfix.
type System struct {
	Directory string           // of main.cf and master.cf
	Config    *mailconf.Config // main.cf

	// Service is the name of the connection cache.
	Service string
}

// Open reads main.cf in a directory. If the name is empty, the environment variable
// MAIL_CONFIG or the default names the directory.
func Open(directory string) (*System, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	// The commands of Postfix change their directory, so the path must be absolute.
	directory, err = filepath.Abs(cmp.Or(directory, os.Getenv("MAIL_CONFIG"), DefaultDirectory))
	if err != nil {
		return nil, err
	}
	s := &System{Directory: directory}
	s.Config = mailconf.New(host)
	if err := s.Config.ReadFile(s.Directory); err != nil {
		return nil, err
	}
	s.Config.AskPostconf(func(string, ...any) {}) // the daemon logs it
	s.Service, err = s.Config.String("connection_cache_service_name")
	return s, err
}

// Socket returns the path of the connection cache's socket.
func (s *System) Socket() (string, error) {
	queue, err := s.Config.String("queue_directory")
	return filepath.Join(queue, "private", s.Service), err
}

// DaemonDirectory returns the directory of Postfix's daemons.
func (s *System) DaemonDirectory() (string, error) {
	directory, err := s.Config.String("daemon_directory")
	if s.Config.Source("daemon_directory") == mailconf.Default {
		// The default was set when Postfix was built.
		directory, err = s.output("postconf", "-dh", "daemon_directory")
	}
	if err != nil {
		return "", err
	}
	// The kernel resolves ".." after a link is followed; filepath.Rel and Join do not.
	return filepath.EvalSymlinks(strings.TrimSpace(directory))
}

// CommandPath returns the path of the command of an entry.
func (s *System) CommandPath(command string) (string, error) {
	directory, err := s.DaemonDirectory()
	return filepath.Join(directory, command), err
}

// Version returns the version of Postfix.
func (s *System) Version() (Version, error) {
	out, err := s.output("postconf", "-dh", "mail_version")
	return Version(strings.TrimSpace(out)), err
}

// Owner returns the name of the user that the daemons of Postfix run as.
func (s *System) Owner() (string, error) { return s.Config.String("mail_owner") }

// Instances returns the directories of this system and of the others that it is
// responsible for. Those without main.cf are missing.
func (s *System) Instances() (present, missing []string, err error) {
	others, err := s.Config.String("multi_instance_directories")
	if err != nil {
		return nil, nil, err
	}
	present = []string{s.Directory}
	for _, directory := range mailconf.Fields(others) {
		if _, err := os.Stat(filepath.Join(directory, "main.cf")); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, directory)
		} else if filepath.Clean(directory) != filepath.Clean(s.Directory) {
			present = append(present, directory)
		}
	}
	return present, missing, nil
}

// RefersTo reports whether main.cf or master.cf uses the value of a parameter.
func (s *System) RefersTo(parameter string) bool {
	value := regexp.MustCompile(`\$[({]?` + regexp.QuoteMeta(parameter) + `\b`)
	for _, name := range []string{"main.cf", "master.cf"} {
		if text, err := os.ReadFile(filepath.Join(s.Directory, name)); err == nil && value.Match(text) {
			return true
		}
	}
	return false
}

// Running reports whether the system runs. "postfix status" would report on all
// instances, if there are several.
func (s *System) Running() (bool, error) {
	queue, err := s.Config.String("queue_directory")
	if err != nil {
		return false, err
	}
	// The pid in the file may be an old one. master(8) holds a lock on the file while it runs.
	f, err := os.OpenFile(filepath.Join(queue, "pid", "master.pid"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
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

// MasterPID returns the pid of master(8), and whether it runs.
func (s *System) MasterPID() (pid int, running bool) {
	queue, err := s.Config.String("queue_directory")
	if err != nil {
		return 0, false
	}
	text, err := os.ReadFile(filepath.Join(queue, "pid", "master.pid"))
	if err != nil {
		return 0, false
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return 0, false
	}
	running, err = s.Running()
	return pid, running && err == nil
}

// Reload makes Postfix read its files again.
func (s *System) Reload(ctx context.Context) error { return s.Postfix(ctx, "reload") }

// Postfix runs postfix(1) with a command. An error contains the reasons that the command has
// written to its standard error or to the log. The command has no timeout: it may
// look at a large queue, or wait for a postlogd(8) that cannot start. When ctx is done, it is
// killed, with all processes that it has started except daemons.
func (s *System) Postfix(ctx context.Context, command string) error {
	log := s.logPosition()
	var stderr *os.File
	terminal, noTerminal := openTerminal()
	if noTerminal == nil {
		stderr = terminal.stderr
	}
	_, err := s.run(ctx, stderr, "postfix", "-c", s.Directory, command)
	var reasons []string
	if noTerminal == nil {
		reasons = terminal.close()
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		reasons = append(reasons, "it did not end, and was killed")
	}
	if reasons == nil {
		reasons = log.linesOf("postfix", "postfix-script", "postsuper", "postlog", "master")
	}
	if reasons != nil {
		err = fmt.Errorf("%w\n%s", err, strings.Join(reasons, "\n"))
	}
	return err
}

// queryTimeout is how long a command may take that only prints something.
const queryTimeout = 30 * time.Second

// output runs a command of Postfix that only prints something, and returns its output.
func (s *System) output(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	return s.run(ctx, nil, name, args...)
}

// run runs a command, and returns its output. Its standard error may be a file.
func (s *System) run(
	ctx context.Context, stderr *os.File, name string, args ...string,
) (string, error) {
	cmd := exec.CommandContext(ctx, s.find(name), args...)
	cmd.WaitDelay = time.Second // daemons that it starts may keep its output open
	// In another process group, an interrupt from the terminal does not reach Postfix.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	var errOut strings.Builder
	cmd.Stderr = &errOut
	if stderr != nil {
		cmd.Stderr = stderr
	}
	out, err := cmd.Output()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return string(out), nil
	}
	err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	if said := strings.TrimSpace(errOut.String()); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return "", err
}

// find returns the path of a command of Postfix: in command_directory, or in a directory that
// may be missing in PATH, such as under cron.
func (s *System) find(name string) string {
	directory, _ := s.Config.String("command_directory")
	for _, directory := range []string{directory, "/usr/sbin", "/usr/local/sbin"} {
		path := filepath.Join(directory, name)
		if _, err := exec.LookPath(path); err == nil && directory != "" {
			return path
		}
	}
	return name
}

// A Version is the version of Postfix, such as 3.7.11.
type Version string

// AtLeast reports whether a version is this one or a later one. It returns false for a version
// that cannot be parsed.
func (v Version) AtLeast(major, minor int) bool {
	have, ok := v.parse()
	return ok && (have[0] > major || have[0] == major && have[1] >= minor)
}

// Known reports whether the version can be parsed.
func (v Version) Known() bool {
	_, ok := v.parse()
	return ok
}

func (v Version) parse() (numbers [2]int, ok bool) {
	n, _ := fmt.Sscanf(string(v), "%d.%d", &numbers[0], &numbers[1])
	return numbers, n == 2
}
