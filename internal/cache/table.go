// SPDX-License-Identifier: EPL-2.0

package cache

// A table holds values by label, and each also in a numbered slot. A value stays in
// its slot, so that a listing can continue at a slot after the cache has changed. It
// then visits each value that has stayed exactly once.
type table[T any] struct {
	byLabel map[string]*T
	slots   []*T // nil where a slot is free
	free    []int
}

// largeTable is the size from which a table or map is replaced by a new one when it is
// empty: a map does not shrink.
const largeTable = 1024

func newTable[T any]() table[T] { return table[T]{byLabel: map[string]*T{}} }

// add adds a value and returns its slot.
func (t *table[T]) add(label string, x *T) (slot int) {
	t.byLabel[label] = x
	if n := len(t.free); n > 0 {
		slot = t.free[n-1]
		t.free = t.free[:n-1]
		t.slots[slot] = x
		return slot
	}
	t.slots = append(t.slots, x)
	return len(t.slots) - 1
}

func (t *table[T]) remove(label string, slot int) {
	delete(t.byLabel, label)
	if len(t.byLabel) == 0 && len(t.slots) > largeTable {
		*t = newTable[T]()
		return
	}
	t.slots[slot] = nil
	t.free = append(t.free, slot)
}
