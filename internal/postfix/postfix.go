// SPDX-License-Identifier: EPL-2.0

// Package postfix is one Postfix installation as its administrator has it: its
// parameters, its entry for the connection cache in master.cf, whether it runs, and
// what it is told.
//
// Everything that changes a system can be interrupted at any point, and leaves the
// old file or the new one.
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

// DefaultDirectory is where main.cf is, unless somebody says otherwise.
const DefaultDirectory = "/etc/postfix"

// A System is one instance of Postfix.
type System struct {
	Directory string           // of main.cf and master.cf
	Config    *mailconf.Config // main.cf

	// Service is the name of the connection cache.
	Service string
}

// Open reads main.cf in a directory. An empty name is that of the environment
// variable MAIL_CONFIG or of the default.
func Open(directory string) (*System, error) {
	s := &System{Directory: cmp.Or(directory, os.Getenv("MAIL_CONFIG"), DefaultDirectory)}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
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
	if s.Config.Source("daemon_directory") == mailconf.Default { // which depends on who has built Postfix
		directory, err = s.output("postconf", "-dh", "daemon_directory")
	}
	if err != nil {
		return "", err
	}
	// Where it is a link, a path that leads out of it would lead elsewhere.
	return filepath.EvalSymlinks(strings.TrimSpace(directory))
}

// CommandPath returns where the command of an entry is.
func (s *System) CommandPath(command string) (string, error) {
	directory, err := s.DaemonDirectory()
	return filepath.Join(directory, command), err
}

// Version returns the version of Postfix.
func (s *System) Version() (string, error) {
	out, err := s.output("postconf", "-dh", "mail_version")
	return strings.TrimSpace(out), err
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
	for _, directory := range strings.FieldsFunc(others, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) }) {
		if _, err := os.Stat(filepath.Join(directory, "main.cf")); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, directory)
		} else if filepath.Clean(directory) != filepath.Clean(s.Directory) {
			present = append(present, directory)
		}
	}
	return present, missing, nil
}

// RefersTo tells whether main.cf or master.cf has the value of a parameter somewhere.
func (s *System) RefersTo(parameter string) bool {
	value := regexp.MustCompile(`\$[({]?` + regexp.QuoteMeta(parameter) + `\b`)
	for _, name := range []string{"main.cf", "master.cf"} {
		if text, err := os.ReadFile(filepath.Join(s.Directory, name)); err == nil && value.Match(text) {
			return true
		}
	}
	return false
}

// Running tells whether the system runs. "postfix status" would speak of all
// instances, where there are several.
func (s *System) Running() (bool, error) {
	queue, err := s.Config.String("queue_directory")
	if err != nil {
		return false, err
	}
	// A pid in a file proves nothing; master(8) has a lock on it.
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

// MasterPID returns the process of master(8), if it runs.
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

// Check has Postfix check its files.
func (s *System) Check() error { return s.Postfix("check") }

// Reload has Postfix read its files again.
func (s *System) Reload() error { return s.Postfix("reload") }

// Postfix runs postfix(1) with a command.
func (s *System) Postfix(command string) error {
	_, err := s.output("postfix", "-c", s.Directory, command)
	return err
}

// commandLimit is how long a command of Postfix may take.
const commandLimit = 30 * time.Second

// output runs a command of Postfix, and returns what it prints.
func (s *System) output(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.find(name), args...)
	cmd.WaitDelay = time.Second                           // daemons that it starts may keep its output open
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what a terminal interrupts is not Postfix
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return string(out), nil
}

// find returns the path of a command of Postfix: where main.cf says, or where only
// root's path leads. That of cron leads to neither.
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
