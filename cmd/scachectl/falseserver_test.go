// SPDX-License-Identifier: EPL-2.0

// Tests against a server that is not a cache: any process of the mail system's user can
// listen at the socket that root asks.

package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"scache/internal/testenv"
)

// A falseServer has an answer for each request. NUL is written as "|".
type falseServer map[string]falseAnswer

// A falseAnswer is said once, and then its other part without end.
type falseAnswer struct{ begin, endless string }

func (f falseServer) start(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(conn)
		}
	}()
	return socket
}

func (f falseServer) serve(conn net.Conn) {
	defer conn.Close()
	in, nul := bufio.NewReader(conn), strings.NewReplacer("|", "\x00")
	for {
		var request []string
		for {
			token, err := in.ReadString(0)
			if err != nil {
				return
			}
			if token == "\x00" {
				break
			}
			request = append(request, strings.TrimSuffix(token, "\x00"))
		}
		answer, known := f[request[1]]
		if !known {
			answer.begin = "status|1||"
		}
		_, err := io.WriteString(conn, nul.Replace(answer.begin))
		for part := []byte(nul.Replace(answer.endless)); err == nil && len(part) > 0; {
			_, err = conn.Write(part)
		}
		if err != nil {
			return
		}
	}
}

// hostile is what a terminal must not be given: see the test of the client.
const hostile = "\x1b]0;x\x07\u009b31m\u202e\u2066evil\u200f\r\xff"

func TestFalseServer_cannotReachTheTerminal(t *testing.T) {
	t.Parallel()
	const end = "entry|end||"
	socket := falseServer{
		"status": {begin: "status|0|version|" + hostile + "|pid|1||"},
		"list": {begin: "status|0||entry|binding|destination|smtp\n" + hostile + "\n|endpoint|" +
			hostile + "|property|" + hostile + "||" +
			"entry|session|endpoint|smtp\n" + hostile + "\n|property|" + hostile + "|remote|" + hostile +
			"|limit|" + hostile + "||" + end},
		"hits": {begin: "status|0||entry|hits|label|smtp\n" + hostile + "\n|misses|1|limit|" +
			hostile + "||" + end},
		"find_endp": {begin: "status|" + hostile + "|property|" + hostile + "||"},
	}.start(t)
	for _, line := range []string{
		"status", "status --json",
		"list", "list -v", "list --labels", "list --json",
		"list --sort none", "list --sort none -v --json",
		"hits", "hits --labels", "hits --json", "hits --by endpoint",
		"top --batch 1", "top --batch 1 --labels",
		"metrics", "metrics --hits",
		"flush --dry-run evil", "debug find endpoint x", "__complete list ''",
	} {
		out, errOut, _ := ctl(t, append([]string{"--socket", socket}, strings.Fields(line)...)...)
		bad := func(r rune) bool {
			return !unicode.IsPrint(r) && r != '\n' && r != '\t' || r == unicode.ReplacementChar
		}
		if i := strings.IndexFunc(out+errOut, bad); i >= 0 {
			t.Errorf("%s: got %q", line, (out + errOut)[max(0, i-20):][:40])
		}
		if !strings.Contains(out+errOut, "evil") {
			t.Errorf("%s: got %q, want what the server says", line, out+errOut)
		}
	}
}

// endless is an entry of a list, with a property that list shows with -v only.
var endless = "entry|session|endpoint|e|property|" + strings.Repeat("x", 60_000) + "||"

func TestFalseServer_cannotFillTheMemory(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	socket := falseServer{
		"status": {begin: "status|0|version|1|pid|1||"},
		"list":   {"status|0||", endless},
		"hits":   {begin: "status|0||entry|end||"},
	}.start(t)
	for _, line := range []string{"list", "top --batch 1", "flush --dry-run e"} {
		cmd := exec.Command(tool, append([]string{"--socket", socket}, strings.Fields(line)...)...)
		out, errOut, ok := run(cmd)
		tooSlow := strings.Contains(errOut, "no answer within") // for all of it, on a busy machine
		if !tooSlow && (!ok || !strings.Contains(out+errOut, "truncated")) {
			t.Errorf("%s: got %v, %q, %.1000q, want it truncated", line, ok, errOut, out)
		}
		const limit = 1 << 30 // with the race detector
		if rss := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10; rss > limit {
			t.Errorf("%s: got %d MB of memory, want at most %d", line, rss>>20, limit>>20)
		}
	}
}

func TestContents_sayThatTheyAreTruncated(t *testing.T) {
	t.Parallel()
	all := contents{Truncated: true}
	var text, jsonText strings.Builder
	if err := (listing{}).print(&text, all); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(&jsonText, all.of("example.com").forJSON()); err != nil {
		t.Fatal(err)
	}
	want(t, text.String(), " 0 sessions (truncated)\n")
	want(t, jsonText.String(), `"truncated": true`)
}

// TestFalseServer_listIsStreamed reads the beginning of a list that has no end.
func TestFalseServer_listIsStreamed(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	socket := falseServer{"list": {"status|0||", endless}}.start(t)
	cmd := exec.Command(tool, "--socket", socket, "list", "--sort", "none", "-v")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const lines = 1200 // more than list would hold
	in := bufio.NewReaderSize(out, 1<<20)
	for range lines {
		if _, err := in.ReadSlice('\n'); err != nil {
			t.Error(err)
			break
		}
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
}
