// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"testing"
	"time"
)

// TestAllocations counts what a request allocates: a save the two strings that
// it stores, and a lookup nothing.
func TestAllocations(t *testing.T) {
	w := newWorld(0)
	label, property, unknown := []byte("smtp\nendpoint\n"), []byte("a property that is not so short\n"), []byte("unknown")
	save := func() { w.SaveSession(time.Minute, label, property, 1) }
	find := func() { w.FindEndpoint(label) }
	save()
	find()
	if n := testing.AllocsPerRun(100, func() { w.FindEndpoint(unknown); w.FindDestination(unknown) }); n != 0 {
		t.Errorf("a miss allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { save(); find() }); n > 2 {
		t.Errorf("a save and a find allocate %v times", n)
	}
	w.SaveBinding(time.Hour, []byte("d"), property, label)
	if n := testing.AllocsPerRun(100, func() { w.SaveBinding(time.Hour, []byte("d"), property, label) }); n != 0 {
		t.Errorf("saving a known binding allocates %v times", n)
	}
}
