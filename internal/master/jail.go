// SPDX-License-Identifier: EPL-2.0

package master

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A jail is what a process locks itself into: a directory, and a user.
type jail struct {
	directory string // where it works
	chroot    bool   // and all it can see
	owner     string // the user it becomes, if not empty
}

// noNewPrivileges makes sure that no program that this process might start gets more rights
// than it has itself, in all of its threads. It starts none in the jail.
func noNewPrivileges() error {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
	if errno != 0 && errno != syscall.ENOTSUP { // a build with cgo, as that of the race detector
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", errno)
	}
	return nil
}

// enter works from the general to the particular: what needs the outside, or
// root, comes first.
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

func lookup(owner string) (uid, gid int, err error) {
	u, err := user.Lookup(owner)
	if err != nil {
		return 0, 0, fmt.Errorf("parameter mail_owner: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}
