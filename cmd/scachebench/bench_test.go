// SPDX-License-Identifier: EPL-2.0

package main

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"scache/internal/postfixtest"
)

// TestBench_run measures all servers for a moment, and reads the files.
func TestBench_run(t *testing.T) {
	postfixtest.NeedPostfix(t)
	dir := t.TempDir()
	for _, name := range []string{"scache", "scachebench"} {
		if err := postfixtest.Build(filepath.Join(dir, name), "scache/cmd/"+name); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"stock", "ours", "floor"}
	for only, servers := range map[string][]string{
		"pair, 1 client":             all,
		"delivery, 1 client":         all,
		"miss, 1 client":             append(all, "old"),
		"pair with limits, 1 client": {"ours", "ours, limits", "old"},
		"1000 waiting":               {"ours, limits"},
	} {
		jsonFile, csvFile := filepath.Join(dir, "json"), filepath.Join(dir, "csv")
		args := []string{"--scache", filepath.Join(dir, "scache"), "--rounds", "2", "--seconds", "0.3",
			"--only", only, "--json", jsonFile, "--csv", csvFile}
		if slices.Contains(servers, "old") {
			args = append(args, "--other", "old="+filepath.Join(dir, "scache"))
		}
		args = append(args, "run")
		out, err := exec.Command(filepath.Join(dir, "scachebench"), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		checkReport(t, jsonFile, servers)
		checkCSV(t, csvFile, 1+len(servers))
	}
}

func checkReport(t *testing.T, file string, servers []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if got := r.servers(); !slices.Equal(got, servers) {
		t.Errorf("got servers %q, want %q", got, servers)
	}
	for _, row := range r.Rows {
		m := row.Median
		if len(row.Rounds) != 2 || m.OperationsPerSecond <= 0 || m.P50 <= 0 || m.P999 < m.P50 ||
			m.CPU <= 0 || row.EmptyRSS <= 0 {
			t.Errorf("got %+v, want two rounds with values", row)
		}
	}
}

func checkCSV(t *testing.T, file string, want int) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil || len(lines) != want {
		t.Errorf("got %d lines of CSV, %v, want %d", len(lines), err, want)
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v): got %v, want %v", c.values, got, c.want)
		}
	}
}

// TestGoals_value checks from which values each goal is computed.
func TestGoals_value(t *testing.T) {
	t.Parallel()
	for _, g := range goals {
		if g.want <= 0 || g.text == "" {
			t.Errorf("got %+v, want a text and a value", g)
		}
	}
	fast := measurement{OperationsPerSecond: 2000, P99: 10, CPU: 1, Least: 0.9}
	slow := measurement{OperationsPerSecond: 100, P99: 40, CPU: 10}
	r := &report{
		StartUp: map[string][]float64{"ours": {7, 8, 9}},
		Outages: []outage{
			{"stock", 1000, []float64{99}}, {"ours", 1000, []float64{5}}, {"ours", 17_000, []float64{6}},
		},
	}
	for _, s := range scenarios() {
		for name, m := range map[string]measurement{
			"stock": slow, "ours": fast, "floor": fast, limitsServer: fast,
		} {
			r.Rows = append(r.Rows, row{
				Scenario: s.name, Server: name, Idle: s.Idle, Rounds: []measurement{m}, Median: m,
				EmptyRSS: 4096, FilledRSS: 8192, IdleRSS: 4096 + 2*s.Idle, SystemCalls: 2,
			})
		}
	}
	want := []float64{20, 1, 20, 1, 20, 1, 0.25, 1, 1, 20, 1, 1, 0.9, 1, 1, 20, 1, 1, 1, 1, 1,
		2, 2, 2, 4, 5, 6, 8}
	for i, g := range goals {
		if got, measured := g.value(r); !measured || math.Abs(got-want[i]) > 1e-9 {
			t.Errorf("%s: got %v, want %v", g.text, got, want[i])
		}
	}
	if err := r.check(io.Discard); err != nil {
		t.Error(err)
	}
	r.StartUp["ours"] = []float64{11}
	if err := r.check(io.Discard); err == nil {
		t.Error("a goal is missed: got no error")
	}
	r.Rows = nil
	if err := r.check(io.Discard); err == nil {
		t.Error("nothing was measured: got no error")
	}
}

func TestTotalCalls(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "summary")
	const head = "% time     seconds  usecs/call     calls    errors syscall\n"
	for _, text := range []string{
		head + "100.00    0.002520           3       710        33 total\n",
		"100.00    0.002520           3       710           total\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := totalCalls(file); got != 710 || err != nil {
			t.Errorf("got %d, %v, want 710", got, err)
		}
	}
	os.WriteFile(file, nil, 0o644)
	if _, err := totalCalls(file); err == nil {
		t.Error("an empty summary: got no error")
	}
}
