// SPDX-License-Identifier: EPL-2.0

// Tests of what commands would get that a process starts: none of its descriptors.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// TestDescriptors_areCloseOnExec looks at all descriptors of a process that has taken over
// clients and sessions, serves new ones, and is ready to hand over.
func TestDescriptors_areCloseOnExec(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
	c := dial(t, m)
	for i := range 3 {
		saveSession(t, c, 3600, fmt.Sprint("before", i), "")
	}
	replace(t, m)
	wantTakeovers(t, m, 1)
	for i := range 3 {
		saveSession(t, dial(t, m), 3600, fmt.Sprint("after", i), "")
	}
	wantAnswer(t, c)
	ours := map[string]bool{} // what the daemon may have from the caller of this test
	for _, link := range inheritable(t, os.Getpid()) {
		ours[link] = true
	}
	for fd, link := range inheritable(t, m.Cmd.Process.Pid) {
		if fd > 2 && !ours[link] {
			t.Errorf("descriptor %d (%s) is left to commands", fd, link)
		}
	}
	if n := len(openFiles(t, m)); n < 10 {
		t.Errorf("got %d descriptors, want sessions and clients among them", n)
	}
}

func openFiles(t *testing.T, m *postfixtest.Master) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// inheritable returns the descriptors of a process without close-on-exec, and what they are.
func inheritable(t *testing.T, pid int) map[int]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	entries, err := os.ReadDir(dir + "/fdinfo")
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]string{}
	for _, e := range entries {
		info, err := os.ReadFile(filepath.Join(dir, "fdinfo", e.Name()))
		link, errLink := os.Readlink(filepath.Join(dir, "fd", e.Name()))
		if err != nil || errLink != nil {
			continue // it was closed meanwhile
		}
		_, text, _ := strings.Cut(string(info), "flags:")
		octal, _, _ := strings.Cut(text, "\n")
		flags, err := strconv.ParseInt(strings.TrimSpace(octal), 8, 64)
		if err != nil {
			t.Fatalf("%s: %v", info, err)
		}
		if fd, _ := strconv.Atoi(e.Name()); flags&unix.O_CLOEXEC == 0 {
			all[fd] = link
		}
	}
	return all
}
