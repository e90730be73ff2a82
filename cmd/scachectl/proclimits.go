// SPDX-License-Identifier: EPL-2.0

// The limits of processes: what master(8) has, and what this server needs.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// unlimited stands for "no limit".
const unlimited = int64(1<<63 - 1)

// A processLimit is a limit of a process.
type processLimit struct{ soft, hard int64 }

// readLimits returns the limits of a process by their names in /proc/PID/limits.
func readLimits(pid int) (map[string]processLimit, error) {
	const nameWidth = 26 // of the first column
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return nil, err
	}
	limits := map[string]processLimit{}
	for line := range strings.Lines(string(text)) {
		if len(line) < nameWidth {
			continue
		}
		fields := strings.Fields(line[nameWidth:])
		if len(fields) < 2 {
			continue
		}
		soft, errSoft := parseLimit(fields[0])
		hard, errHard := parseLimit(fields[1])
		if errSoft == nil && errHard == nil {
			limits[strings.TrimSpace(line[:nameWidth])] = processLimit{soft, hard}
		}
	}
	return limits, nil
}

func parseLimit(text string) (int64, error) {
	if text == "unlimited" {
		return unlimited, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// openFiles returns how many files a process has open, and its limit.
func openFiles(pid int) (open, limit int64, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 0, 0, err
	}
	limits, err := readLimits(pid)
	return int64(len(entries)), limits["Max open files"].soft, err
}

const (
	mega = 1 << 20

	// neededThreads is how many threads this server needs at most.
	neededThreads = 20
)

// neededLimits are the limits that this server needs. It would still start with a third less
// of each.
var neededLimits = []struct {
	name, unit, setting string
	least               int64
	scale               int64
	fatal               bool // the server does not start with less
}{
	{"Max open files", "", "LimitNOFILE", 64, 1, true},
	{"Max address space", " MB", "LimitAS", 1024 * mega, mega, true},
	{"Max data size", " MB", "LimitDATA", 256 * mega, mega, true},
	{"Max file size", " MB", "LimitFSIZE", 64 * mega, mega, false},
	{"Max cpu time", " s", "LimitCPU", unlimited, 1, false},
}

// checkProcessLimits compares the limits of master(8), which this server inherits, with what
// it needs.
func (d *doctor) checkProcessLimits() {
	pid, running := d.system.MasterPID()
	if !running {
		return
	}
	limits, err := readLimits(pid)
	if err != nil {
		d.note("limits", "run this as root", "the limits of master(8) cannot be read: %v", err)
		return
	}
	before := len(d.findings)
	for _, need := range neededLimits {
		have, found := limits[need.name]
		value := have.soft
		if need.name == "Max open files" {
			value = have.hard // this server raises its own limit
		}
		if !found || value >= need.least {
			continue
		}
		level, want := "note", "unlimited"
		if need.fatal {
			level = "problem"
		}
		if need.least < unlimited {
			want = fmt.Sprintf("%d%s", need.least/need.scale, need.unit)
		}
		d.say(level, "limits",
			"raise it where Postfix is started (systemd: "+need.setting+" of the service; else ulimit)",
			"the limit %q of master(8) is %d%s, and this server needs %s",
			need.name, value/need.scale, need.unit, want)
	}
	d.checkThreads(limits["Max processes"].soft)
	if len(d.findings) == before {
		d.ok("limits", "the limits of master(8) are high enough")
	}
}

// checkThreads compares the limit of processes with the number of threads of mail_owner's
// processes: the kernel counts each thread as a process.
func (d *doctor) checkThreads(limit int64) {
	owner, _ := d.system.Owner()
	uid, err := ownerID(owner)
	if err != nil || limit == unlimited {
		return // checkSocket reports it
	}
	used := int64(0)
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		fi, err := os.Stat(process)
		if err != nil || int(fi.Sys().(*syscall.Stat_t).Uid) != uid {
			continue
		}
		threads, _ := os.ReadDir(filepath.Join(process, "task"))
		used += int64(len(threads))
	}
	running := int64(0)
	if d.answered() {
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.status.PID))
		running = int64(len(threads))
	}
	if limit-used+running < neededThreads {
		d.problem("limits", "raise it where Postfix is started "+
			"(systemd: LimitNPROC and TasksMax of the service; else ulimit -u)",
			"the limit \"Max processes\" of master(8) is %d, and the processes of %s have %d threads: "+
				"this server needs %d of its own", limit, owner, used-running, neededThreads)
	}
}
