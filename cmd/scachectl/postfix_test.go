// SPDX-License-Identifier: EPL-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestConfig_pathOfCron has none of the directories of Postfix's commands.
func TestConfig_pathOfCron(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	cmd := exec.Command(tool, "-c", s.etc, "config")
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	if _, errOut, ok := run(cmd); !ok {
		t.Error(errOut)
	}
}

// TestPostfix_withoutNoise has a parameter that postconf does not know, and then an entry
// that refers to it, as the manual page says.
func TestPostfix_withoutNoise(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.configure(map[string]string{"connection_cache_goodbye": "QUIT",
		"connection_cache_receivers": "{ bigmail, 192.0.2.0/24, connections=2 }"})
	must(t, "-c", s.etc, "enable")
	s.start()
	noise := func() int {
		t.Helper()
		all := 0
		for _, command := range []string{"check", "reload"} {
			out, err := exec.Command("postfix", "-c", s.etc, command).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			all += strings.Count(string(out), "unused parameter")
		}
		return all
	}
	if n := noise(); n < 2 {
		t.Errorf("postconf has nothing to say of unknown parameters: %d", n)
	}
	s.edit("master.cf", "-o connection_cache_ttl_limit=1h", "-o connection_cache_ttl_limit=1h "+
		"-o lmtp_lhlo_name=$connection_cache_goodbye$connection_cache_receivers")
	if n := noise(); n > 0 {
		t.Errorf("%d times: unused parameter", n)
	}
	s.send()
	want(t, must(t, "-c", s.etc, "status"), "goodbye on")
}
