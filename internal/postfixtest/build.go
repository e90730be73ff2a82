// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"fmt"
	"os"
	"os/exec"
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
func Build(path, pkg string, flags ...string) error {
	const variables = "-ldflags=-X main.version=test -X main.libexec=/nonexistent"
	args := append([]string{"build", "-trimpath", variables, "-o", path}, flags...)
	if coverDir != "" {
		args = append(args, "-cover", "-coverpkg=scache/...")
	}
	if out, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
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
