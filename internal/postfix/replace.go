// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// replace replaces a file beside master.cf in one step, or what a link leads to. Who may
// do what with master.cf may do that with the new file: it is master.cf, or keeps some
// of it.
func (s *System) replace(path string, text []byte) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if err := copyAccess(f.File, s.masterCF()); err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// accessAttributes are those that say who may do what with a file: the label of SELinux,
// and an access control list.
var accessAttributes = []string{"security.selinux", "system.posix_acl_access"}

// copyAccess gives a file the owner, the mode and the attributes of another one.
func copyAccess(f *os.File, from string) error {
	fi, err := os.Stat(from)
	if err != nil {
		return err
	}
	owner := fi.Sys().(*syscall.Stat_t)
	if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
		return err
	}
	if err := f.Chmod(fi.Mode().Perm()); err != nil {
		return err
	}
	value := make([]byte, 1<<16) // as long as one can be
	for _, name := range accessAttributes {
		n, err := unix.Getxattr(from, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err == nil {
			err = unix.Fsetxattr(int(f.Fd()), name, value[:n], 0)
		}
		if err != nil {
			return &os.PathError{Op: "attribute " + name, Path: from, Err: err}
		}
	}
	return nil
}
