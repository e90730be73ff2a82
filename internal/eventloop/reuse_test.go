// SPDX-License-Identifier: EPL-2.0

package eventloop

// Descriptors that are removed: their events, their numbers, and the ends of their waits.

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLoop_eventIsNotForTheNextOwner has a handler remove another one that is ready in the
// same turn, and add a silent descriptor of the same number.
func TestLoop_eventIsNotForTheNextOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	silent, remote := w.pair(func(*handler) {})
	defer unix.Close(remote)
	served := 0
	next := &handler{ready: func() {
		t.Error("the event of a removed descriptor went to the next owner")
	}}
	var pair [2]*handler
	ready := func(h *handler) {
		served++
		h.read()
		victim := pair[0]
		if h == victim {
			victim = pair[1]
		}
		if next.fd != 0 {
			return
		}
		victim.Remove()
		if err := unix.Dup3(silent.fd, victim.fd, unix.O_CLOEXEC); err != nil {
			t.Error(err)
		}
		next.fd = victim.fd
		if err := w.Add(&next.Watch, next.fd, next); err != nil {
			t.Error(err)
		}
	}
	var others []int
	for i := range pair {
		h, other := w.pair(ready)
		pair[i], others = h, append(others, other)
		defer unix.Close(other)
	}
	w.do(func() {
		for _, fd := range others {
			unix.Write(fd, []byte("x"))
		}
	})
	w.do(func() {})
	w.do(func() {
		if served != 1 || next.fd == 0 {
			t.Errorf("got %d handlers called, want the first one only", served)
		}
		for _, h := range []*handler{pair[0], pair[1], silent} {
			unix.Close(h.fd)
		}
	})
}

// TestRemove_loopSleeps has another process hold a copy of a removed descriptor, which stays
// ready: the loop must not be woken by it again and again.
func TestRemove_loopSleeps(t *testing.T) {
	t.Parallel()
	w, seen := newObservedWorld(t)
	h, other := w.pair(func(*handler) {})
	defer unix.Close(other)
	copied, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	w.do(func() {
		h.Remove()
		unix.Close(h.fd)
	})
	unix.Write(other, []byte("x"))
	w.do(func() {})
	const limit = 1000
	before := seen.Load()
	for start := time.Now(); time.Since(start) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
		if looks := seen.Load() - before; looks > limit {
			t.Fatalf("got a loop that has come round %d times with nothing to do", looks)
		}
	}
}

// TestRemaining_isNotZeroWhenOver keeps a wait that is over apart from one without a limit.
func TestRemaining_isNotZeroWhenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	h, other := w.pair(func(*handler) {})
	defer unix.Close(other)
	defer unix.Close(h.fd)
	h.timedOut = func() {}
	w.do(func() {
		for _, d := range []time.Duration{0, -time.Second} {
			h.SetTimeout(d)
			if got := h.Remaining(); got <= 0 || got > time.Millisecond {
				t.Errorf("timeout %v: got %v left, want next to nothing", d, got)
			}
		}
	})
}
