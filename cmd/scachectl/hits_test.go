// SPDX-License-Identifier: EPL-2.0

package main

import (
	"encoding/json"
	"regexp"
	"testing"
)

func TestHits(t *testing.T) {
	t.Parallel()
	m := startServer(t, server)
	ctl := callerOf(t, m.Socket)
	saveConnection(t, m.Socket)
	for range 3 {
		wantError(t, []string{"--socket", m.Socket, "debug", "find", "destination", `never\nsaved\n`},
			"not found")
	}
	ctl("debug", "find", "destination", `smtp\nexample.com\n25\n`)
	for _, step := range []struct {
		args    []string
		pattern string
	}{
		{nil, `^DESTINATION +LOOKUPS .*\nnever saved +3 +0 +3 +0% +0 .*\n` +
			`smtp example.com +1 +1 +0 +100% +1 `},
		{[]string{"--sort", "hits", "--limit", "1", "--labels"},
			`\nsmtp\\nexample.com\\n25\\n .*\n… 1 more\n`},
		{[]string{"--by", "endpoint"}, `^ENDPOINT +LOOKUPS .*\nsmtp 192.0.2.1 +1 +1 +0 +100% +1 `},
	} {
		out := ctl(append([]string{"hits"}, step.args...)...)
		if !regexp.MustCompile(step.pattern).MatchString(out) {
			t.Errorf("%q: no %s in\n%s", step.args, step.pattern, out)
		}
	}
	var all []map[string]any
	err := json.Unmarshal([]byte(ctl("hits", "--json")), &all)
	if err != nil || len(all) != 2 || all[0]["label"] != `never\nsaved\n` || all[0]["misses"] != 3.0 {
		t.Errorf("%v, %v", all, err)
	}
	wantError(t, []string{"--socket", m.Socket, "hits", "--sort", "x"}, "lookups, misses, hits")
	wantError(t, []string{"--socket", m.Socket, "hits", "--by", "x"}, "destination or endpoint")
}
