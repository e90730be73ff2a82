// SPDX-License-Identifier: EPL-2.0

package main

import (
	"math"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/master"
	"scache/internal/server"
)

// newCache returns a cache with a clock, an alarm, and functions that check and close
// descriptors.
func newCache(
	params parameters, p *master.Process, clock func() time.Duration, closer *server.Closer,
	alive func(fd int) bool,
) *cache.Cache {
	var c *cache.Cache
	alarm := time.AfterFunc(time.Hour, func() {
		defer p.Log.ExitOnPanic()
		c.Expire()
	})
	alarm.Stop()
	if !params.livenessCheck {
		alive = func(int) bool { return true }
	}
	config := cache.Config{
		TTLLimit:     params.ttlLimit,
		BindingLimit: bindingLimit,
		MemoryLimit:  params.memoryLimit,
		Now:          clock,
		Alarm:        func(d time.Duration) { alarm.Reset(d) },
		Alive:        alive,
		Release:      closer.Close,
		Freed:        memoryReturner(debug.FreeOSMemory),
	}
	c = cache.New(config)
	return c
}

// bindingLimit bounds the number of bindings. It is more than any site has within the few
// seconds that bindings live. With labels and properties of the usual length, they take
// about 50 MB.
const bindingLimit = 100_000

const (
	// ownDescriptors is how many descriptors the process may need for itself. Those for a
	// handover are among them, and those of sessions that are being closed in the background.
	ownDescriptors = 64

	// roomStep is how many sessions are given up at once where descriptors are short.
	roomStep = 32
)

// fileLimit returns the limit of open files. The Go runtime has raised it to the hard limit.
func fileLimit() uint64 {
	files := unix.Rlimit{Cur: 1024}
	unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
	return files.Cur
}

// sessionLimit returns a function from the number of clients, and of other descriptors, to
// the number of sessions that may be cached. It depends on the limit of open files. A client
// needs a descriptor, and another one for the session that it saves.
func sessionLimit(files uint64, configured int) func(clients, others int) int {
	return func(clients, others int) int {
		limit := int(min(files, math.MaxInt32)) - ownDescriptors - 2*clients - others
		if configured > 0 {
			limit = min(limit, configured)
		}
		return limit
	}
}
