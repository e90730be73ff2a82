// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// A goal is a value that the benchmark should reach.
type goal struct {
	text    string
	atLeast bool // or at most
	want    float64
	value   goalValue
}

func operations(m measurement) float64 { return m.OperationsPerSecond }

// A goalValue returns the value of a goal, and whether it was measured.
type goalValue func(*report) (value float64, measured bool)

// compare divides a value of one server by that value of another one.
func compare(scenario, a, b string, value func(measurement) float64) goalValue {
	return compareScenarios(scenario, a, scenario, b, value)
}

func compareScenarios(
	scenarioA, a, scenarioB, b string, value func(measurement) float64,
) goalValue {
	return func(r *report) (float64, bool) {
		rowA, rowB := r.row(scenarioA, a), r.row(scenarioB, b)
		if rowA == nil || rowB == nil {
			return 0, false
		}
		return ratio(*rowA, *rowB, value), true
	}
}

func (r *report) row(scenario, server string) *row {
	for i := range r.Rows {
		if r.Rows[i].Scenario == scenario && r.Rows[i].Server == server {
			return &r.Rows[i]
		}
	}
	return nil
}

func p99(m measurement) float64 { return m.P99 }
func cpu(m measurement) float64 { return m.CPU }

// constant returns a value of ours.
func constant(scenario string, value func(*row) float64) goalValue {
	return func(r *report) (float64, bool) {
		row := r.row(scenario, "ours")
		if row == nil {
			return 0, false
		}
		return value(row), true
	}
}

const (
	pair1         = "pair, 1 client"
	pair8         = "pair, 8 clients"
	pair64        = "pair, 64 clients"
	pair512       = "pair, 512 clients"
	miss64        = "miss, 64 clients"
	cached        = "pair, 8 clients, 10000 cached"
	idle          = "pair, 64 clients, 2000 idle"
	limitsPair1   = "pair with limits, 1 client"
	limitsPair64  = "pair with limits, 64 clients"
	limitsMiss64  = "miss with limits, 64 clients"
	limitsWaiting = "pair with limits, 64 clients, 1000 waiting"
)

// goals are what this server is to reach: against the stock one, and against the floor, which
// makes the same system calls and does nothing else.
var goals = []goal{
	{"1 client: ops, by stock", true, 1.9, compare(pair1, "ours", "stock", operations)},
	{"1 client: ops, by floor", true, 0.85, compare(pair1, "ours", "floor", operations)},
	{"8 clients: ops, by stock", true, 3, compare(pair8, "ours", "stock", operations)},
	{"8 clients: ops, by floor", true, 0.85, compare(pair8, "ours", "floor", operations)},
	{"64 clients: ops, by stock", true, 3, compare(pair64, "ours", "stock", operations)},
	{"64 clients: ops, by floor", true, 0.85, compare(pair64, "ours", "floor", operations)},
	{"64 clients: p99, by stock", false, 0.5, compare(pair64, "ours", "stock", p99)},
	{"64 clients: p99, by floor", false, 1.3, compare(pair64, "ours", "floor", p99)},
	{"64 clients: CPU per op, by floor", false, 1.25, compare(pair64, "ours", "floor", cpu)},
	{"512 clients: ops, by stock", true, 3, compare(pair512, "ours", "stock", operations)},
	{"512 clients: ops, by floor", true, 0.8, compare(pair512, "ours", "floor", operations)},
	{"512 clients: p99, by p99 of 64", false, 10,
		compareScenarios(pair512, "ours", pair64, "ours", p99)},
	{"512 clients: the least served one, by an equal share", true, 0.1,
		constant(pair512, leastServed)},
	{"misses, 64 clients: ops, by floor", true, 0.85, compare(miss64, "ours", "floor", operations)},
	{"misses, 64 clients: p99, by floor", false, 1.3, compare(miss64, "ours", "floor", p99)},
	{"10000 cached, 8 clients: ops, by stock", true, 7, compare(cached, "ours", "stock", operations)},
	{"10000 cached, 8 clients: ops, by our empty cache", true, 0.95,
		compareScenarios(cached, "ours", pair8, "ours", operations)},
	{"limits of other receivers, 1 client: ops, by none", true, 0.95,
		compare(limitsPair1, limitsServer, oursServer, operations)},
	{"limits of other receivers, 64 clients: ops, by none", true, 0.95,
		compare(limitsPair64, limitsServer, oursServer, operations)},
	{"limits of other receivers, misses: ops, by none", true, 0.95,
		compare(limitsMiss64, limitsServer, oursServer, operations)},
	{"1000 clients wait, 64 others: p99, by none waiting", false, 1.1,
		compareScenarios(limitsWaiting, limitsServer, limitsPair64, limitsServer, p99)},
	{"memory per idle client, KB", false, 3, constant(idle, memoryPerClient)},
	{"system calls per pair", false, 13, constant(pair64, systemCalls)},
	{"system calls per miss", false, 2.5, constant(miss64, systemCalls)},
	{"resident memory, empty, MB", false, 6, constant(pair8, emptyMB)},
	// Stock takes 5 ms, and has lost everything. Of ours, 10 are the end and the start of a
	// process. The rest is for 300 clients, and for sending all sessions.
	{"reload with 1000 sessions: ms without an answer", false, 20, outageWith(1000)},
	{"reload with 17000 sessions: ms without an answer", false, 120, outageWith(17_000)},
	{"start-up to first answer, ms", false, 10, startUpTime},
}

func leastServed(r *row) float64 { return r.Median.Least }

func systemCalls(r *row) float64 { return r.SystemCalls }

func emptyMB(r *row) float64 { return float64(r.EmptyRSS) / 1024 }

func memoryPerClient(r *row) float64 { return float64(r.IdleRSS-r.EmptyRSS) / float64(r.Idle) }

func startUpTime(r *report) (float64, bool) { return median(r.StartUp["ours"]), true }

func outageWith(cached int) goalValue {
	return func(r *report) (float64, bool) {
		for _, o := range r.Outages {
			if o.Server == "ours" && o.Cached == cached {
				return median(o.Milliseconds), true
			}
		}
		return 0, false
	}
}

// check prints which goals are met, and returns an error if one is not.
func (r *report) check(w io.Writer) error {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "goal\twanted\tmeasured\t")
	missed := 0
	for _, g := range goals {
		value, measured := g.value(r)
		sign, met := "≤", value <= g.want
		if g.atLeast {
			sign, met = "≥", value >= g.want
		}
		verdict := "met"
		switch {
		case !measured:
			verdict = "not measured"
			missed++
		case !met:
			verdict = "missed"
			missed++
		}
		fmt.Fprintf(t, "%s\t%s %g\t%.2f\t%s\n", g.text, sign, g.want, value, verdict)
	}
	t.Flush()
	if missed > 0 {
		return fmt.Errorf("%d of %d goals are not met", missed, len(goals))
	}
	return nil
}
