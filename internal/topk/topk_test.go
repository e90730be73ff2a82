// SPDX-License-Identifier: EPL-2.0

package topk

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func newTable(size int) *Table { return New(size, func() time.Duration { return 0 }) }

// check reports an error if the groups are not in order, or do not hold each entry once.
func (t *Table) check() error {
	n, last := 0, int64(0)
	var prev *group
	for g := t.fewest; g != nil; prev, g = g, g.next {
		if g.events <= last || g.first == nil || g.prev != prev {
			return fmt.Errorf("a group of %d events behind one of %d", g.events, last)
		}
		last = g.events
		for e := g.first; e != nil; e = e.next {
			n++
			if e.group != g || e.Sum()+e.Error != g.events || t.entries[e.Label] != e {
				return fmt.Errorf("%q has %d events, and an error of %d, in a group of %d",
					e.Label, e.Sum(), e.Error, g.events)
			}
		}
	}
	if n != len(t.entries) || n > t.size {
		return fmt.Errorf("%d entries in groups, %d in all", n, len(t.entries))
	}
	return nil
}

// TestCount_bounds compares the counts of random events with exact ones.
func TestCount_bounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		size := rapid.IntRange(1, 8).Draw(r, "size")
		table, exact, all := newTable(size), map[string]int64{}, int64(0)
		for range rapid.IntRange(0, 200).Draw(r, "events") {
			label := rapid.StringMatching("[a-p]").Draw(r, "label")
			table.CountString(label, Event(rapid.IntRange(0, int(events)-1).Draw(r, "event")))
			exact[label]++
			all++
			if err := table.check(); err != nil {
				r.Fatal(err)
			}
		}
		counted := map[string]bool{}
		for _, e := range table.Entries() {
			counted[e.Label] = true
			if n := exact[e.Label]; n < e.Sum() || n > e.Sum()+e.Error || e.Error > all/int64(size) {
				r.Errorf("%q: %d events, counted %d, error %d of %d in all", e.Label, n, e.Sum(), e.Error, all)
			}
		}
		for label, n := range exact {
			if n > all/int64(size) && !counted[label] {
				r.Errorf("%q has %d of %d events, and is not counted", label, n, all)
			}
		}
	})
}

func TestCount_byEvent(t *testing.T) {
	t.Parallel()
	table := newTable(2)
	for e := range events {
		for range e + 1 {
			table.CountString("a", e)
		}
	}
	got := table.Entries()
	want := Counts{1, 2, 3, 4, 5, 6, 7}
	if len(got) != 1 || got[0].Counts != want || got[0].Sum() != 28 || got[0].Error != 0 {
		t.Errorf("got %+v, want %v", got, want)
	}
}

// TestRestore continues the counts in another table, which has counted some events already.
func TestRestore(t *testing.T) {
	t.Parallel()
	old, table := newTable(10), New(10, func() time.Duration { return time.Minute })
	for i := range 10 {
		for range i + 1 {
			old.CountString(fmt.Sprint(i), Hit)
		}
	}
	old.CountString("new", Miss) // with an error of 1
	table.CountString("9", Miss)
	for _, e := range old.Entries() {
		table.Restore(e)
		if err := table.check(); err != nil {
			t.Fatal(err)
		}
	}
	table.Restore(Entry{Label: "nothing"})
	for _, e := range table.Entries() {
		switch {
		case e.Label == "9" && (e.Counts != Counts{Hit: 10, Miss: 1} || e.Since != 0),
			e.Label == "new" && (e.Counts != Counts{Miss: 1} || e.Error != 1),
			e.Label == "nothing":
			t.Errorf("%+v", e)
		}
	}
	if len(table.Entries()) != 10 {
		t.Errorf("%d entries", len(table.Entries()))
	}
}

func TestCount_doesNotAllocate(t *testing.T) {
	table := newTable(1000)
	labels := make([][]byte, 900)
	for i := range labels {
		labels[i] = fmt.Appendf(nil, "smtp\n192.0.2.%d\n25\n", i)
		table.Count(labels[i], Hit)
	}
	if n := testing.AllocsPerRun(1000, func() {
		table.Count(labels[rand.IntN(len(labels))],
			Miss)
	}); n > 0.1 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCount(b *testing.B) {
	table := newTable(1000)
	labels := make([][]byte, 900)
	for i := range labels {
		labels[i] = fmt.Appendf(nil, "smtp\n192.0.2.%d\n25\n", i)
	}
	for i := 0; b.Loop(); i++ {
		table.Count(labels[i%len(labels)], Hit)
	}
}

// TestRestore_refusesWhatCannotBe and leaves the table as it was.
func TestRestore_refusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	for _, wrong := range []Entry{
		{Counts: Counts{Hit: -1}}, {Counts: Counts{Hit: 3, Miss: -1}},
		{Counts: Counts{Evicted: math.MinInt64}},
		{Counts: Counts{Hit: most + 1}}, {Counts: Counts{Hit: math.MaxInt64, Miss: math.MaxInt64}},
		{Counts: Counts{Hit: 1}, Error: -2}, {Counts: Counts{Hit: 1}, Error: math.MaxInt64},
	} {
		table := newTable(10)
		table.CountString("a", Hit)
		for _, label := range []string{"a", "b"} {
			wrong.Label = label
			table.Restore(wrong)
			if wrong.Check() == nil {
				t.Errorf("Check of %+v: got no error", wrong)
			}
		}
		got := table.Entries()
		if len(got) != 1 || got[0].Counts != (Counts{Hit: 1}) || got[0].Error != 0 {
			t.Errorf("%+v: got %+v, want one hit of a", wrong, got)
		}
		if err := table.check(); err != nil {
			t.Error(err)
		}
	}
}

func TestCount_longLabelsAreCutOff(t *testing.T) {
	t.Parallel()
	table := newTable(10)
	for range 2 {
		table.CountString(strings.Repeat("x", 60_000), Hit)
	}
	table.Restore(Entry{Label: strings.Repeat("x", 60_000), Counts: Counts{Hit: 1}})
	all := table.Entries()
	if len(all) != 1 || len(all[0].Label) != maxLabel || all[0].Counts[Hit] != 3 {
		t.Errorf("got %+v, want 3 hits of a label of %d bytes", all, maxLabel)
	}
}
