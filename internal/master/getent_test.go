// SPDX-License-Identifier: EPL-2.0

package master

import (
	"path/filepath"
	"strings"
	"testing"

	"scache/internal/testenv"
)

// TestLookup asks getent(1) for a user that is not in /etc/passwd.
func TestLookup(t *testing.T) {
	bin := t.TempDir()
	getent := func(script string) {
		t.Helper()
		err := testenv.WriteProgram(filepath.Join(bin, "getent"), "#!/bin/sh\n"+script+"\n")
		if err != nil {
			t.Fatal(err)
		}
	}
	former := getentDirectories
	getentDirectories = []string{filepath.Join(bin, "none"), bin}
	t.Cleanup(func() { getentDirectories = former })

	getent(`exit 9`)
	if uid, gid, err := lookup("root"); uid != 0 || gid != 0 || err != nil {
		t.Errorf("root: %d, %d, %v", uid, gid, err)
	}
	getent(`test "$*" = "passwd no-such-user" && echo "no-such-user:x:4242:4343:a name:/:/bin/false"`)
	if uid, gid, err := lookup("no-such-user"); uid != 4242 || gid != 4343 || err != nil {
		t.Errorf("got %d, %d, %v", uid, gid, err)
	}
	for script, want := range map[string]string{
		"exit 2":                          "unknown user",
		"echo nonsense":                   `getent printed "nonsense"`,
		"echo other:x:1:1::/:":            "getent printed",
		"echo no-such-user:x:y:1::/:":     "getent printed",
		"echo no-such-user:x:-1:1::/:":    "getent printed",
		"echo no-such-user:x:99999999999": "getent printed",
		"echo broken >&2; exit 1":         "broken",
		"sleep 100":                       "no answer within",
	} {
		getent(script)
		if _, _, err := lookup("no-such-user"); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "mail_owner") {
			t.Errorf("%s: got %v, want %q", script, err, want)
		}
	}
	getentDirectories = nil
	if _, _, err := lookup("no-such-user"); err == nil ||
		!strings.Contains(err.Error(), "unknown user") {
		t.Errorf("without getent: %v", err)
	}
}
