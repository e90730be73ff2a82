// SPDX-License-Identifier: EPL-2.0

package testenv

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// create creates a traced descriptor.
func create(t *testing.T) int {
	fd := NewDescriptor(t)
	TraceDescriptor(fd)
	return fd
}

// TestLeaked_namesTheOrigin of an open descriptor, and of none that was closed, also if
// another one has its number.
func TestLeaked_namesTheOrigin(t *testing.T) {
	before := OpenDescriptors(t)
	fd := create(t)
	got, err := leaked()
	if err != nil || strings.Count(got, "testenv.create") != 1 {
		t.Errorf("got %q, %v, want the function that has created it", got, err)
	}
	if got := OpenDescriptors(t).since(before); !strings.Contains(got, "pipe:") ||
		!strings.Contains(got, "testenv.create") {
		t.Errorf("got %q, want a pipe and the function that has created it", got)
	}
	unix.Close(fd)
	if got, err := leaked(); got != "" || err != nil {
		t.Errorf("got %q, %v after it was closed, want nothing", got, err)
	}
	other := NewDescriptor(t)
	defer unix.Close(other)
	if got, err := leaked(); got != "" || err != nil || other != fd {
		t.Errorf("got %q, %v, descriptor %d for %d, want nothing of another one", got, err, other, fd)
	}
}
