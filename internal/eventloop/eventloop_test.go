// SPDX-License-Identifier: EPL-2.0

// Survivors of "make mutants PKG=internal/eventloop" that are equal in behaviour: numbers of
// watches that fall instead of rise, and a timer that is started anew for the same moment.

package eventloop

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A world is a loop that runs, with the clock of the kernel.
type world struct {
	*Loop
	t     testing.TB
	ended chan error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	start := time.Now()
	l, err := New(func() time.Duration { return time.Since(start) })
	if err != nil {
		t.Fatal(err)
	}
	w := &world{l, t, make(chan error, 1)}
	go func() { w.ended <- l.Run() }()
	t.Cleanup(func() {
		if w.Post(w.Stop) {
			if err := <-w.ended; err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

// do has a function called by the loop, and waits until that is done.
func (w *world) do(f func()) {
	w.t.Helper()
	done := make(chan struct{})
	if !w.Post(func() { defer close(done); f() }) {
		w.t.Fatal("the loop does not run")
	}
	<-done
}

// A handler is one whose methods can be left out.
type handler struct {
	Watch
	fd              int
	ready, timedOut func()
}

func (h *handler) Ready()    { h.ready() }
func (h *handler) TimedOut() { h.timedOut() }

// pair adds one end of a new connection to the loop, and returns both.
func (w *world) pair(ready func(*handler)) (h *handler, other int) {
	w.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	h = &handler{fd: fds[0]}
	h.ready = func() { ready(h) }
	w.do(func() {
		if err := w.Add(&h.Watch, h.fd, h); err != nil {
			w.t.Error(err)
		}
	})
	return h, fds[1]
}

// read reads once, and reports whether there was something.
func (h *handler) read() bool {
	n, err := unix.Read(h.fd, make([]byte, 1))
	return n > 0 && err == nil
}

func TestLoop_servesManyDescriptors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n, rounds = 3 * turnSize, 20
	served := make([]int, n)
	var total atomic.Int32
	all := make(chan struct{})
	var others []int
	for i := range n {
		h, other := w.pair(func(h *handler) {
			if h.read() {
				served[i]++
				if total.Add(1) == n*rounds {
					close(all)
				}
			}
		})
		defer unix.Close(h.fd)
		others = append(others, other)
	}
	for range rounds {
		for _, fd := range others {
			unix.Write(fd, []byte("x"))
		}
	}
	<-all
	w.do(func() {
		for i, times := range served {
			if times != rounds {
				t.Errorf("descriptor %d was served %d times", i, times)
			}
		}
	})
	for _, fd := range others {
		unix.Close(fd)
	}
}

// TestLoop_servesEachOncePerTurn has one descriptor with a lot to read and others
// with a little: none waits for the second byte of the first.
func TestLoop_servesEachOncePerTurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var order []int
	done := make(chan struct{})
	var others []int
	for i := range 3 {
		_, other := w.pair(func(h *handler) {
			if !h.read() {
				return
			}
			order = append(order, i)
			if len(order) == 12 {
				close(done)
			}
		})
		others = append(others, other)
	}
	w.do(func() { // all is there before the next turn
		for i, fd := range others {
			unix.Write(fd, make([]byte, []int{10, 1, 1}[i]))
		}
	})
	<-done
	first := slices.Sorted(slices.Values(order[:3]))
	if !slices.Equal(first, []int{0, 1, 2}) {
		t.Errorf("served in the order %v", order)
	}
}

// TestRemove_byAnotherHandler that is ready in the same turn, and close its
// descriptor, whose number is used again at once.
func TestRemove_byAnotherHandler(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var handlers []*handler
	served := 0
	both := func(h *handler) {
		served++
		for _, other := range handlers {
			other.Remove()
			unix.Close(other.fd)
		}
		for range handlers { // takes the same numbers
			unix.Dup(0)
		}
	}
	var others []int
	for range 2 {
		h, other := w.pair(both)
		handlers, others = append(handlers, h), append(others, other)
	}
	w.do(func() {
		for _, fd := range others {
			unix.Write(fd, []byte("x"))
		}
	})
	w.do(func() {})
	w.do(func() {
		if served != 1 {
			t.Errorf("%d handlers were called", served)
		}
		left := 0
		for _, watch := range w.watches {
			if watch != nil {
				left++
			}
		}
		if left != 1 { // that of Post
			t.Errorf("%d watches are left", left)
		}
	})
}

// TestRemove_silencesADescriptor although a copy of it is open elsewhere.
func TestRemove_silencesADescriptor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	calls := 0
	h, other := w.pair(func(h *handler) { calls++; h.read() })
	copied, err := unix.Dup(h.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	w.do(func() {
		h.SetTimeout(0)
		h.Remove()
		unix.Close(h.fd)
	})
	unix.Write(other, []byte("x"))
	time.Sleep(2 * precision)
	w.do(func() {})
	w.do(func() {
		if calls != 0 {
			t.Errorf("called %d times", calls)
		}
	})
}

func TestLoop_waitsToWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	writable := make(chan bool, 1)
	var h *handler
	h, other := w.pair(func(*handler) {
		if h.writes {
			writable <- true
			h.WaitToWrite(false)
		}
		h.read()
	})
	w.do(func() {
		for err := error(nil); err == nil; {
			_, err = unix.Write(h.fd, make([]byte, 4096))
		}
		if err := errors.Join(h.WaitToWrite(true), h.WaitToWrite(true)); err != nil {
			t.Error(err)
		}
	})
	unix.Write(other, []byte("x")) // is not what it waits for
	select {
	case <-writable:
		t.Error("a full socket can be written")
	case <-time.After(20 * time.Millisecond):
	}
	for buf := make([]byte, 1<<16); ; {
		if n, err := unix.Read(other, buf); n <= 0 || err != nil {
			break
		}
	}
	<-writable
}

func TestSetTimeout_clearsAndFires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ended := make(chan time.Time, 2)
	h, _ := w.pair(func(*handler) {})
	h.timedOut = func() { ended <- time.Now() }
	start := time.Now()
	w.do(func() {
		if h.Remaining() != 0 {
			t.Error("there is no limit yet")
		}
		h.SetTimeout(time.Hour)
		h.SetTimeout(50 * time.Millisecond)
		if left := h.Remaining(); left <= 0 || left > 50*time.Millisecond {
			t.Errorf("%v are left", left)
		}
	})
	if waited := (<-ended).Sub(start); waited < 50*time.Millisecond {
		t.Errorf("ended after %v", waited)
	}
	w.do(func() {
		h.SetTimeout(20 * time.Millisecond)
		h.ClearTimeout()
	})
	select {
	case <-ended:
		t.Error("a limit that was taken back has ended")
	case <-time.After(100 * time.Millisecond):
	}
	start = time.Now()
	w.do(func() {
		h.SetTimeout(20 * time.Millisecond)
		h.ClearTimeout()
		h.SetTimeout(40 * time.Millisecond)
		h.SetTimeout(80 * time.Millisecond)
	})
	if waited := (<-ended).Sub(start); waited < 80*time.Millisecond {
		t.Errorf("a limit that was prolonged ended after %v", waited)
	}
	w.do(func() {
		if h.Remaining() != 0 {
			t.Errorf("%v are left of a limit that has ended", h.Remaining())
		}
	})
}

func TestPost_keepsTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var got []int
	for i := range 1000 {
		w.Post(func() {
			got = append(got, i)
			if i%100 == 0 {
				w.Post(func() { got = append(got, i+1000) }) // from the loop itself
			}
		})
	}
	w.do(func() {})
	w.do(func() {
		small := slices.DeleteFunc(slices.Clone(got), func(i int) bool { return i >= 1000 })
		if len(got) != 1010 || !slices.IsSorted(small) {
			t.Errorf("%d calls: %v", len(got), got)
		}
	})
}

func TestStop_endsTheLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pair(func(*handler) {})
	late := make(chan bool, 1)
	w.Post(func() {
		w.Stop()
		w.Post(func() { late <- true }) // it was promised
	})
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
	<-late
	if w.Post(func() {}) {
		t.Error("a function will be called, says a loop that has ended")
	}
}

// TestLoop_sleeps has nothing to do until a time is over: it sleeps until then, and turns a
// few times at most.
func TestLoop_sleeps(t *testing.T) {
	t.Parallel()
	l := newStill(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	over := false
	h := &handler{fd: fds[0], timedOut: func() { over = true }}
	if err := l.Add(&h.Watch, h.fd, h); err != nil {
		t.Fatal(err)
	}
	h.SetTimeout(50 * time.Millisecond)
	turns := 0
	for ; !over; turns++ {
		l.turn()
	}
	if turns > 5 {
		t.Errorf("got %d turns with nothing to do, want at most 5", turns)
	}
}

// TestLoop_pollsForOneClient has one descriptor alone, and then two that take turns.
func TestLoop_pollsForOneClient(t *testing.T) {
	t.Parallel()
	l := newStill(t)
	one, two := l.add(t), l.add(t)
	for i, turn := range []struct {
		ready []int
		spins bool
	}{
		{[]int{one}, false}, {[]int{one}, true}, {[]int{one}, true},
		{[]int{two}, false}, {[]int{one}, false},
		{[]int{one, two}, false}, {[]int{two}, false}, {[]int{two}, true},
	} {
		for _, fd := range turn.ready {
			unix.Write(fd, []byte("x"))
		}
		l.turn()
		if spins := l.spinEnd > l.now; spins != turn.spins {
			t.Errorf("turn %d: it looks again: %v", i, spins)
		}
	}
}

// A still loop turns when the test says so.
type still struct{ *Loop }

func newStill(t *testing.T) still {
	start := time.Now()
	l, err := New(func() time.Duration { return time.Since(start) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return still{l}
}

// add adds a descriptor, and returns the other end. What is written there is read, and
// that has a limit.
func (l still) add(t *testing.T) (other int) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	h, buf := &handler{fd: fds[0]}, make([]byte, 1)
	h.ready = func() {
		unix.Read(h.fd, buf)
		h.SetTimeout(time.Second)
	}
	if err := l.Add(&h.Watch, h.fd, h); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return fds[1]
}

func TestLoop_allocatesNothing(t *testing.T) {
	l := newStill(t)
	other, out := l.add(t), []byte("x")
	if n := testing.AllocsPerRun(100, func() {
		unix.Write(other, out)
		l.turn()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAdd_fails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do(func() {
		h := &handler{}
		if err := w.Add(&h.Watch, -1, h); !errors.Is(err, unix.EBADF) {
			t.Error(err)
		}
	})
}
