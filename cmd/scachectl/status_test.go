// SPDX-License-Identifier: EPL-2.0

package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"scache/internal/control"
	"scache/internal/stats"
)

// TestStatus_manualExplainsEachField of the JSON, once, as the tables say.
func TestStatus_manualExplainsEachField(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("scachectl.8")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(data), ".Sh STATUS\n")
	section, _, _ = strings.Cut(section, ".Sh ")
	fields := control.Help(&fullStatus{})
	for _, f := range control.Help(&installed{}) {
		fields = append(fields, [2]string{"installed." + f[0], f[1]})
	}
	for _, f := range fields {
		if want := ".It Va " + f[0] + "\n" + f[1] + "\n"; !strings.Contains(section, want) {
			t.Errorf("STATUS of scachectl.8 lacks:\n%s", want)
		}
	}
	if got := strings.Count(section, ".It Va "); got != len(fields) {
		t.Errorf("STATUS of scachectl.8: got %d fields, want %d", got, len(fields))
	}
	var times map[string]any
	text, err := json.Marshal(fullStatus{}.Took)
	if err != nil || json.Unmarshal(text, &times) != nil {
		t.Fatalf("%s, %v", text, err)
	}
	for name := range times {
		mentions(t, section, ".Va "+name)
	}
}

func TestStatus_jsonHasInstalled(t *testing.T) {
	t.Parallel()
	all := fullStatus{Status: control.Status{PID: 7, Values: stats.Values{Saved: 1 << 40}}}
	for _, want := range []string{"", `,"installed":{"path":"/x","version":"1","running":true}`} {
		text, err := json.Marshal(all)
		begins := `{"version":"","pid":7,"uptime_seconds":0,`
		if got := string(text); err != nil || !strings.HasPrefix(got, begins) ||
			!strings.Contains(got, `"saved":1099511627776,`) ||
			!strings.HasSuffix(got, `"announces":false`+want+"}") {
			t.Errorf("got %s, %v, want %s…%s}", got, err, begins, want)
		}
		all.Installed = &installed{"/x", "1", true}
	}
}

// TestStatus_textHasEachNumber with values that are all different.
func TestStatus_textHasEachNumber(t *testing.T) {
	t.Parallel()
	s := control.Status{Version: "1.2", PID: 7, Uptime: control.Seconds(time.Minute),
		TTLLimit: control.Seconds(2 * time.Second)}
	for i := range stats.Numbers {
		*stats.Numbers[i].Field(&s.Values) = int64(101 + i)
	}
	s.Saved = 6000000000
	var b strings.Builder
	if err := (fullStatus{Status: s}).print(&b, "/socket"); err != nil {
		t.Fatal(err)
	}
	const times = "half of the requests took less than 0s, 99% less than 0s; " +
		"half of the reused sessions waited less than 0s"
	const want = `scache 1.2, pid 7, up 1m0s, at /socket

                  now   peak   limit
       sessions   101    104     107
      endpoints   102    105        
   destinations   103    106        
        clients   119               
          bytes   124            125

       lookups   hits   misses   hit rate   per second
   destination    108      109        49%          3.6
      endpoint    110      111        49%          3.7

sessions: 6000000000 saved (100000000.0 per second), 113 taken over, 218 reused
closed:   114 expired, 115 dead, 116 evicted, 117 flushed
bindings: 118 evicted
clients:  120 connections, 121 refused
lost:     122 sessions and clients at reloads, 123 log lines
memory:   126 sessions and bindings evicted
times:    ` + times + `
settings: ttl limit 2s, client timeout 0s, liveness check off, goodbye off, announcement off
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
