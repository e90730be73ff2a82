// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"scache/internal/cache"
)

// tree returns a file system with these files.
func tree(files map[string]string) fs.FS {
	all := fstest.MapFS{}
	for name, text := range files {
		all[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return all
}

const (
	meminfo  = "MemTotal:        4000000 kB\nMemFree:         1000000 kB\n"
	mounted2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mounted1 = "33 32 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
		"34 32 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)

func TestAvailableMemory_isTheLeastLimit(t *testing.T) {
	t.Parallel()
	const machine = 4_000_000 * 1024
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing known": {nil, 0},
		"no group":      {map[string]string{"proc/meminfo": meminfo}, machine},
		"malformed": {map[string]string{
			"proc/meminfo":                 "MemTotal: many kB\nMemTotal: 1\n",
			"proc/self/cgroup":             "0\n0::\n\n",
			"proc/self/mountinfo":          "1 2 3\n - cgroup2\n" + mounted2,
			"sys/fs/cgroup/memory.max":     "\n",
			"sys/fs/cgroup/memory.high":    "-1\n",
			"sys/fs/cgroup/memory.current": "7\n",
		}, 0},
		"version 2, own limit": {map[string]string{
			"proc/meminfo":                          meminfo,
			"proc/self/cgroup":                      "0::/system.slice/postfix.service\n",
			"proc/self/mountinfo":                   mounted2,
			"sys/fs/cgroup/system.slice/memory.max": "max\n",
			"sys/fs/cgroup/system.slice/postfix.service/memory.max": "536870912\n",
		}, 512 << 20},
		"version 2, limit above": {map[string]string{
			"proc/meminfo":                          meminfo,
			"proc/self/cgroup":                      "0::/system.slice/postfix.service\n",
			"proc/self/mountinfo":                   mounted2,
			"sys/fs/cgroup/system.slice/memory.max": "268435456\n",
			"sys/fs/cgroup/system.slice/postfix.service/memory.max": "max\n",
		}, 256 << 20},
		"version 2, throttled": {map[string]string{
			"proc/self/cgroup":          "0::/\n",
			"proc/self/mountinfo":       mounted2,
			"sys/fs/cgroup/memory.max":  "268435456\n",
			"sys/fs/cgroup/memory.high": "134217728\n",
		}, 128 << 20},
		"version 2, above the machine": {map[string]string{
			"proc/meminfo":             meminfo,
			"proc/self/cgroup":         "0::/\n",
			"proc/self/mountinfo":      mounted2,
			"sys/fs/cgroup/memory.max": "99999999999999\n",
		}, machine},
		"container with a namespace": {map[string]string{
			"proc/meminfo":             meminfo,
			"proc/self/cgroup":         "0::/\n",
			"proc/self/mountinfo":      mounted2,
			"sys/fs/cgroup/memory.max": "134217728\n",
		}, 128 << 20},
		"container without a namespace": {map[string]string{
			"proc/meminfo":     meminfo,
			"proc/self/cgroup": "5:memory:/docker/abc\n2:cpu:/docker/abc\n",
			"proc/self/mountinfo": "34 32 0:30 /docker/abc /sys/fs/cgroup/memory ro - " +
				"cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n",
		}, 64 << 20},
		"version 1": {map[string]string{
			"proc/meminfo":        meminfo,
			"proc/self/cgroup":    "5:cpuset,memory:/mail\n2:cpu:/\n",
			"proc/self/mountinfo": mounted1,
			"sys/fs/cgroup/memory/mail/memory.limit_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":      "9223372036854771712\n",
			"sys/fs/cgroup/cpu/memory.limit_in_bytes":         "1\n",
		}, 1 << 30},
		"both versions": {map[string]string{
			"proc/meminfo":        meminfo,
			"proc/self/cgroup":    "5:memory:/mail\n0::/unified\n",
			"proc/self/mountinfo": mounted1 + "40 32 0:31 / /sys/fs/cgroup/unified rw - cgroup2 x rw\n",
			"sys/fs/cgroup/memory/mail/memory.limit_in_bytes":  "1073741824\n",
			"sys/fs/cgroup/unified/unified/cgroup.controllers": "\n",
		}, 1 << 30},
	} {
		if got := availableMemory(tree(test.files)); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

// brokenFS cannot be read.
type brokenFS struct{}

func (brokenFS) Open(string) (fs.File, error) { return nil, errors.New("broken") }

func TestAvailableMemory_unreadable(t *testing.T) {
	t.Parallel()
	if got := availableMemory(brokenFS{}); got != 0 {
		t.Errorf("got %d, want 0", got)
	}
}

func TestMemoryLimits_areSharesOfTheMemory(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		available, configured, cache, process int64
	}{
		{8 << 30, 0, 1 << 30, 4 << 30},
		{0, 0, 128 << 20, 512 << 20},
		{64 << 20, 0, 16 << 20, 32 << 20},
		{16 << 20, 0, 16 << 20, 16 << 20},
		{8 << 30, 100, 100, 4 << 30},
		{8 << 30, 3 << 30, 3 << 30, 6 << 30},
		{8 << 30, 9 << 30, 9 << 30, 8 << 30},
	} {
		cache, process := memoryLimits(test.available, test.configured)
		if cache != test.cache || process != test.process {
			t.Errorf("got %d and %d, want %+v", cache, process, test)
		}
	}
}

// TestMemoryReturner_afterAFlush flushes 60 MB: the process gives them back at once.
func TestMemoryReturner_afterAFlush(t *testing.T) {
	released := func() int64 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapReleased)
	}
	done := make(chan struct{}, 10)
	start := time.Now()
	c := cache.New(cache.Config{
		Now:     func() time.Duration { return time.Since(start) },
		Alarm:   func(time.Duration) {},
		Release: func([]cache.Dropped) {},
		Freed: memoryReturner(func() {
			debug.FreeOSMemory()
			done <- struct{}{}
		}),
	})
	for i := range 1000 {
		c.SaveBinding(time.Hour, []byte("d"), make([]byte, 60_000), fmt.Append(nil, "e", i))
	}
	before, flushed := released(), time.Now()
	c.Clear()
	<-done
	took, got := time.Since(flushed), released()-before
	t.Logf("%d bytes released after %v", got, took)
	if got < 50<<20 || took > 10*time.Second {
		t.Errorf("got %d bytes released after %v, want nearly all soon", got, took)
	}
}

// TestMemoryReturner_worksInTheBackgroundOnce calls it while it is at work.
func TestMemoryReturner_worksInTheBackgroundOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		freed := memoryReturner(func() {
			calls.Add(1)
			time.Sleep(time.Second)
		})
		freed()
		time.Sleep(time.Second / 2)
		freed()
		freed()
		freed()
		time.Sleep(time.Minute)
		if calls := calls.Load(); calls != 2 {
			t.Errorf("got %d calls, want 2", calls)
		}
		freed()
		time.Sleep(time.Minute)
		if calls := calls.Load(); calls != 3 {
			t.Errorf("got %d calls, want 3", calls)
		}
	})
}
