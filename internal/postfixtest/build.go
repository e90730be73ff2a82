// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"fmt"
	"os"
	"os/exec"
)

// coverDir is where the binaries under test leave what they have covered, if somebody
// wants to know.
var coverDir = os.Getenv("SCACHE_COVERDIR")

func init() {
	if coverDir != "" {
		os.Setenv("GOCOVERDIR", coverDir) // for what is started
	}
}

// Build builds a command for tests, with the version "test". It does not find a server
// that is installed on this machine.
func Build(path, pkg string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-ldflags=-X main.version=test -X main.libexec=/nonexistent", "-o", path}, flags...)
	if coverDir != "" {
		args = append(args, "-cover", "-coverpkg=scache/...")
	}
	if out, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}

// environment is what binaries under test find there: how the race detector ends, as it
// would wait for a second, and where to leave what they have covered.
func environment() []string {
	const race = "GORACE=atexit_sleep_ms=10"
	if coverDir == "" {
		return []string{race}
	}
	return []string{race, "GOCOVERDIR=" + coverDir}
}
