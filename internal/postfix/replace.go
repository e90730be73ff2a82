// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// ErrNotWritable is the error for a master.cf that can neither be replaced nor written in
// place. The file has not changed.
var ErrNotWritable = errors.New("master.cf cannot be written")

// write changes master.cf. The file cannot be replaced if it is a mount point, or if no file
// can be created beside it. Then it is written in place, with a backup beside it until that is
// done.
func (s *System) write(text []byte) error {
	replaced := s.replace(s.masterCF(), text)
	if replaced == nil {
		return nil
	}
	old, err := os.ReadFile(s.masterCF())
	if err != nil {
		return err
	}
	// Opening the file changes nothing, and shows whether it can be written at all.
	f, err := os.OpenFile(s.masterCF(), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotWritable, err)
	}
	f.Close()
	if err := s.replace(s.backupPath(), old); err != nil {
		return fmt.Errorf("%w: it cannot be replaced (%w), "+
			"and there is no room for a backup beside it: %w", ErrNotWritable, replaced, err)
	}
	if err := s.overwrite(text); err != nil {
		_, restored := s.Restore()
		return errors.Join(fmt.Errorf("%w: %w", ErrNotWritable, err), restored)
	}
	return remove(s.backupPath())
}

// replaceOrOverwrite changes master.cf while there is a backup.
func (s *System) replaceOrOverwrite(text []byte) error {
	if s.replace(s.masterCF(), text) == nil {
		return nil
	}
	return s.overwrite(text)
}

// overwrite writes master.cf in place. At any moment the file has the beginning of the new text
// and the end of the old one.
func (s *System) overwrite(text []byte) error {
	f, err := os.OpenFile(s.masterCF(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Truncate(int64(len(text))); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// replace replaces a file beside master.cf in one step, or the file that a link leads to. The
// new file gets the owner, mode and label of master.cf, because it is master.cf or a copy of
// it.
func (s *System) replace(path string, text []byte) error {
	own := path == s.masterCF()
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if err := copyAccess(f.File, s.masterCF()); err != nil {
		if own {
			return err
		}
		// A copy may be accessible to fewer users than the file: to the present one only.
		if err := f.Chmod(0o600); err != nil {
			return err
		}
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// accessAttributes are the attributes that decide who may access a file: the label of SELinux,
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
	value := make([]byte, 1<<16) // the maximum length
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
