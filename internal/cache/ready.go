// SPDX-License-Identifier: EPL-2.0

package cache

// A readyHeap holds bindings of one destination, the oldest one on top. Each binding
// knows its place. It implements heap.Interface.
type readyHeap []*binding

func (h readyHeap) Len() int { return len(h) }

func (h readyHeap) Less(i, j int) bool { return h[i].link.sequence < h[j].link.sequence }

func (h readyHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is for package heap.
func (h *readyHeap) Push(x any) {
	b := x.(*binding)
	b.place = len(*h)
	*h = append(*h, b)
}

// Pop is for package heap.
func (h *readyHeap) Pop() any {
	last := len(*h) - 1
	b := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	b.place = -1
	return b
}
