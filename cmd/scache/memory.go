// SPDX-License-Identifier: EPL-2.0

// How much memory the process may use, and how it gives memory back.

package main

import (
	"bufio"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
)

// gcPercent is low, as the heap is small: collecting its garbage costs little.
const gcPercent = 50

// collectLess makes the Go runtime collect garbage less often while a state is received. Clients
// wait meanwhile, and nothing of the state is garbage soon.
func collectLess() (received func()) {
	debug.SetGCPercent(8 * gcPercent)
	return func() { debug.SetGCPercent(gcPercent) }
}

// limitMemory limits the memory of the process, and returns the memory limit of the
// cache in bytes: configured, if not 0. It must be called outside of a jail.
func limitMemory(configured int64) (cacheLimit int64) {
	cacheLimit, processLimit := memoryLimits(availableMemory(os.DirFS("/")), configured)
	if debug.SetMemoryLimit(-1) == math.MaxInt64 { // GOMEMLIMIT is not set
		debug.SetMemoryLimit(processLimit)
	}
	return cacheLimit
}

// The cache may use an eighth of the available memory. Near a half of it, the Go runtime
// collects garbage more often.
const (
	cacheShare   = 8
	processShare = 2

	minCacheLimit = 16 << 20 // some 30,000 sessions with labels of the usual length
	unknownMemory = 1 << 30  // assumed if the system does not say
)

// memoryLimits returns the memory limits of the cache and of the process. configured is
// the former, if not 0.
func memoryLimits(available, configured int64) (cacheLimit, processLimit int64) {
	if available <= 0 {
		available = unknownMemory
	}
	cacheLimit = max(available/cacheShare, minCacheLimit)
	if configured > 0 {
		cacheLimit = configured
	}
	// The heap needs room for garbage beside the cache.
	processLimit = max(available/processShare, min(2*cacheLimit, available))
	return cacheLimit, processLimit
}

// availableMemory returns how much memory this process could use at most: the least of
// the machine's memory and the limits of its control groups. It returns 0 if nothing
// is known. root is the root directory of the machine.
func availableMemory(root fs.FS) int64 {
	least := machineMemory(root)
	for _, dir := range controlGroups(root) {
		for _, name := range []string{"memory.max", "memory.high", "memory.limit_in_bytes"} {
			text, err := fs.ReadFile(root, path.Join(dir, name))
			if err != nil {
				continue
			}
			n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err == nil && n > 0 && (least == 0 || n < least) { // not "max"
				least = n
			}
		}
	}
	return least
}

// machineMemory returns the size of the memory, or 0.
func machineMemory(root fs.FS) int64 {
	for line := range lines(root, "proc/meminfo") {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err == nil && n < math.MaxInt64/1024 {
				return n * 1024
			}
		}
	}
	return 0
}

// controlGroups returns the directories of the control groups that limit the memory of
// this process: its own and those above, of version 1 or 2.
func controlGroups(root fs.FS) (dirs []string) {
	groups := groupPaths(root)
	for line := range lines(root, "proc/self/mountinfo") {
		// 36 35 0:32 ROOT MOUNTPOINT OPTIONS … - TYPE SOURCE OPTIONS
		before, after, found := strings.Cut(line, " - ")
		mount, system := strings.Fields(before), strings.Fields(after)
		if !found || len(mount) < 5 || len(system) < 3 {
			continue
		}
		version := ""
		switch {
		case system[0] == "cgroup2":
			version = "2"
		case system[0] == "cgroup" && hasWord(system[2], "memory"):
			version = "1"
		}
		group, found := groups[version]
		if !found {
			continue
		}
		top := strings.TrimPrefix(mount[4], "/")
		// In a container, the mount can show a part of the tree.
		if below, found := strings.CutPrefix(group, mount[3]); found {
			group = below
		}
		for group = path.Join("/", group); ; group = path.Dir(group) {
			dirs = append(dirs, path.Join(top, group))
			if group == "/" {
				break
			}
		}
	}
	return dirs
}

// groupPaths returns the paths of this process's control groups by version.
func groupPaths(root fs.FS) map[string]string {
	groups := map[string]string{}
	for line := range lines(root, "proc/self/cgroup") {
		// ID:CONTROLLERS:PATH
		fields := strings.SplitN(line, ":", 3)
		switch {
		case len(fields) < 3:
		case fields[0] == "0" && fields[1] == "":
			groups["2"] = fields[2]
		case hasWord(fields[1], "memory"):
			groups["1"] = fields[2]
		}
	}
	return groups
}

func hasWord(list, word string) bool {
	return strings.Contains(","+list+",", ","+word+",")
}

// lines returns the lines of a file, or none if it cannot be read.
func lines(root fs.FS, name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		f, err := root.Open(name)
		if err != nil {
			return
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if !yield(s.Text()) {
				return
			}
		}
	}
}

// memoryReturner returns a function that returns freed memory to the system in the
// background. If it is called while it works, it works once more afterwards.
func memoryReturner(free func()) func() {
	var mu sync.Mutex
	working, again := false, false
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if again = working; working {
			return
		}
		working = true
		go func() {
			for more := true; more; {
				free()
				mu.Lock()
				more, again = again, false
				working = more
				mu.Unlock()
			}
		}()
	}
}
