// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInjector_failsOneCall runs a shell whose redirections duplicate descriptors: the
// first time, it is told that there are none left.
func TestInjector_failsOneCall(t *testing.T) {
	t.Parallel()
	NeedPostfix(t) // that is, root
	launcher := filepath.Join(t.TempDir(), "launcher")
	if err := Build(launcher, "scache/internal/postfixtest/launcher"); err != nil {
		t.Fatal(err)
	}
	in := NewInjector(launcher)
	for _, n := range []int{0, 2, 1000} {
		in.Arm(Fault{Kind: "fcntl", Errno: unix.EMFILE, N: n})
		var out strings.Builder
		cmd := Command("/bin/sh", "-c", "for i in 1 2 3; do { echo $i; } 2>/dev/null; done; /bin/true")
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := in.Start(cmd); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		counts, hit := in.Disarm()
		all := out.String() == "1\n2\n3\n"
		if counts["fcntl"] < 2 || all != (n != 2) || (hit != nil) != (n == 2) {
			t.Errorf("with call %d: got %q, %v, hit %v", n, out.String(), counts, hit)
		}
	}
}
