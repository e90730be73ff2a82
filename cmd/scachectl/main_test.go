// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"scache/internal/postfixtest"
)

// server and tool are the binaries under test.
var server, tool string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "scachectl-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0o755)
		server, tool = filepath.Join(dir, "scache"), filepath.Join(dir, "scachectl")
		for path, pkg := range map[string]string{server: "scache/cmd/scache", tool: "scache/cmd/scachectl"} {
			if err := postfixtest.Build(path, pkg); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return m.Run()
	}())
}

// ctl runs the tool, and returns what it prints and whether it succeeds.
func ctl(t *testing.T, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	return run(exec.Command(tool, args...))
}

func run(cmd *exec.Cmd) (stdout, stderr string, ok bool) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	return out.String(), errOut.String(), err == nil
}

// must runs the tool and wants it to succeed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, errOut, ok := ctl(t, args...)
	if !ok || errOut != "" {
		t.Fatalf("scachectl %s: %s", strings.Join(args, " "), errOut)
	}
	return out
}

// wantError runs the tool and wants it to fail, with all these texts.
func wantError(t *testing.T, args []string, texts ...string) {
	t.Helper()
	out, errOut, ok := ctl(t, args...)
	if ok {
		t.Errorf("scachectl %s succeeds: %s", strings.Join(args, " "), out)
	}
	for _, text := range texts {
		if !strings.Contains(errOut, text) {
			t.Errorf("scachectl %s: %q does not say %q", strings.Join(args, " "), errOut, text)
		}
	}
}

func want(t *testing.T, got string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(got, text) {
			t.Errorf("no %q in:\n%s", text, got)
		}
	}
}

// startServer starts a server under a test master.
func startServer(t *testing.T, binary string) *postfixtest.Master {
	t.Helper()
	m, err := postfixtest.StartMaster(binary, "connection_cache_ttl_limit=1h")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// saveConnection saves a binding and a session: a connection over TCP.
func saveConnection(t *testing.T, socket string) (remote string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(tool, "--socket", socket, "save", "endpoint", `smtp\n192.0.2.1\n25\n0\n`, "--ttl", "3000", "--property", `secret\nfeature\n`)
	cmd.Stdin = f
	if _, errOut, ok := run(cmd); !ok {
		t.Fatal(errOut)
	}
	must(t, "--socket", socket, "save", "destination", `smtp\nexample.com\n25\n`, `smtp\n192.0.2.1\n25\n0\n`, "--ttl", "3000", "--property", "p")
	return l.Addr().String()
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}
