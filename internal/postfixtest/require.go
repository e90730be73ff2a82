// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"scache/internal/testenv"
)

// DaemonDirectory returns the daemon directory of the installed Postfix.
func DaemonDirectory() (string, error) {
	out, err := exec.Command("postconf", "-dh", "daemon_directory").Output()
	return strings.TrimSpace(string(out)), err
}

// Stock returns the path of the scache of the installed Postfix.
func Stock() (string, error) {
	dir, err := DaemonDirectory()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "scache")
	_, err = os.Stat(path)
	return path, err
}

// NeedPostfix skips a test that cannot run without Postfix and root, and in short mode. With
// CI set in the environment, the test fails where they are missing.
func NeedPostfix(t testing.TB) (stock string) {
	t.Helper()
	testenv.SkipShort(t)
	stock, err := Stock()
	if err == nil && os.Geteuid() == 0 {
		return stock
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("this test needs Postfix and root: %v", err)
	}
	t.Skipf("SKIPPED: this test needs Postfix and root: %v", err)
	return ""
}
