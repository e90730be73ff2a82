// SPDX-License-Identifier: EPL-2.0

package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/postfixtest"
)

// binary is the program under test, built as it is for production.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	if testing.Short() {
		return m.Run() // without the tests that use the binary
	}
	dir, err := os.MkdirTemp("", "scache-binary-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	binary = filepath.Join(dir, "scache")
	if err := postfixtest.Build(binary, "scache/cmd/scache", "-race"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func startMaster(t *testing.T, binary, settings string) *postfixtest.Master {
	t.Helper()
	m, err := postfixtest.StartMaster(binary, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func dial(t *testing.T, m *postfixtest.Master) *client.Client {
	t.Helper()
	c, err := client.Dial(m.Socket, true)
	if err != nil {
		t.Fatalf("%v\n%q", err, m.Log())
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// newDescriptor returns a descriptor with an inode of its own.
func newDescriptor(t *testing.T) int {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	unix.Close(p[1])
	return p[0]
}

// inode returns the identity of an open descriptor, and closes it.
func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	return st.Ino
}
