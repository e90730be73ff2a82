// SPDX-License-Identifier: EPL-2.0

// Package testenv has what the tests of several packages share: the short mode, waiting,
// descriptors whose copies can be told apart, and a report of descriptors that are left open.
// It imports no other package of this module, so that each of them can use it.
package testenv

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// SkipShort skips a test in short mode, which "make check" uses: it needs root, Postfix or
// other processes, or takes more than a second. "make test" runs all tests.
func SkipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped in short mode")
	}
}

// Stride returns how far a test that looks at each byte of something goes at once: one byte,
// or more in short mode.
func Stride() int {
	if testing.Short() {
		return 23
	}
	return 1
}

// Eventually waits for a condition that nothing reports, such as one of another process.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	const limit = time.Minute
	for end := time.Now().Add(limit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// WriteProgram writes a file that can be executed. Until it is closed, this process starts no
// children: one of them would have it open for writing until it executes its own program, and
// the kernel executes no file that is open for writing.
func WriteProgram(path, text string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(text), 0o755)
}
