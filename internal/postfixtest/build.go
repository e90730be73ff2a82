// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"scache/internal/testenv"
)

// coverDir is the directory for coverage data of the binaries under test, or empty.
var coverDir = os.Getenv("SCACHE_COVERDIR")

func init() {
	if coverDir != "" {
		os.Setenv("GOCOVERDIR", coverDir) // for child processes
	}
}

// Build builds a command for tests, with the version "test". The command does not find a
// server that is installed on this machine.
//
// All packages share the binaries below bin/test of this module. The go command links one
// again only if its sources have changed since then.
func Build(path, pkg string, flags ...string) error {
	args := append([]string{
		"-trimpath", "-ldflags=-X main.version=test -X main.libexec=/nonexistent",
	}, flags...)
	if coverDir != "" {
		args = append(args, "-cover", "-coverpkg=scache/...")
	}
	unlock, shared, err := lockShared(pkg, args)
	if err != nil {
		return err
	}
	defer unlock()
	args = append([]string{"build", "-o", shared}, append(args, pkg)...)
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return linkOrCopy(shared, path)
}

// lockShared returns the path of the binary that all packages share, which no other process
// builds or copies until unlock is called.
func lockShared(pkg string, args []string) (unlock func(), shared string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, "", err
	}
	dir := filepath.Join(root, "bin", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, "", err
	}
	key := fnv.New64a()
	io.WriteString(key, strings.Join(append(args, pkg), "\x00"))
	shared = filepath.Join(dir, fmt.Sprintf("%s-%x", path.Base(pkg), key.Sum64()))
	lock, err := os.OpenFile(shared+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, "", err
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		lock.Close()
		return nil, "", os.NewSyscallError("flock", err)
	}
	return func() { lock.Close() }, shared, nil
}

// moduleRoot returns the directory of go.mod, from which the working directory of a test is
// its package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			err = errors.New("go.mod is not in a directory above this one")
		}
		dir = parent
	}
	return "", err
}

// linkOrCopy gives a binary a second name, or copies it to another file system. It stays what
// it is when the first one is built again.
func linkOrCopy(from, to string) error {
	os.Remove(to)
	if os.Link(from, to) == nil {
		return nil
	}
	program, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return testenv.WriteProgram(to, string(program))
}

// environment returns environment variables for binaries under test: the race detector does
// not wait for a second before it exits, and coverage data goes to coverDir.
func environment() []string {
	const race = "GORACE=atexit_sleep_ms=10"
	if coverDir == "" {
		return []string{race}
	}
	return []string{race, "GOCOVERDIR=" + coverDir}
}
