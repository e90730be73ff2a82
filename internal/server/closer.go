// SPDX-License-Identifier: EPL-2.0

package server

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/fdpass"
)

// Alive reports whether a cached connection can still be used: the remote end has
// neither hung up nor sent anything. A descriptor that is not a socket counts as
// alive, because it cannot be asked.
func Alive(fd int) bool {
	var b [1]byte
	for {
		// RawSyscall6 does not tell the scheduler: this call does not wait.
		_, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b)),
			1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOTSOCK:
			return true
		}
		return false // something to read, the end of file, or an error
	}
}

// A Closer closes cached connections, for the cache. It does not make its caller wait,
// although close(2) can block and clients can save any descriptor. With SO_LINGER,
// close(2) waits until the unsent data is read, for a time that a client has set. On a
// file, it may wait for the file system.
//
// So connections are closed in the background, after SO_LINGER is switched off, and what may
// block nevertheless in a separate queue.
type Closer struct {
	Goodbye string  // sent before a connection that is alive is closed, if not empty
	Labels  *Labels // counts what the cache has dropped

	// Dropped is called with the endpoint of each session that was in the cache, if not nil.
	Dropped func(endpoint string)

	sockets, others closeQueue
}

// maxInlineClose is how many connections may wait to be closed in the background. If there are
// more, the caller closes its own. Otherwise clients that save faster than connections are
// closed would use up all descriptors.
const maxInlineClose = 16

// Close closes connections. It returns before they are closed.
func (c *Closer) Close(all []cache.Dropped) {
	c.Discard(all)
	if c.Dropped != nil {
		for _, e := range all {
			if e.FD != fdpass.None {
				c.Dropped(e.Endpoint)
			}
		}
	}
}

// Discard closes connections that were not in the cache.
func (c *Closer) Discard(all []cache.Dropped) {
	for _, e := range all {
		c.Labels.dropped(e)
	}
	if len(all) <= maxInlineClose && c.sockets.waiting.Load() > maxInlineClose {
		for _, e := range all {
			c.close(e)
		}
		return
	}
	c.sockets.add(all, 1, c.close)
}

// close closes one connection. It does not block.
func (c *Closer) close(e cache.Dropped) {
	if e.FD == fdpass.None {
		return
	}
	if c.Goodbye != "" && e.Why != cache.Dead && Alive(e.FD) {
		const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
		unix.Sendto(e.FD, []byte(c.Goodbye+"\r\n"), flags, nil) // as far as there is room
	}
	err := unix.SetsockoptLinger(e.FD, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	if err != nil { // not a socket
		c.others.closeFD(e.FD)
		return
	}
	unix.Close(e.FD)
}

// Wait returns when all connections are closed, or after the timeout.
func (c *Closer) Wait(timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for _, q := range []*closeQueue{&c.sockets, &c.others} {
		select {
		case <-q.whenIdle():
		case <-timer.C:
			return
		}
	}
}

// Waiting returns how many descriptors wait for a close(2) that may block.
func (c *Closer) Waiting() int { return int(c.others.waiting.Load()) }

// maxWaitingToClose is how many descriptors may wait for a close(2) that may block. Where a file
// system does not answer, more would use up the descriptors that clients need.
const maxWaitingToClose = 100

// A closeQueue is a queue of descriptors and the goroutines that close them. A
// goroutine ends when the queue is empty. The zero value is ready for use.
type closeQueue struct {
	mu      sync.Mutex
	pending []closeJob
	workers int
	idle    chan struct{} // closed when all is done; nil if there is nothing to do
	waiting atomic.Int32  // the length of pending
}

// A closeJob is a descriptor and the function that closes it.
type closeJob struct {
	entry cache.Dropped
	close func(cache.Dropped)
}

// maxCloseWorkers bounds how many files are closed at the same time.
const maxCloseWorkers = 4

// addFile adds a descriptor whose close(2) may block.
func (q *closeQueue) addFile(fd int) {
	q.add([]cache.Dropped{{FD: fd}}, maxCloseWorkers, func(e cache.Dropped) { unix.Close(e.FD) })
}

// closeFD closes a descriptor, in the background only if close(2) could block. It does not
// change the options of a connection, because a client may still use it.
func (q *closeQueue) closeFD(fd int) {
	if mayBlock(fd) {
		q.addFile(fd)
		return
	}
	unix.Close(fd)
}

// mayBlock reports whether close(2) could block. It does not block on a socket without
// SO_LINGER or on a pipe. mayBlock makes no call that asks a file system: that may block, too.
func mayBlock(fd int) bool {
	// The first member of struct linger says whether it is on.
	linger, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER)
	if err == nil {
		return linger != 0
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	return err != nil
}

// add adds descriptors, which up to max goroutines close.
func (q *closeQueue) add(all []cache.Dropped, max int, closeOne func(cache.Dropped)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range all {
		q.pending = append(q.pending, closeJob{e, closeOne})
	}
	q.waiting.Store(int32(len(q.pending)))
	if q.idle == nil && len(all) > 0 {
		q.idle = make(chan struct{})
	}
	for n := len(q.pending); n > 0 && q.workers < max; n-- {
		q.workers++
		go q.work()
	}
}

func (q *closeQueue) work() {
	for job, ok := q.next(); ok; job, ok = q.next() {
		job.close(job.entry)
	}
}

// next returns the next descriptor to close. If there is none, the worker must end.
func (q *closeQueue) next() (job closeJob, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending) > 0 {
		job, q.pending = q.pending[0], q.pending[1:]
		q.waiting.Store(int32(len(q.pending)))
		return job, true
	}
	q.pending = nil
	if q.workers--; q.workers == 0 {
		close(q.idle)
		q.idle = nil
	}
	return job, false
}

// whenIdle returns a channel that is closed when all descriptors are closed.
func (q *closeQueue) whenIdle() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.idle != nil {
		return q.idle
	}
	idle := make(chan struct{})
	close(idle)
	return idle
}
