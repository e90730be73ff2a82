// SPDX-License-Identifier: EPL-2.0

package eventloop

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/timerwheel"
)

// A Watch is a descriptor that a loop waits for. The zero Watch is ready for
// Add; most often it is a field of its handler.
type Watch struct {
	loop     *Loop
	handler  Handler
	id       uint64 // a number and the descriptor, unique in the loop
	fd       int
	deadline time.Duration // of the wait, or 0
	timer    timerwheel.Timer
	timerAt  time.Duration // when the timer ends
	again    uint64        // the turn in which Again was called, or 0
	writes   bool
}

// Add makes the loop wait until the descriptor can be read.
func (l *Loop) Add(w *Watch, fd int, h Handler) error {
	l.added++
	*w = Watch{loop: l, handler: h, id: uint64(l.added)<<32 | uint64(fd), fd: fd}
	w.timer.Owner = w
	for fd >= len(l.watches) {
		l.watches = append(l.watches, nil)
	}
	if err := w.control(unix.EPOLL_CTL_ADD, unix.EPOLLIN); err != nil {
		return err
	}
	l.watches[fd] = w
	return nil
}

// Remove ends the wait. The descriptor stays open. It must not be closed before
// Remove: if another process has a copy of it, epoll(7) would still report events.
func (w *Watch) Remove() {
	w.control(unix.EPOLL_CTL_DEL, 0)
	w.loop.wheel.Stop(&w.timer)
	w.again = 0
	if w.loop.watches[w.fd] == w {
		w.loop.watches[w.fd] = nil
	}
}

// WaitToWrite makes the loop wait until the descriptor can be written instead
// of read, or the other way round.
func (w *Watch) WaitToWrite(on bool) error {
	if w.writes == on {
		return nil
	}
	w.writes = on
	if on {
		return w.control(unix.EPOLL_CTL_MOD, unix.EPOLLOUT)
	}
	return w.control(unix.EPOLL_CTL_MOD, unix.EPOLLIN)
}

// Again makes the loop call Ready in the next turn, whether the descriptor is ready or not. It
// is for a handler that has more to do, but lets the others be served first.
func (w *Watch) Again() {
	if w.again == 0 {
		w.loop.again = append(w.loop.again, w)
	}
	w.again = w.loop.turns
}

// SetTimeout makes the wait end after this time from the beginning of the turn, with
// a call of TimedOut. It replaces an earlier timeout.
func (w *Watch) SetTimeout(d time.Duration) {
	w.deadline = w.loop.now + d
	if !w.timer.Running() || w.deadline < w.timerAt {
		w.rearm()
	}
}

// rearm starts the timer. The timer is not touched when the deadline moves, which happens
// with every request. When it fires, it is restarted if the deadline is later.
func (w *Watch) rearm() {
	w.timerAt = w.deadline
	w.loop.wheel.Start(&w.timer, w.timerAt)
}

// TimerEnded is for the timer wheel.
func (w *Watch) TimerEnded() {
	switch {
	case w.deadline == 0:
	case w.deadline > w.loop.now:
		w.rearm()
	default:
		w.deadline = 0
		w.handler.TimedOut()
	}
}

// Remaining returns the time until TimedOut is called, or 0 if there is no timeout.
func (w *Watch) Remaining() time.Duration {
	if w.deadline == 0 {
		return 0
	}
	return max(w.deadline-w.loop.now, 1)
}

// ClearTimeout makes the wait last until the descriptor is ready.
func (w *Watch) ClearTimeout() { w.deadline = 0 }

// control calls epoll_ctl(2), and once more after a transient failure.
func (w *Watch) control(op int, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(w.id), Pad: int32(w.id >> 32)}
	err := unix.EpollCtl(w.loop.epoll, op, w.fd, &e)
	if err == unix.ENOMEM || err == unix.ENOSPC {
		err = unix.EpollCtl(w.loop.epoll, op, w.fd, &e)
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// id returns the id of the watch that an event is for. Unlike a descriptor, an id is used
// only once.
func id(e *unix.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }
