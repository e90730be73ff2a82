// SPDX-License-Identifier: EPL-2.0

package eventloop

// When a loop comes round: for handlers that have more to do, in time, and not without reason.

import (
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAgain_isServedOnceInTheNextTurn has handlers that have more to do. One is silent, one is
// ready as well, one is ready and asks again when it is called, and one is removed meanwhile.
func TestAgain_isServedOnceInTheNextTurn(t *testing.T) {
	t.Parallel()
	l := newStill(t)
	calls, other := map[string]int{}, map[string]int{}
	handlers := map[string]*handler{}
	for _, name := range []string{"silent", "ready", "greedy", "removed"} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		h := &handler{fd: fds[0]}
		h.ready = func() {
			if calls[name]++; name == "greedy" {
				h.Again()
			}
		}
		if err := l.Add(&h.Watch, h.fd, h); err != nil {
			t.Fatal(err)
		}
		handlers[name], other[name] = h, fds[1]
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
	}
	for round := 1; round <= 3; round++ {
		for _, name := range []string{"silent", "ready"} {
			handlers[name].Again()
			handlers[name].Again() // twice is as good as once
		}
		if round == 1 {
			handlers["removed"].Again()
			handlers["removed"].Remove()
			unix.Write(other["ready"], []byte("x")) // is not read: it stays ready
			unix.Write(other["greedy"], []byte("x"))
		}
		if err := l.turn(); err != nil {
			t.Fatal(err)
		}
		if calls["silent"] != round || calls["ready"] != round || calls["greedy"] != round ||
			calls["removed"] != 0 {
			t.Fatalf("turn %d: got %v, want one call in each turn of those that are there", round, calls)
		}
	}
	if err := l.turn(); err != nil || calls["silent"] != 3 || calls["ready"] != 4 {
		t.Errorf("got %v, %v, want no call of a handler that has not asked for it", calls, err)
	}
}

// TestAgain_fromReady has a handler ask in each turn, while another one is served.
func TestAgain_fromReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const rounds = 1000
	done := make(chan struct{})
	n := 0
	busy, remote := w.pair(func(h *handler) {
		if n++; n == rounds {
			close(done)
		} else if n < rounds {
			h.Again()
		}
	})
	defer unix.Close(remote)
	w.do(busy.Again)
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("got a handler that is not called again")
	}
	w.do(func() {
		if n != rounds {
			t.Errorf("got %d calls, want %d", n, rounds)
		}
		unix.Close(busy.fd)
	})
}

// TestSetTimeout_isInTimeAtAnyHour has a clock that does not begin at zero.
func TestSetTimeout_isInTimeAtAnyHour(t *testing.T) {
	t.Parallel()
	w, _ := newObservedWorld(t)
	h, remote := w.pair(func(*handler) {})
	defer unix.Close(remote)
	defer unix.Close(h.fd)
	timedOut := make(chan struct{})
	h.timedOut = func() { close(timedOut) }
	w.do(func() { h.SetTimeout(20 * time.Millisecond) })
	select {
	case <-timedOut:
	case <-time.After(20 * time.Second):
		t.Error("got a timeout of 20ms that has not ended after 20s")
	}
}

// TestRun_survivesSignals interrupts the system call in which the loop sleeps.
func TestRun_survivesSignals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 100 {
		var thread int
		w.do(func() { thread = unix.Gettid() })
		for range 5 {
			unix.Tgkill(os.Getpid(), thread, unix.SIGURG) // which the runtime sends itself, too
			time.Sleep(100 * time.Microsecond)
		}
	}
	w.do(func() {})
}

// TestRun_sleepsWithoutTimers has a loop with nothing to do, which must not even look at the
// clock.
func TestRun_sleepsWithoutTimers(t *testing.T) {
	t.Parallel()
	w, looks := newObservedWorld(t)
	w.do(func() {})
	n := int64(-1)
	for range 100 { // it may look again for some microseconds
		before := looks.Load()
		time.Sleep(20 * time.Millisecond)
		if n = looks.Load() - before; n == 0 {
			return
		}
	}
	t.Errorf("got %d looks at the clock in 20ms, want none", n)
}

// newObservedWorld returns a loop that runs, with a clock that does not begin at zero, and how
// often the loop has looked at it.
func newObservedWorld(t *testing.T) (w *world, looks *atomic.Int64) {
	t.Helper()
	start := time.Now()
	looks = new(atomic.Int64)
	l, err := New(func() time.Duration {
		looks.Add(1)
		return time.Hour + time.Since(start)
	})
	if err != nil {
		t.Fatal(err)
	}
	w = &world{Loop: l, t: t, ended: make(chan error, 1)}
	go func() { w.ended <- l.Run() }()
	t.Cleanup(func() {
		w.Post(w.Stop)
		if err := <-w.ended; err != nil {
			t.Error(err)
		}
	})
	return w, looks
}
