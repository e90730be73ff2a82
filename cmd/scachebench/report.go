// SPDX-License-Identifier: EPL-2.0

// The results of the benchmark, and how they are printed.

package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// A report has the results of one run of the benchmark.
type report struct {
	Date    string
	Machine string
	Postfix string
	Rounds  int
	Seconds float64              // of each measurement
	StartUp map[string][]float64 // milliseconds from start to first answer, sorted
	Outages []outage
	Delays  []delay
	Rows    []row
}

// A row has the results of one server in one scenario.
type row struct {
	Scenario, Server, Workload string
	Clients, Idle, Cached      int

	Rounds []measurement
	Median measurement
	Spread float64            // of operations per second: (most - least) / median
	Ratios map[string]float64 // of operations per second, by server: the median of all rounds

	SystemCalls float64 // per operation, or 0 without strace
	EmptyRSS    int     // resident memory in KB just after the start,
	FilledRSS   int     // with all cached sessions,
	IdleRSS     int     // and with all idle clients
}

// A measurement is one round of a row.
type measurement struct {
	OperationsPerSecond float64
	P50, P99, P999      float64 // latency of an operation, in microseconds
	CPU                 float64 // of the server, in microseconds per operation
	Switches            float64 // of context in the server, per operation
	Least, Most         float64 // operations of the least and most served client, by an equal share
}

func newReport(b *bench) *report {
	return &report{
		Date:    time.Now().Format(time.DateOnly),
		Machine: machine(),
		Postfix: output("postconf", "-dh", "mail_version"),
		Rounds:  b.rounds,
		Seconds: b.seconds,
		StartUp: map[string][]float64{},
	}
}

// machine describes the processors and the kernel of this machine.
func machine() string {
	model := "unknown processor"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if name, value, _ := strings.Cut(s.Text(), ":"); strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
			}
		}
	}
	var u unix.Utsname
	unix.Uname(&u)
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), model, release, runtime.Version())
}

func output(name string, args ...string) string {
	out, _ := exec.Command(name, args...).Output()
	return strings.TrimSpace(string(out))
}

func (r *row) add(s scenario, l loadResult) {
	ops := float64(l.Operations)
	r.Rounds = append(r.Rounds, measurement{
		OperationsPerSecond: ops / l.Seconds,
		P50:                 l.Latencies.P50,
		P99:                 l.Latencies.P99,
		P999:                l.Latencies.P999,
		CPU:                 l.Server.CPU * 1e6 / ops,
		Switches:            float64(l.Server.Switches) / ops,
		Least:               float64(l.Slowest*s.Clients) / ops,
		Most:                float64(l.Fastest*s.Clients) / ops,
	})
	r.IdleRSS = max(r.IdleRSS, l.IdleRSS)
}

// summarize computes the medians of all rounds.
func (r *row) summarize(all []*process) {
	of := func(value func(measurement) float64) float64 {
		var values []float64
		for _, m := range r.Rounds {
			values = append(values, value(m))
		}
		return median(values)
	}
	r.Median = measurement{
		OperationsPerSecond: of(operations),
		P50:                 of(func(m measurement) float64 { return m.P50 }),
		P99:                 of(func(m measurement) float64 { return m.P99 }),
		P999:                of(func(m measurement) float64 { return m.P999 }),
		CPU:                 of(func(m measurement) float64 { return m.CPU }),
		Switches:            of(func(m measurement) float64 { return m.Switches }),
		Least:               of(func(m measurement) float64 { return m.Least }),
		Most:                of(func(m measurement) float64 { return m.Most }),
	}
	r.Ratios = map[string]float64{}
	for _, c := range all {
		r.Ratios[c.row.Server] = ratio(*r, c.row, operations)
	}
	least, most := r.Rounds[0], r.Rounds[0]
	for _, m := range r.Rounds {
		if operations(m) < operations(least) {
			least = m
		}
		if operations(m) > operations(most) {
			most = m
		}
	}
	r.Spread = (operations(most) - operations(least)) / r.Median.OperationsPerSecond
}

// ratio compares two rows round by round: other load of the machine changes over time, and
// affects both servers of a round.
func ratio(a, b row, value func(measurement) float64) float64 {
	var ratios []float64
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		ratios = append(ratios, value(a.Rounds[i])/value(b.Rounds[i]))
	}
	return median(ratios)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func (r *report) printTable(w io.Writer) {
	fmt.Fprintf(w, "%s, %s, Postfix %s; median of %d rounds of %v s each\n\n",
		r.Date, r.Machine, r.Postfix, r.Rounds, r.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	names := r.servers()
	fmt.Fprint(t, "scenario\tserver\tops/s\tspread")
	for _, name := range names {
		fmt.Fprintf(t, "\t× %s", name)
	}
	fmt.Fprintln(t, "\tp50 µs\tp99 µs\tp99.9 µs\tCPU µs/op\tcalls/op\tswitches/op\tleast\tmost")
	for _, row := range r.Rows {
		m := row.Median
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%.0f%%",
			row.Scenario, row.Server, m.OperationsPerSecond, 100*row.Spread)
		for _, name := range names {
			if ratio, measured := row.Ratios[name]; measured {
				fmt.Fprintf(t, "\t%.2f", ratio)
			} else {
				fmt.Fprint(t, "\t")
			}
		}
		fmt.Fprintf(t, "\t%.0f\t%.0f\t%.0f\t%.1f\t%.1f\t%.2f\t%.2f\t%.2f\n",
			m.P50, m.P99, m.P999, m.CPU, row.SystemCalls, m.Switches, m.Least, m.Most)
	}
	t.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(t, "server\tstart-up ms\tRSS empty KB\tRSS filled KB\tRSS idle clients KB")
	for _, name := range r.servers() {
		var empty, filled, idle int
		for _, row := range r.Rows {
			if row.Server == name {
				empty, filled = max(empty, row.EmptyRSS), max(filled, row.FilledRSS)
				if row.Idle > 0 {
					idle = row.IdleRSS
				}
			}
		}
		fmt.Fprintf(t, "%s\t%.1f\t%d\t%d\t%d\n", name, median(r.StartUp[name]), empty, filled, idle)
	}
	t.Flush()
	if len(r.Outages) > 0 {
		r.printOutages(w)
	}
	if len(r.Delays) > 0 {
		r.printDelays(w)
	}
}

// servers returns their names, in order.
func (r *report) servers() (names []string) {
	for _, row := range r.Rows {
		if !slices.Contains(names, row.Server) {
			names = append(names, row.Server)
		}
	}
	return names
}

func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "\t")
	return e.Encode(r)
}

// writeCSV writes a line for each row. All values are medians.
func (r *report) writeCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	c.Write([]string{
		"scenario", "server", "workload", "clients", "idle", "cached",
		"ops_per_second", "spread", "ratio_to_stock", "ratio_to_floor",
		"p50_us", "p99_us", "p999_us", "cpu_us_per_op", "syscalls_per_op", "switches_per_op",
		"least", "most", "rss_empty_kb", "rss_filled_kb", "rss_idle_kb",
	})
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	for _, row := range r.Rows {
		m := row.Median
		c.Write([]string{
			row.Scenario, row.Server, row.Workload,
			strconv.Itoa(row.Clients), strconv.Itoa(row.Idle), strconv.Itoa(row.Cached),
			number(m.OperationsPerSecond), number(row.Spread),
			number(row.Ratios["stock"]), number(row.Ratios["floor"]),
			number(m.P50), number(m.P99), number(m.P999),
			number(m.CPU), number(row.SystemCalls), number(m.Switches), number(m.Least), number(m.Most),
			strconv.Itoa(row.EmptyRSS), strconv.Itoa(row.FilledRSS), strconv.Itoa(row.IdleRSS),
		})
	}
	c.Flush()
	return c.Error()
}
