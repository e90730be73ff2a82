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
	"scache/internal/testenv"
)

// binary is the program under test, built as it is for production.
var binary string

func TestMain(m *testing.M) {
	if os.Getenv(panicsVariable) != "" {
		runWithBug()
	}
	if socket := os.Getenv(agentVariable); socket != "" {
		runAgent(socket)
	}
	os.Exit(testMain(m))
}

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
	c, err := postfixtest.Dial(m.Socket)
	if err != nil {
		t.Fatalf("%v\n%q", err, m.Log())
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// inode returns the number of the file of an open descriptor, and closes it.
func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	defer unix.Close(fd)
	return testenv.Inode(t, fd)
}
