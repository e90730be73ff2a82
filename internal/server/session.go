// SPDX-License-Identifier: EPL-2.0

package server

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
)

// Alive tells whether a cached connection can still be used: the remote end has
// neither hung up nor said anything. A descriptor that is not a socket cannot be
// asked, and counts as alive.
func Alive(fd int) bool {
	var b [1]byte
	for {
		// The scheduler need not know of a call that does not wait.
		_, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOTSOCK:
			return true
		}
		return false // something to read, the end of file, or an error
	}
}

// A Closer closes cached connections, for the cache.
type Closer struct {
	Goodbye string // what is said to a remote end that listens, if not empty
	Hits    *Hits  // counts what has ended

	closing sync.WaitGroup
}

// few is how many connections are closed at once: whoever closes more has better
// things to do.
const few = 16

// Close closes connections. It does not wait for many of them.
func (c *Closer) Close(all []cache.Ended) {
	for _, e := range all {
		c.Hits.ended(e)
	}
	if len(all) <= few {
		c.closeAll(all)
		return
	}
	c.closing.Go(func() { c.closeAll(all) })
}

// Wait returns when all connections are closed.
func (c *Closer) Wait() { c.closing.Wait() }

func (c *Closer) closeAll(all []cache.Ended) {
	for _, e := range all {
		if e.FD == cache.NoFD {
			continue
		}
		if c.Goodbye != "" && e.Why != cache.Dead && Alive(e.FD) {
			unix.Sendto(e.FD, []byte(c.Goodbye+"\r\n"), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) // as far as it goes
		}
		unix.Close(e.FD)
	}
}
