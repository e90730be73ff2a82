// SPDX-License-Identifier: EPL-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"golang.org/x/sys/unix"

	"scache/internal/postfixtest"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	m := startServer(t, server)
	saveConnection(t, m.Socket)
	wantError(t, []string{"--socket", m.Socket, "debug", "find", "endpoint", "nothing"},
		"not found", "status 2")
	out := must(t, "--socket", m.Socket, "status")
	want(t, out, "scache test, pid ", " at "+m.Socket, "hit rate", "1 saved", "ttl limit 1h0m0s",
		"liveness check on")
	var fields map[string]any
	text := must(t, "--socket", m.Socket, "status", "--json")
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		t.Fatal(err)
	}
	if fields["ttl_limit_seconds"] != 3600.0 || fields["sessions"] != 1.0 ||
		fields["endpoint_misses"] != 1.0 || fields["version"] != "test" {
		t.Error(text)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	m := startServer(t, server)
	ctl := callerOf(t, m.Socket)
	remote := saveConnection(t, m.Socket)
	want(t, ctl("list"), "\nsmtp example.com  smtp 192.0.2.1  ",
		"\nsmtp 192.0.2.1         1  -         "+remote+"  ",
		"\n1 destinations, 1 bindings, 1 endpoints, 1 sessions\n")
	if strings.Contains(ctl("list"), "secret") {
		t.Error("properties are shown without being asked for")
	}
	want(t, ctl("list", "-v"), "  secret\\nfeature\\n\n", "  PROPERTY\n")
	var all struct{ Bindings, Sessions []map[string]any }
	if err := json.Unmarshal([]byte(ctl("list", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	if all.Sessions[0]["remote"] != remote || all.Sessions[0]["property"] != `secret\nfeature\n` ||
		all.Bindings[0]["destination"] != `smtp\nexample.com\n25\n` ||
		all.Bindings[0]["left_seconds"].(float64) < 2000 {
		t.Errorf("%v", all)
	}
	out := ctl("list", "--json", "unknown.example")
	if strings.Contains(out, "null") || !strings.Contains(out, `"sessions": []`) {
		t.Error(out)
	}
}

func TestListFiltersSortsAndCuts(t *testing.T) {
	t.Parallel()
	m := startServer(t, server)
	ctl := callerOf(t, m.Socket)
	remote := saveConnection(t, m.Socket)
	for i := range 9 {
		for range i + 1 {
			ctl("save", "endpoint", fmt.Sprintf(`smtp\n192.0.2.%d\n25\n0\n`, i+10), "--ttl", "1000")
		}
	}
	for _, text := range []string{
		"example.com", "EXAMPLE.com", `smtp\nexample.com\n25\n`, "192.0.2.1", remote,
	} {
		out := ctl("list", text)
		want(t, out, " 1 endpoints, 1 sessions\n", remote)
		if strings.Contains(out, "192.0.2.10") {
			t.Errorf("list %s shows others: %s", text, out)
		}
	}
	for _, text := range []string{"smtp", "25", "0", "com", "192.0.2", ""} {
		want(t, ctl("list", text), "\n0 destinations, 0 bindings, 0 endpoints, 0 sessions\n")
	}
	out := ctl("list", "--sort", "sessions", "--limit", "2")
	want(t, out, "\n… 8 more\n", "\n1 destinations, 1 bindings, 10 endpoints, 46 sessions\n")
	const cut = `(?m)^ENDPOINT.*\n.*192\.0\.2\.18.* 9 .*\n.*192\.0\.2\.17.* 8 .*\n… 8 more`
	if !regexp.MustCompile(cut).MatchString(out) {
		t.Error(out)
	}
	want(t, ctl("list", "-v", "--sort", "left", "--limit", "1"), remote, "\n… 45 more\n")
	wantError(t, []string{"--socket", m.Socket, "list", "--sort", "odd"}, "label, sessions, age, left")
	wantError(t, []string{"--socket", m.Socket, "list", `a\b`}, "bad label")
}

func TestFlush(t *testing.T) {
	t.Parallel()
	m := startServer(t, server)
	ctl := callerOf(t, m.Socket)
	for _, label := range []string{
		"example.com", `smtp\nexample.com\n25\n`, `smtp\nexample.com\n25`, "--all",
	} {
		saveConnection(t, m.Socket)
		const dry = "nothing was done; without --dry-run: "
		if got := ctl("flush", label, "--dry-run"); got != dry+"flushed 1 sessions and 1 bindings\n" {
			t.Errorf("flush %q: %s", label, got)
		}
		if got := ctl("flush", label); got != "flushed 1 sessions and 1 bindings\n" {
			t.Errorf("flush %q: %s", label, got)
		}
	}
	saveConnection(t, m.Socket)
	for _, text := range []string{"smtp", "25", "0", "192.0.2.99", ""} {
		wantError(t, []string{"--socket", m.Socket, "flush", text},
			"nothing is cached for", "scachectl list")
	}
	got := ctl("flush", "192.0.2.1", "--json")
	if !strings.Contains(got, `"sessions": 1`) || !strings.Contains(got, `"bindings": 0`) {
		t.Error(got)
	}
	want(t, ctl("status"), "5 saved", "5 flushed")
}

// TestStatus_readsMainCFOnce counts how often it is opened.
func TestStatus_readsMainCFOnce(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	must(t, "-c", s.etc, "enable")
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	must(t, "-c", s.etc, "status") // the server runs from now on, and has read main.cf
	_, err = unix.InotifyAddWatch(fd, filepath.Join(s.etc, "main.cf"),
		unix.IN_OPEN|unix.IN_CLOSE_NOWRITE)
	if err != nil {
		t.Fatal(err)
	}
	must(t, "-c", s.etc, "status")
	events := make([]byte, 100*unix.SizeofInotifyEvent)
	n, err := unix.Read(fd, events)
	if n /= unix.SizeofInotifyEvent; n != 2 || err != nil {
		t.Errorf("got %d events of main.cf, %v, want 2: it is opened and closed", n, err)
	}
}

// TestMetrics has them checked by the linter of promtool.
func TestMetrics(t *testing.T) {
	t.Parallel()
	m := startServer(t, server)
	saveConnection(t, m.Socket)
	out := must(t, "--socket", m.Socket, "metrics")
	problems, err := promlint.New(strings.NewReader(out)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	want(t, out, "} 1\n", `scache_up{postfix_instance="`+m.Socket+`"} 1`,
		`scache_sessions_saved_total{postfix_instance="`+m.Socket+`"} 1`, `result="miss"} 0`,
		`version="test"} 1`, "scache_session_wait_seconds_bucket")

	file := filepath.Join(t.TempDir(), "scache.prom")
	for range 2 { // a new one, and another in the place of one that only its owner can read
		must(t, "--socket", m.Socket, "metrics", "--output", file)
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o644 {
			t.Errorf("got %v, %v, want mode 0644", st, err)
		}
		os.Chmod(file, 0o600)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want(t, string(text), "\nscache_sessions{")
	if entries, _ := os.ReadDir(filepath.Dir(file)); len(entries) != 1 {
		t.Errorf("files are left: %v", entries)
	}
	wantError(t, []string{"--socket", m.Socket, "metrics", "--output", "/nonexistent/file"},
		"/nonexistent/")
	wantError(t, []string{"--socket", m.Socket, "metrics", "--output", "/dev/null"},
		"not a regular file")
	want(t, must(t, "--socket", m.Socket, "metrics", "--output", "-"), "\nscache_sessions{")
}

func TestStatus_againstStock(t *testing.T) {
	t.Parallel()
	m := startServer(t, postfixtest.NeedPostfix(t))
	for _, command := range []string{"status", "list", "flush --all"} {
		wantError(t, append([]string{"--socket", m.Socket}, strings.Fields(command)...),
			m.Socket, "stock scache", "scachectl enable")
	}
	want(t, must(t, "--socket", m.Socket, "metrics"), `scache_up{postfix_instance="`+m.Socket+`"} 0`)
	saveConnection(t, m.Socket)
	out := must(t, "--socket", m.Socket, "find", "destination", `smtp\nexample.com\n25\n`)
	want(t, out, "destination property: p\n", `endpoint property: secret\nfeature\n`+"\n",
		"descriptor: socket, inode ")
	wantError(t, []string{"--socket", m.Socket, "find", "destination", `smtp\nexample.com\n25\n`},
		"not found")
	wantError(t, []string{"--socket", m.Socket, "save", "endpoint", "x", "--ttl", "0"},
		"status 1", "malformed")
}

func TestSaveAndFind(t *testing.T) {
	t.Parallel()
	m := startServer(t, server)
	saveConnection(t, m.Socket)
	want(t, must(t, "--socket", m.Socket, "find", "endpoint", `smtp\n192.0.2.1\n25\n0\n`),
		`endpoint property: secret\nfeature\n`+"\n", "descriptor: socket, inode ")
	cmd := exec.Command(tool, "--socket", m.Socket, "save", "endpoint", "x", "--fd", "77")
	if _, errOut, ok := run(cmd); ok || !strings.Contains(errOut, "bad file descriptor") {
		t.Errorf("saved descriptor 77: %s", errOut)
	}
	wantError(t, []string{"--socket", m.Socket, "save", "destination", "x"}, "2 arg")
	wantError(t, []string{"--socket", m.Socket, "save", "endpoint", "x", "--ttl", "1y"}, "1y")
}

func TestStatus_errorsOfConnecting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wantError(t, []string{"--socket", filepath.Join(dir, "none"), "status"},
		dir+"/none", "no such socket")
	wantError(t, []string{"-c", dir, "status"}, dir+"/main.cf", "--socket", "-c")
	wantError(t, []string{"nonsense"}, `"nonsense"`)

	m := startServer(t, server)
	path := m.Socket
	m.Cmd.Process.Kill()
	m.Wait()
	conf := filepath.Dir(filepath.Dir(path)) // where the test master has its main.cf
	wantError(t, []string{"-c", conf, "--socket", filepath.Join(conf, "main.cf"), "status"},
		"main.cf", "connect")
}

// TestStrangersAreRefused is a user who may not ask.
func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	postfixtest.NeedPostfix(t) // for root, who can become another user
	m := startServer(t, server)
	cmd := exec.Command(tool, "--socket", m.Socket, "list")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	_, errOut, ok := run(cmd)
	if ok {
		t.Error("a stranger was answered")
	}
	want(t, errOut, "hung up", "only root")
	want(t, must(t, "--socket", m.Socket, "status"), "1 refused")
}

func TestConfig(t *testing.T) {
	t.Parallel()
	postfixtest.NeedPostfix(t)
	dir := t.TempDir()
	writeConfig := func(mainCF, masterCF string) {
		for name, text := range map[string]string{"main.cf": mainCF, "master.cf": masterCF} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			old := time.Now().Add(-time.Hour) // Postfix waits while a file is being edited
			os.Chtimes(filepath.Join(dir, name), old, old)
		}
	}
	entry := "scache unix - - n - 1 scache\n" +
		" -o ipc_timeout=7s -o { connection_cache_goodbye = see you }\n" +
		"other unix - - n - 1 scache -o max_idle=9s\n"
	writeConfig("a = 5\nconnection_cache_ttl_limit = ${a}s\n", entry)
	lines := map[string]string{}
	for line := range strings.Lines(must(t, "-c", dir, "config")) {
		f := strings.Fields(line)
		lines[f[0]] = strings.Join(f[1:], " ")
	}
	for name, want := range map[string]string{
		"connection_cache_ttl_limit": "5s " + dir + "/main.cf, line 2",
		"ipc_timeout":                "7s master.cf -o",
		"connection_cache_goodbye":   "see you master.cf -o",
		"max_idle":                   "100s default",
		"queue_directory":            "/var/spool/postfix default",
	} {
		if lines[name] != want {
			t.Errorf("%s: %q, want %q", name, lines[name], want)
		}
	}
	writeConfig("max_idle = soon\n", entry)
	wantError(t, []string{"-c", dir, "config"}, "max_idle", "soon", "main.cf, line 1")
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh"} {
		out := must(t, "completion", shell)
		cmd := exec.Command("bash", "-n")
		if shell == "zsh" {
			want(t, out, "#compdef scachectl")
			continue
		}
		cmd.Stdin = strings.NewReader(out)
		if _, errOut, ok := run(cmd); !ok {
			t.Errorf("%s: %s", shell, errOut)
		}
	}
	out, _, _ := ctl(t, "__complete", "fl")
	want(t, out, "flush")
}
