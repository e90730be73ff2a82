// SPDX-License-Identifier: EPL-2.0

package stats

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"scache/internal/histogram"
)

// TestNumbers_areEachFieldOnce compares the tables with the struct.
func TestNumbers_areEachFieldOnce(t *testing.T) {
	t.Parallel()
	var v Values
	names, fields := map[string]bool{}, map[any]bool{}
	for _, n := range Numbers {
		names[n.Name], fields[n.Field(&v)] = true, true
		family := n.Family()
		switch {
		case len(family.Labels) != len(n.Labels):
			t.Errorf("%s: got labels %q, want values for %q", n.Name, n.Labels, family.Labels)
		case family.Kind != n.Kind:
			t.Errorf("%s: got kind %d, want %d as its metric", n.Name, n.Kind, family.Kind)
		case n.Kind != Peak && n.Metric == "",
			strings.HasSuffix(n.Metric, "_total") != (n.Kind == Counter):
			t.Errorf("%s: metric %q does not go with kind %d", n.Name, n.Metric, n.Kind)
		case n.Place.Row == "" || n.Place.Column == "":
			t.Errorf("%s is not in the text of the status", n.Name)
		case !strings.HasSuffix(n.Help, ".") || !strings.HasSuffix(family.Help, "."):
			t.Errorf("%s: help %q is not a sentence", n.Name, n.Help)
		case len(n.Help) > 80 || len(family.Help) > 80:
			t.Errorf("%s: help %q is too long for a line of a manual page", n.Name, n.Help)
		}
	}
	for _, d := range Times {
		names[d.Name], fields[d.Field(&v)] = true, true
	}
	want := reflect.TypeFor[Values]().NumField()
	if len(names) != want || len(fields) != want || len(Numbers)+len(Times) != want {
		t.Errorf("got %d names of %d fields in %d lines, want %d",
			len(names), len(fields), len(Numbers)+len(Times), want)
	}
}

// fill returns values that are plausible and all different.
func fill() (v Values) {
	for i, n := range Numbers {
		*n.Field(&v) = int64(i + 1)
	}
	v.Saved, v.TakenOver = 1<<40, 1<<41 // more than 32 bits hold
	v.Waited.Counts[3], v.Waited.Sum = 1<<33, time.Hour
	return v
}

func TestCounts_carryAllThatIsContinued(t *testing.T) {
	t.Parallel()
	v := fill()
	state, names := map[string]int64{}, []string{}
	for name, n := range v.Continued() {
		state[name] = *n
		names = append(names, name)
	}
	times := map[string]string{}
	for name, h := range v.Times() {
		times[name] = h.String()
	}
	var got Values
	for name, n := range got.Continued() {
		*n = state[name]
	}
	for name, h := range got.Times() {
		*h, _ = histogram.Parse(times[name])
	}
	want := v
	for i := range Numbers {
		if n := &Numbers[i]; n.Kind == Gauge {
			*n.Field(&want) = 0
		}
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := got.Check(); err != nil {
		t.Errorf("Check: got %v, want none", err)
	}
	// The names are those of the format: earlier and later versions read them.
	const wire = "peak_sessions peak_endpoints peak_destinations " +
		"destination_hits destination_misses endpoint_hits endpoint_misses " +
		"saved taken_over expired dead evicted flushed evicted_bindings " +
		"connections refused lost lost_lines evicted_for_memory"
	if got := strings.Join(names, " "); got != wire {
		t.Errorf("got  %s\nwant %s", got, wire)
	}
	for range v.Continued() {
		break
	}
	for range v.Times() {
		break
	}
}

func TestAdd_countersAndPeaks(t *testing.T) {
	t.Parallel()
	v := Values{Saved: math.MaxInt32, PeakSessions: 5, PeakEndpoints: 1, Sessions: 3}
	v.Took.Sum = math.MaxInt64 - 1
	more := Values{Saved: math.MaxInt32, PeakSessions: 4, PeakEndpoints: 2, Sessions: 4}
	more.Took.Sum, more.Took.Counts[1] = time.Second, 1
	v.Add(&more)
	want := Values{Saved: 2 * math.MaxInt32, PeakSessions: 5, PeakEndpoints: 2, Sessions: 3}
	want.Took.Sum, want.Took.Counts[1] = math.MaxInt64, 1
	if v != want {
		t.Errorf("got %+v, want %+v", v, want)
	}
}

// TestCheck_refusesWhatCannotBe has one wrong number at a time.
func TestCheck_refusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	for i := range Numbers {
		n := &Numbers[i]
		for _, wrong := range []int64{-1, math.MinInt64, Most + 1, math.MaxInt64} {
			v := fill()
			*n.Field(&v) = wrong
			if err := v.Check(); (err != nil) != (n.Kind != Gauge) {
				t.Errorf("%s=%d: got %v", n.Name, wrong, err)
			}
		}
	}
	for name, change := range map[string]func(*Values){
		"more hits than sessions":     func(v *Values) { v.DestinationHits = v.Saved + v.TakenOver + 1 },
		"more closed than sessions":   func(v *Values) { v.Evicted = v.Saved + v.TakenOver },
		"a peak without sessions":     func(v *Values) { v.PeakSessions = v.Saved + v.TakenOver + 1 },
		"endpoints without sessions":  func(v *Values) { v.PeakEndpoints = v.Saved + v.TakenOver + 1 },
		"a negative number of times":  func(v *Values) { v.Waited.Counts[0] = -1 },
		"too many times":              func(v *Values) { v.Took.Counts[0], v.Took.Counts[1] = Most, 1 },
		"times that add up to less 0": func(v *Values) { v.Took.Sum = -1 },
	} {
		v := fill()
		if change(&v); v.Check() == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	all := Values{Saved: 3, DestinationHits: 1, EndpointHits: 1, Dead: 1, PeakSessions: 3}
	if err := all.Check(); err != nil {
		t.Errorf("all sessions are gone: got %v, want none", err)
	}
}

func TestRows_placeEachNumberOnce(t *testing.T) {
	t.Parallel()
	all := 0
	for _, p := range []Part{Sizes, Lookups, Events} {
		for _, row := range Rows(p) {
			seen := map[string]bool{}
			for _, n := range Columns(p, row) {
				if seen[n.Place.Column] {
					t.Errorf("%s: two numbers in the same place", n.Name)
				}
				seen[n.Place.Column] = true
				all++
			}
		}
	}
	if all != len(Numbers) {
		t.Errorf("got %d numbers in rows, want %d", all, len(Numbers))
	}
}
