// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"os"
	"strings"
	"testing"
)

// privateDev is a script that gives its command a directory /dev of its own, with the usual
// devices and without a log socket.
const privateDev = `set -e
dev=$(mktemp -d)
mount -t tmpfs -o mode=755 dev "$dev"
for name in null zero full random urandom tty; do
	: >"$dev/$name"
	mount --bind "/dev/$name" "$dev/$name"
done
ln -s /proc/self/fd "$dev/fd"
mkdir "$dev/pts" "$dev/shm"
mount --move "$dev" /dev
rmdir "$dev"
exec "$@"
`

// inPrivateDev is set in the environment of a test that InPrivateDev runs.
const inPrivateDev = "SCACHE_TEST_PRIVATE_DEV"

// InPrivateDev runs a test again, in a process that has a /dev of its own, where the test may
// create a log socket. It reports whether this is that process; otherwise all is done.
func InPrivateDev(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inPrivateDev) != "" {
		return true
	}
	cmd := Command("unshare", "--mount", "sh", "-c", privateDev, "sh",
		os.Args[0], "-test.v", "-test.count=1", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), inPrivateDev+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("with a /dev of its own: %v\n%s", err, out)
	}
	return false
}
