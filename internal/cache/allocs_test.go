// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"testing"
	"time"
)

// TestRequests_allocateLittle counts allocations: a save allocates the two strings that
// it stores, and a lookup nothing.
func TestRequests_allocateLittle(t *testing.T) {
	w := newWorld(0)
	label, unknown := []byte("smtp\nendpoint\n"), []byte("unknown")
	property := []byte("a property that is not so short\n")
	save := func() { w.SaveSession(time.Minute, label, property, 1) }
	find := func() { w.FindEndpoint(label) }
	save()
	find()
	bind := func() { w.SaveBinding(time.Hour, []byte("d"), property, label) }
	bind()
	for _, test := range []struct {
		name string
		do   func()
		want float64
	}{
		{"two misses", func() { w.FindEndpoint(unknown); w.FindDestination(unknown) }, 0},
		{"save and find", func() { save(); find() }, 1},
		{"save and find by destination", func() { save(); w.FindDestination([]byte("d")) }, 1},
		{"save a known binding", bind, 0},
	} {
		if got := testing.AllocsPerRun(100, test.do); got > test.want {
			t.Errorf("%s: got %v allocations, want %v", test.name, got, test.want)
		}
	}
	w.Flush([]string{"d"})
	if got := testing.AllocsPerRun(100, func() { save(); find() }); got > 2 {
		t.Errorf("save and find without a binding: got %v allocations, want 2", got)
	}
}
