// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// server is the daemon, and tool is scachectl as a process of its own: this test binary
// under another name.
var server, tool string

func TestMain(m *testing.M) {
	version, libexec = "test", "/nonexistent" // no server that is installed on this machine
	testscript.Main(mainOnce{m}, map[string]func(){
		"scachectl": func() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) },
		"denier":    denier,
	})
}

// mainOnce builds the daemon once, before the tests run.
type mainOnce struct{ *testing.M }

func (m mainOnce) Run() int {
	dir, err := os.MkdirTemp("", "scachectl-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	server = filepath.Join(dir, "scache")
	if err = postfixtest.Build(server, "scache/cmd/scache"); err == nil {
		tool, err = exec.LookPath("scachectl")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Chmod(filepath.Dir(filepath.Dir(tool)), 0o755) // other users call it, too
	os.Setenv("PATH", dir+":"+os.Getenv("PATH"))      // for scripts
	return m.M.Run()
}

// ctl runs a command within the test, and returns what it prints and whether it succeeds.
func ctl(t *testing.T, args ...string) (stdout, stderr string, ok bool) {
	t.Helper()
	var out, errOut bytes.Buffer
	code := execute(args, &out, &errOut)
	return out.String(), errOut.String(), code == 0
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

// callerOf returns must for the server at a socket.
func callerOf(t *testing.T, socket string) func(args ...string) string {
	return func(args ...string) string {
		t.Helper()
		return must(t, append([]string{"--socket", socket}, args...)...)
	}
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
	return saveConnectionOf(t, socket, `smtp\nexample.com\n25\n`)
}

// saveConnectionOf is saveConnection with a destination of its own.
func saveConnectionOf(t *testing.T, socket, destination string) (remote string) {
	t.Helper()
	conn, remote := testenv.TCPConn(t)
	defer conn.Close()
	f, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(tool, "--socket", socket, "debug", "save", "endpoint",
		`smtp\n192.0.2.1\n25\n0\n`, "--ttl", "3000", "--property", `secret\nfeature\n`)
	cmd.Stdin = f
	if _, errOut, ok := run(cmd); !ok {
		t.Fatal(errOut)
	}
	must(t, "--socket", socket, "debug", "save", "destination", destination,
		`smtp\n192.0.2.1\n25\n0\n`, "--ttl", "3000", "--property", "p")
	return remote
}
