// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// A goal is something that the benchmark is to show.
type goal struct {
	text    string
	atLeast bool // or at most
	want    float64
	value   func(*report) (float64, bool)
}

func operations(m measurement) float64 { return m.OperationsPerSecond }

// compare returns the goal's value for two rows, if both were measured.
func compare(scenario, a, b string, value func(measurement) float64) func(*report) (float64, bool) {
	return compareScenarios(scenario, a, scenario, b, value)
}

func compareScenarios(scenarioA, a, scenarioB, b string, value func(measurement) float64) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		rowA, rowB := r.row(scenarioA, a), r.row(scenarioB, b)
		if rowA == nil || rowB == nil {
			return 0, false
		}
		return ratio(*rowA, *rowB, value), true
	}
}

func (r *report) row(scenario, candidate string) *row {
	for i := range r.Rows {
		if r.Rows[i].Scenario == scenario && r.Rows[i].Candidate == candidate {
			return &r.Rows[i]
		}
	}
	return nil
}

// worstByFloor is the least ratio to the floor of all scenarios.
func worstByFloor(r *report) (worst float64, measured bool) {
	worst = math.Inf(1)
	for _, row := range r.Rows {
		if floor := r.row(row.Scenario, "floor"); row.Candidate == "ours" && floor != nil {
			worst, measured = min(worst, ratio(row, *floor, operations)), true
		}
	}
	return worst, measured
}

const (
	filled = "pair, 8 clients, 18000 cached"
	idle   = "pair, 64 clients, 2000 idle"
)

var goals = []goal{
	{"pair, 1 client: ops, by stock", true, 1.7, compare("pair, 1 client", "ours", "stock", operations)},
	{"pair, 8 clients: ops, by stock", true, 4, compare("pair, 8 clients", "ours", "stock", operations)},
	{"pair, 64 clients: ops, by stock", true, 4.5, compare("pair, 64 clients", "ours", "stock", operations)},
	{"pair, 64 clients: p99, by stock", false, 1, compare("pair, 64 clients", "ours", "stock", func(m measurement) float64 { return m.P99 })},
	{"pair, 64 clients: CPU per op, by stock", false, 0.4, compare("pair, 64 clients", "ours", "stock", func(m measurement) float64 { return m.CPU })},
	{"pair, 8 clients, 10000 cached: ops, by stock", true, 10, compare("pair, 8 clients, 10000 cached", "ours", "stock", operations)},
	{"pair, 8 clients, 10000 cached: ops, by our empty cache", true, 0.93, compareScenarios("pair, 8 clients, 10000 cached", "ours", "pair, 8 clients", "ours", operations)},
	{"delivery, 64 clients, with expiry: ops, by stock", true, 4, compare("delivery, 64 clients", "ours", "stock", operations)},
	{"any scenario: ops, by the floor", true, 0.87, worstByFloor},
	{"2000 idle, 64 active: ops, by 64 alone", true, 0.9, compareScenarios(idle, "ours", "pair, 64 clients", "ours", operations)},
	{"memory per idle client, KB", false, 12, func(r *report) (float64, bool) {
		row := r.row(idle, "ours")
		if row == nil {
			return 0, false
		}
		return float64(row.IdleRSS-row.EmptyRSS) / float64(row.Idle), true
	}},
	{"resident memory, empty, MB", false, 10, func(r *report) (float64, bool) {
		row := r.row(filled, "ours")
		if row == nil {
			return 0, false
		}
		return float64(row.EmptyRSS) / 1024, true
	}},
	{"resident memory, 18000 cached, by stock", false, 1, func(r *report) (float64, bool) {
		ours, stock := r.row(filled, "ours"), r.row(filled, "stock")
		if ours == nil || stock == nil {
			return 0, false
		}
		return float64(ours.FilledRSS) / float64(stock.FilledRSS), true
	}},
	{"start-up to first answer, ms", false, 15, func(r *report) (float64, bool) {
		return median(r.StartUp["ours"]), true
	}},
}

// printGoals prints which goals are met.
func (r *report) printGoals(w io.Writer) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "goal\twanted\tmeasured\t")
	for _, g := range goals {
		value, measured := g.value(r)
		if !measured {
			continue
		}
		sign, met := "≤", value <= g.want
		if g.atLeast {
			sign, met = "≥", value >= g.want
		}
		verdict := "met"
		if !met {
			verdict = "NOT MET"
		}
		fmt.Fprintf(t, "%s\t%s %g\t%.2f\t%s\n", g.text, sign, g.want, value, verdict)
	}
	t.Flush()
}
