// SPDX-License-Identifier: EPL-2.0

package packaging

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"scache/internal/client"
	"scache/internal/metrics"
	"scache/internal/postfixtest"
)

// need skips a test where a command is missing. With CI set, it fails the test.
func need(t *testing.T, command string) {
	t.Helper()
	if _, err := exec.LookPath(command); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing", command)
	}
	t.Skipf("SKIPPED: this test needs %s", command)
}

// collector returns the collector of a server that has just started.
func collector(t *testing.T) prometheus.Collector {
	t.Helper()
	dir := t.TempDir()
	binary, socket := filepath.Join(dir, "scache"), filepath.Join(dir, "socket")
	if err := postfixtest.Build(binary, "scache/cmd/scache"); err != nil {
		t.Fatal(err)
	}
	server := postfixtest.Command(binary, "--listen", socket,
		"-o", "connection_cache_receivers={isp,192.0.2.1,connections=1}")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	find := func(c *client.Client) error { _, err := c.FindDestination("x"); return err }
	for end := time.Now().Add(30 * time.Second); client.Ask(socket, time.Second, find) != nil; {
		if time.Now().After(end) {
			t.Fatal("the server does not answer")
		}
		time.Sleep(10 * time.Millisecond)
	}
	installed := func() string { return "1.0" }
	return &metrics.Collector{Hits: true, Sources: func() []metrics.Source {
		return []metrics.Source{{Instance: "test", Socket: socket, Installed: installed}}
	}}
}

var metricName = regexp.MustCompile(`scache_\w+`)

// TestDashboardAndRules_nameMetricsThatExist looks up each metric that they name.
func TestDashboardAndRules_nameMetricsThatExist(t *testing.T) {
	t.Parallel()
	c := collector(t)
	problems, err := testutil.CollectAndLint(c)
	if len(problems) > 0 || err != nil {
		t.Errorf("%v, %v", problems, err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, f := range families {
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			known[f.GetName()+suffix] = true
		}
	}
	for _, file := range []string{"prometheus/dashboard.json", "prometheus/rules.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(text) {
			t.Errorf("%s is not JSON", file)
		}
		names := metricName.FindAllString(string(text), -1)
		if len(names) < 8 {
			t.Errorf("%s names only %d metrics", file, len(names))
		}
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s: there is no %s", file, name)
			}
		}
	}
}

func TestRules_promtool(t *testing.T) {
	t.Parallel()
	need(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", "rules.yml"},
		{"test", "rules", "rules_test.yml"},
	} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

var exposure = regexp.MustCompile(`Overall exposure level for .*: (\d+\.\d+)`)

// TestUnits_hardened asks systemd for the exposure of the services. It reads the drop-in that
// both share.
func TestUnits_hardened(t *testing.T) {
	t.Parallel()
	need(t, "systemd-analyze")
	units, err := filepath.Glob("systemd/*.service")
	if len(units) != 2 || err != nil {
		t.Fatal(units, err)
	}
	for _, unit := range units {
		if !strings.Contains(readFile(t, unit), "\nNoNewPrivileges=yes\n") {
			t.Errorf("%s: no NoNewPrivileges=yes", unit)
		}
		analyze := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", unit)
		out, err := analyze.Output()
		if err != nil {
			t.Fatal(err)
		}
		m := exposure.FindSubmatch(out)
		if m == nil {
			t.Fatalf("%s", out)
		}
		if level, err := strconv.ParseFloat(string(m[1]), 64); level > 2.5 || err != nil {
			t.Errorf("%s: got %s, want 2.5 or less", unit, m[0])
		}
	}
}
