// SPDX-License-Identifier: EPL-2.0

// Package eventloop waits for many descriptors at once, and calls the handler of
// each that is ready.
//
// A [Loop] is one goroutine with one epoll(7). It serves descriptors in turns: in
// each turn it serves every descriptor that is ready once, so that none waits for
// the second request of another one. Descriptors are level-triggered: a handler
// reads once, and is called again in the next turn if there is more to read. A wait
// may have a timeout; the loop has a timer wheel for them.
//
// All methods of a Loop and its watches are for the loop's own goroutine, that
// is, for handlers and posted functions. Only Post may be called from another one.
//
// A loop that serves only the same descriptor, turn after turn, polls for a few
// microseconds before it sleeps. The next request of a client follows the answer to
// the last one so soon that to sleep and to be woken would take longer. If several
// descriptors are served, the loop does not poll: the clients need the processor. A
// loop whose descriptors are never ready makes no system call except for its timers.
package eventloop

import (
	"math"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"scache/internal/timerwheel"
)

const (
	// turnSize bounds the descriptors that are served in one turn. The kernel
	// puts those that are still ready behind the others.
	turnSize = 128

	// spin is how long a loop that serves one descriptor polls before it sleeps.
	spin = 50 * time.Microsecond

	// precision is how late, at most, a wait ends.
	precision = 10 * time.Millisecond

	// roundUp makes a division by a millisecond round up.
	roundUp = time.Millisecond - 1
)

// A Handler deals with one descriptor.
type Handler interface {
	// Ready is called when the descriptor can be read or, where it waits to
	// write, written. At its end, and after an error, it can be both.
	Ready()

	// TimedOut is called when the time of SetTimeout is over.
	TimedOut()
}

// A Loop calls handlers.
type Loop struct {
	clock    func() time.Duration
	epoll    int
	wake     Watch    // an eventfd(2), for Post
	watches  []*Watch // by descriptor
	added    uint32
	wheel    *timerwheel.Wheel
	now      time.Duration // when this turn began
	lastOnly uint64        // the id of the watch that was ready last, if it was the only one
	spinEnd  time.Duration // until when the loop polls before it sleeps
	events   [turnSize]unix.EpollEvent
	turns    uint64   // number of turns so far
	again    []*Watch // to be called in the next turn, ready or not
	ended    bool

	mu     sync.Mutex
	posted []func()
	closed bool
}

// New returns a loop without descriptors. The clock returns the time since some
// fixed moment.
func New(clock func() time.Duration) (*Loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	eventfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &Loop{clock: clock, epoll: epoll, wheel: timerwheel.New(precision), turns: 1}
	if err := l.Add(&l.wake, eventfd, waker{l}); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// Run calls handlers until Stop. It does not lock its thread: the kernel would keep that on
// one processor, and the throughput of a single client would be halved.
func (l *Loop) Run() (err error) {
	for !l.ended && err == nil {
		err = l.turn()
	}
	l.close()
	l.runPosted()
	return err
}

// Elapsed returns the time since this turn began.
func (l *Loop) Elapsed() time.Duration { return l.clock() - l.now }

// Stop makes Run return after this turn. The descriptors stay open.
func (l *Loop) Stop() { l.ended = true }

// Post makes the loop call a function soon, in the order of the calls of Post. It
// may be called from any goroutine. It reports whether the function will be called:
// after Run has returned, it will not.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.posted = append(l.posted, f)
	if len(l.posted) == 1 {
		one := uint64(1)
		// No error: the counter of the eventfd cannot be full.
		unix.Write(l.wake.fd, unsafe.Slice((*byte)(unsafe.Pointer(&one)), 8))
	}
	return true
}

// waker is the handler of the eventfd.
type waker struct{ *Loop }

func (w waker) Ready() {
	var count [8]byte
	unix.Read(w.wake.fd, count[:])
	w.runPosted()
}

func (waker) TimedOut() {}

func (l *Loop) runPosted() {
	l.mu.Lock()
	posted := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
}

// turn waits, and serves each descriptor that is ready, or asked to be called again, once.
func (l *Loop) turn() error {
	n, err := l.wait()
	if err != nil {
		return err
	}
	l.turns++
	again := l.again
	l.again = nil
	for i := range n {
		// A handler that was called in this turn may have removed this watch.
		if w := l.watches[l.events[i].Fd]; w != nil && w.id == id(&l.events[i]) {
			w.again = 0
			w.handler.Ready()
		}
	}
	for _, w := range again {
		if w.again != 0 && w.again < l.turns {
			w.again = 0
			w.handler.Ready()
		}
	}
	l.wheel.Advance(l.now)
	return nil
}

// wait waits until a descriptor is ready, or there is something else to do.
func (l *Loop) wait() (n int, err error) {
	for {
		n, err = l.poll()
		l.now = l.clock()
		switch {
		case err != nil:
			return 0, err
		case n > 0 || len(l.again) > 0:
			l.noteReady(n)
			return n, nil
		case l.now >= l.spinEnd:
			n, err = l.sleep()
			l.now = l.clock()
			l.noteReady(n)
			return n, err
		}
		unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
}

// noteReady decides whether to poll after this turn, in which n descriptors are ready.
func (l *Loop) noteReady(n int) {
	lastOnly := uint64(0)
	if n == 1 {
		lastOnly = id(&l.events[0])
	}
	l.spinEnd = l.now
	if n == 1 && lastOnly == l.lastOnly {
		l.spinEnd += spin
	}
	l.lastOnly = lastOnly
}

// poll returns how many descriptors are ready now. RawSyscall6 does not tell the
// scheduler of the runtime: this call does not wait.
func (l *Loop) poll() (int, error) {
	n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll),
		uintptr(unsafe.Pointer(&l.events)), turnSize, 0, 0, 0)
	switch err {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, os.NewSyscallError("epoll_pwait", err)
}

// sleep waits until a descriptor is ready or a timer ends.
func (l *Loop) sleep() (int, error) {
	timeout := -1
	if next, any := l.wheel.Next(); any {
		timeout = int(min(max(next-l.now+roundUp, 0)/time.Millisecond, math.MaxInt32))
	}
	n, err := unix.EpollWait(l.epoll, l.events[:], timeout)
	if err == unix.EINTR {
		return 0, nil
	}
	return max(n, 0), os.NewSyscallError("epoll_wait", err)
}

func (l *Loop) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	unix.Close(l.epoll)
	unix.Close(l.wake.fd)
}
