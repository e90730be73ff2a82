// SPDX-License-Identifier: EPL-2.0

package master

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A jail is what a process confines itself to: a directory, and a user.
type jail struct {
	directory string // the working directory
	chroot    bool   // the directory becomes the root directory, too
	owner     string // the user that the process becomes, if not empty
}

// noNewPrivileges makes sure that no program that this process might start gets more rights
// than it has itself, in all of its threads. It starts none in the jail.
func noNewPrivileges() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	// ENOTSUP: a binary with cgo, such as for the race detector.
	if errno != 0 && errno != syscall.ENOTSUP {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", errno)
	}
	return nil
}

// enter confines the process. Steps that need files outside of the jail, or root, come
// first.
func (j jail) enter() error {
	// The time zone is read when it is first needed, which is too late in a
	// jail without /etc/localtime.
	_, _ = time.Now().Zone()
	if err := os.Chdir(j.directory); err != nil {
		return err
	}
	uid, gid, err := -1, -1, error(nil)
	if j.owner != "" {
		if uid, gid, err = lookup(j.owner); err != nil {
			return err
		}
	}
	if j.chroot {
		if err := syscall.Chroot(j.directory); err != nil {
			return fmt.Errorf("chroot %s: %w", j.directory, err)
		}
		if err := os.Chdir("/"); err != nil {
			return err
		}
	}
	if uid < 0 {
		return nil
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("setgid %d: %w", gid, err)
	}
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return fmt.Errorf("setgroups %d: %w", gid, err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("setuid %d: %w", uid, err)
	}
	return nil
}

// lookup returns the uid and gid of mail_owner. os/user reads only /etc/passwd. If the name is
// not there, lookup asks getent(1), which asks every source of names in nsswitch.conf(5). That
// works only outside of the jail.
func lookup(owner string) (uid, gid int, err error) {
	var fields []string
	u, err := user.Lookup(owner)
	if err == nil {
		fields = []string{u.Uid, u.Gid}
	} else if fields, err = askGetent(owner, err); err != nil {
		return 0, 0, fmt.Errorf("parameter mail_owner: %w", err)
	}
	if uid, err = strconv.Atoi(fields[0]); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(fields[1])
	return uid, gid, err
}

var (
	// getentDirectories are where getent(1) may be: master(8) gives no search path to rely on.
	getentDirectories = []string{"/usr/bin", "/bin", "/usr/local/bin", "/run/current-system/sw/bin"}
	// getentTimeout is how long it may take.
	getentTimeout = 5 * time.Second
)

// askGetent returns the uid and gid of a user, from getent(1). unknown is the error to return
// if getent does not know the user either, or is not installed.
func askGetent(name string, unknown error) ([]string, error) {
	for _, directory := range getentDirectories {
		path := filepath.Join(directory, "getent")
		if _, err := os.Stat(path); err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), getentTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, path, "passwd", name)
		cmd.WaitDelay = time.Second // for processes that it may have started
		out, err := cmd.Output()
		exit, exited := errors.AsType[*exec.ExitError](err)
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w, and %s: no answer within %v", unknown, path, getentTimeout)
		case exited && exit.ExitCode() == notInDatabase:
			return nil, unknown
		case exited:
			return nil, fmt.Errorf("%w, and %s: %w: %.200s",
				unknown, path, err, strings.TrimSpace(string(exit.Stderr)))
		case err != nil:
			return nil, fmt.Errorf("%w, and %w", unknown, err)
		}
		return parsePasswd(name, strings.TrimSpace(string(out)))
	}
	return nil, unknown
}

// notInDatabase is the exit code of getent(1) for a name that no source has.
const notInDatabase = 2

func badPasswd(line string) error { return fmt.Errorf("getent printed %.200q", line) }

// parsePasswd returns the numbers in a line of passwd(5).
func parsePasswd(name, line string) ([]string, error) {
	fields := strings.Split(line, ":")
	if len(fields) < 4 || fields[0] != name {
		return nil, badPasswd(line)
	}
	for _, number := range fields[2:4] {
		if _, err := strconv.ParseUint(number, 10, 31); err != nil {
			return nil, badPasswd(line)
		}
	}
	return fields[2:4], nil
}
