// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// usage is the processor time that a process has used so far.
type usage struct {
	CPU      float64 // seconds, user and system
	Switches int     // of context
}

func (u usage) since(before usage) usage {
	return usage{CPU: u.CPU - before.CPU, Switches: u.Switches - before.Switches}
}

// usageOf reads the usage of a process from proc(5), thread by thread: only these times are
// exact.
func usageOf(pid int) (u usage, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return u, err
	}
	for _, dir := range threads {
		times, err := os.ReadFile(filepath.Join(dir, "schedstat"))
		if err != nil {
			return u, err
		}
		nanoseconds, _, _ := strings.Cut(string(times), " ")
		ns, err := strconv.ParseInt(nanoseconds, 10, 64)
		if err != nil {
			return u, err
		}
		u.CPU += float64(ns) / 1e9
		for _, name := range []string{"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"} {
			n, err := statusValue(filepath.Join(dir, "status"), name)
			if err != nil {
				return u, err
			}
			u.Switches += n
		}
	}
	return u, nil
}

// residentKB returns the resident memory of a process, in KB.
func residentKB(pid int) (int, error) {
	return statusValue(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
}

// statusValue returns a number in a status file of proc(5).
func statusValue(file, name string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			return strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return 0, fmt.Errorf("%s has no line %s", file, name)
}
