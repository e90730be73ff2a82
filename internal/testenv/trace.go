// SPDX-License-Identifier: EPL-2.0

package testenv

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// A file is what a descriptor stands for. A descriptor with the same number that was opened
// later has another one, in general.
type file struct{ dev, ino uint64 }

func fileOf(fd int) (f file, open bool) {
	var stat unix.Stat_t
	err := unix.Fstat(fd, &stat)
	return file{uint64(stat.Dev), stat.Ino}, err == nil
}

// traced has the last descriptor with each number that TraceDescriptor was called with.
var traced = struct {
	sync.Mutex
	origins map[int]origin
}{origins: map[int]origin{}}

// An origin says where a descriptor was created.
type origin struct {
	file  file
	stack []uintptr
}

func (o origin) String() string {
	var b strings.Builder
	for frames := runtime.CallersFrames(o.stack); ; {
		frame, more := frames.Next()
		fmt.Fprintf(&b, "\t%s\n\t\t%s:%d\n", frame.Function, frame.File, frame.Line)
		if !more {
			return b.String()
		}
	}
}

// TraceDescriptor records the stack of its caller as the origin of a descriptor. There is no
// record of its end: whether it is still open is read from /proc.
func TraceDescriptor(fd int) {
	f, open := fileOf(fd)
	if !open {
		return
	}
	stack := make([]uintptr, 20)
	stack = stack[:runtime.Callers(2, stack)]
	traced.Lock()
	defer traced.Unlock()
	traced.origins[fd] = origin{f, stack}
}

// originOf returns where an open descriptor was created, if that was traced.
func originOf(fd int, f file) (o origin, found bool) {
	traced.Lock()
	defer traced.Unlock()
	o, found = traced.origins[fd]
	return o, found && o.file == f
}

// Descriptors are the open descriptors of this process at one time.
type Descriptors map[int]file

// OpenDescriptors returns the open descriptors of this process. A test that compares them
// cannot run in parallel with others.
func OpenDescriptors(t testing.TB) Descriptors {
	t.Helper()
	all, err := openDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func openDescriptors() (Descriptors, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	all := Descriptors{}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, err
		}
		if f, open := fileOf(fd); open { // the directory itself is not any more
			all[fd] = f
		}
	}
	return all, nil
}

// WantSame wants as many descriptors to be open as before.
func (before Descriptors) WantSame(t testing.TB, when string) {
	t.Helper()
	before.WantMore(t, 0, when)
}

// WantMore wants n more descriptors to be open than before. Otherwise it says which ones have
// come and, of those that were traced, where they were created.
func (before Descriptors) WantMore(t testing.TB, n int, when string) {
	t.Helper()
	if now := OpenDescriptors(t); len(now) != len(before)+n {
		t.Fatalf("%s: got %d open descriptors, want %d; new are\n%s",
			when, len(now), len(before)+n, now.since(before))
	}
}

// since describes the descriptors that were not open before.
func (now Descriptors) since(before Descriptors) string {
	var b strings.Builder
	for fd, f := range now {
		if before[fd] == f {
			continue
		}
		target, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		fmt.Fprintf(&b, "descriptor %d, %s\n", fd, target)
		if o, found := originOf(fd, f); found {
			fmt.Fprintf(&b, "%v", o)
		}
	}
	return b.String()
}

// leaked describes the descriptors that were traced and are still open.
func leaked() (string, error) {
	all, err := openDescriptors()
	if err != nil {
		return "", err
	}
	for fd, f := range all {
		if _, found := originOf(fd, f); !found {
			delete(all, fd)
		}
	}
	return all.since(nil), nil
}

// Main runs the tests of a package. Goroutines and traced descriptors that are left at the end
// make it fail. trace is [scache/internal/fdpass.OnCreate].
func Main(m *testing.M, trace func(created func(fd int)), options ...goleak.Option) {
	trace(TraceDescriptor)
	atEnd := goleak.Cleanup(func(code int) {
		left, err := leaked()
		if code == 0 && (left != "" || err != nil) {
			fmt.Fprintf(os.Stderr, "descriptors that the tests have left open: %v\n%s", err, left)
			code = 1
		}
		os.Exit(code)
	})
	goleak.VerifyTestMain(m, slices.Concat(options, []goleak.Option{atEnd})...)
}
