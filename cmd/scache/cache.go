// SPDX-License-Identifier: EPL-2.0

package main

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/master"
	"scache/internal/server"
)

// newCache gives the cache a clock, an alarm, and a way to deal with
// descriptors.
func newCache(params parameters, p *master.Process, clock func() time.Duration, closer *server.Closer) *cache.Cache {
	var c *cache.Cache
	alarm := time.AfterFunc(time.Hour, func() {
		defer p.Log.ExitOnPanic()
		c.Expire()
	})
	alarm.Stop()
	alive := server.Alive
	if !params.livenessCheck {
		alive = func(int) bool { return true }
	}
	c = cache.New(cache.Config{
		TTLLimit:     params.ttlLimit,
		BindingLimit: bindingLimit,
		Now:          clock,
		Alarm:        func(d time.Duration) { alarm.Reset(d) },
		Alive:        alive,
		Close:        closer.Close,
	})
	if len(params.limits) > 0 {
		c.EndpointLimit = func(label string) (int, time.Duration) {
			limit := params.limits.For(label)
			return limit.Sessions, limit.TTL
		}
	}
	return c
}

// bindingLimit is how many bindings there may be. No site has as many places to
// deliver to within the few seconds that they live, and they fit into memory: some
// 50 MB, as long as labels and properties usually are.
const bindingLimit = 100_000

// ownDescriptors is how many descriptors the process may need for itself.
const ownDescriptors = 32

// sessionLimit returns how many sessions may be cached with a number of clients
// connected, if this process may have as many open files as the system allows
// it at the most. A client needs a descriptor, and another one for the session
// that it is saving.
func sessionLimit(configured int) func(clients int) int {
	files := unix.Rlimit{Cur: 1024}
	unix.Getrlimit(unix.RLIMIT_NOFILE, &files) // the runtime has set Cur to Max
	return func(clients int) int {
		limit := int(min(files.Cur, math.MaxInt32)) - ownDescriptors - 2*clients
		if configured > 0 {
			limit = min(limit, configured)
		}
		return limit
	}
}
