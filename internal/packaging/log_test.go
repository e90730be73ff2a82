// SPDX-License-Identifier: EPL-2.0

package packaging

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"scache/internal/client"
	"scache/internal/postfixtest"
)

// realLog returns the lines that the server logs in a private Postfix: while mail is
// delivered, at a reload, a flush and a restart, and when a client sends nonsense.
func realLog(t *testing.T) (lines []string) {
	t.Helper()
	postfixtest.NeedPostfix(t)
	settings := map[string]string{"connection_cache_status_update_time": "1s"}
	i := startPostfix(t, build(t), settings)
	deliver(t, i, 20)
	i.await(t, "statistics: domain lookup hits=")
	if err := i.Command("reload"); err != nil {
		t.Fatal(err)
	}
	i.ask(t, func(c *client.Client) error { _, err := c.FlushAll(); return err })
	i.ask(t, (*client.Client).Restart)
	// The next request is made to wait for the answer to the first.
	i.ask(t, func(c *client.Client) error {
		if _, err := c.Conn.Write([]byte("request\x00nonsense\x00\x00")); err != nil {
			return err
		}
		c.FindDestination("x")
		return nil
	})
	for _, text := range []string{"flush: ", "restart: ", "takeover: ", "warning: unrecognized"} {
		i.await(t, text)
	}
	for _, line := range i.Log() {
		if strings.Contains(line, "/scache[") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestLogRules_realLines runs the tools that the rules are for over a real log.
func TestLogRules_realLines(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"logcheck", "grok", "mtail", "setpriv"} {
		need(t, tool)
	}
	lines := realLog(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "mail.log")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}

	t.Run("logcheck", func(t *testing.T) {
		reported := logcheck(t, file)
		for _, line := range lines {
			isReported := strings.Contains(reported, line)
			if want := strings.Contains(line, "warning: "); isReported != want {
				t.Errorf("reported: got %v, want %v: %s", isReported, want, line)
			}
		}
	})
	t.Run("grok", func(t *testing.T) {
		texts := make([]string, len(lines))
		for i, line := range lines {
			_, texts[i], _ = strings.Cut(line, "]: ")
		}
		found := grok(t, texts)
		for _, name := range []string{
			"scache_interval_start", "scache_hits", "scache_connections",
			"scache_lost", "scache_bindings", "scache_problem",
		} {
			if !found[name] {
				t.Errorf("no line has the field %s:\n%s", name, strings.Join(texts, "\n"))
			}
		}
	})
	t.Run("mtail", func(t *testing.T) {
		out := mtail(t, file)
		const name = `postfix_instance="postfix",prog="scache.mtail"`
		for _, want := range []string{
			`scache_log_lookups_total{level="domain",` + name + `,result="hit"} [1-9]`,
			`scache_log_sessions_peak{` + name + `} [1-9]`,
			`scache_log_takeovers_total{` + name + `} [1-9]`,
			`scache_log_takeover_lost_total{` + name + `} 0`,
			`scache_log_problems_total{` + name + `,severity="warning"} 1`,
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("got no %s:\n%s", want, out)
			}
		}
	})
}

// TestLogRules_eachLineOfTheSource makes an example of each format that the source of the
// server logs: of those without a level, logcheck reports none. grok has a pattern for each, and
// mtail counts those with a level.
func TestLogRules_eachLineOfTheSource(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"logcheck", "grok", "mtail", "setpriv"} {
		need(t, tool)
	}
	var lines, want []string
	for level, formats := range logFormats(t) {
		for _, format := range formats {
			const tag = "2026-11-05T17:54:00.123456+00:00 host postfix-out/scache[4435]: "
			line := tag + level + example(format)
			lines = append(lines, line)
			if level != "" {
				want = append(want, line)
			}
		}
	}
	lost := "Nov  5 17:54:00 host postfix/scache[1]: takeover: sessions=1 bindings=1 clients=1 lost=1"
	lines, want = append(lines, lost), append(want, lost)
	file := filepath.Join(t.TempDir(), "mail.log")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	texts := make([]string, len(lines))
	for i, line := range lines {
		_, texts[i], _ = strings.Cut(line, "]: ")
	}
	grok(t, texts)
	// A handover that lost something is counted by itself.
	if got, want := problemsOfMtail(t, file), len(want)-1; got != want {
		t.Errorf("log/scache.mtail: got %d problems, want %d", got, want)
	}
	reported := logcheck(t, file)
	for _, line := range lines {
		if got, want := strings.Contains(reported, line), slices.Contains(want, line); got != want {
			t.Errorf("log/scache.logcheck: reported: got %v, want %v: %s", got, want, line)
		}
	}
}

// onRequest are lines that are logged only with an option that asks for them.
var onRequest = []string{"running: %s"}

// logFormats returns the formats of the server's log lines, by the level that comes first.
func logFormats(t *testing.T) map[string][]string {
	t.Helper()
	levels := map[string]string{
		"Info": "", "Warning": "warning: ", "WarningRarely": "warning: ", "LogFatal": "fatal: ",
	}
	found := map[string][]string{}
	dirs := []string{"../../cmd/scache", "../server", "../master", "../handover"}
	eachCall(t, dirs, func(_, name, format string) {
		if level, logs := levels[method(name)]; logs && !slices.Contains(onRequest, format) {
			found[level] = append(found[level], format)
		}
	})
	if len(found[""]) < 6 || len(found["warning: "]) < 10 {
		t.Fatalf("found too few lines: %q", found)
	}
	return found
}

var verb = regexp.MustCompile(`%[-+#.\d]*[a-z]`)

// example fills in a format.
func example(format string) string {
	format = strings.ReplaceAll(format, "start interval %s", "start interval Nov  5 17:39:27")
	format = strings.ReplaceAll(format, "lost=%d", "lost=0")
	format = strings.ReplaceAll(format, "statistics: %s", "statistics: domain")
	line := verb.ReplaceAllStringFunc(format, func(v string) string {
		if strings.HasSuffix(v, "d") {
			return "12"
		}
		return "text"
	})
	return strings.ReplaceAll(line, "%%", "%")
}

// mtail returns the metrics of a log.
func mtail(t *testing.T, file string) string {
	t.Helper()
	return run(t, exec.Command("mtail", "--log_dir", t.TempDir(), "--one_shot",
		"--one_shot_format=prometheus", "--progs", "log/scache.mtail", "--logs", file))
}

var problemMetric = regexp.MustCompile(`(?m)^scache_log_problems_total\{.*\} (\d+)$`)

// problemsOfMtail returns the number of lines that mtail has counted as problems.
func problemsOfMtail(t *testing.T, file string) (sum int) {
	t.Helper()
	for _, m := range problemMetric.FindAllStringSubmatch(mtail(t, file), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// logcheck returns the report of logcheck about a log, with our rules alone.
func logcheck(t *testing.T, file string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "scache-logcheck-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	log, rules := readFile(t, file), readFile(t, "log/scache.logcheck")
	for name, text := range map[string]string{
		"logcheck.conf": "", "log": log, "state/none": "",
		"rules/ignore.d.server/scache-go": rules, "rules/ignore.d.paranoid/none": "",
		"rules/cracking.d/none": "", "rules/violations.d/none": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// logcheck does not run as root.
	for path, mode := range map[string]os.FileMode{dir: 0o755, dir + "/state": 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--reuid", "logcheck", "--regid", "logcheck", "--clear-groups", "logcheck"}
	if os.Geteuid() != 0 {
		args = args[5:]
	}
	args = append(args, "-c", dir+"/logcheck.conf", "-o", "-t", "-s",
		"-r", dir+"/rules", "-S", dir+"/state", "-l", dir+"/log")
	cmd := exec.Command("setpriv", args...)
	cmd.Dir = "/"
	return run(t, cmd)
}

// grok returns the fields that the patterns find in texts, each of which must match a
// pattern for its kind.
func grok(t *testing.T, texts []string) (found map[string]bool) {
	t.Helper()
	dir := t.TempDir()
	patterns, err := filepath.Abs("log/scache.grok")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`program {
	load-patterns: "/usr/share/grok/patterns/base"
	load-patterns: %q
	exec "cat %s/texts" {}
	match { pattern: "%%{SCACHE}" reaction: "%%{@JSON}" }
	no-match { reaction: "no match: %%{@LINE}" }
}`, patterns, dir)
	files := map[string]string{"texts": strings.Join(texts, "\n") + "\n", "config": config}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := run(t, exec.Command("grok", "-f", dir+"/config"))
	matches := strings.Split(strings.TrimSpace(out), "\n")
	if len(matches) != len(texts) {
		t.Fatalf("got %d matches of %d lines:\n%s", len(matches), len(texts), out)
	}
	found = map[string]bool{}
	for _, match := range matches {
		var fields map[string]string
		if err := json.Unmarshal([]byte(match), &fields); err != nil {
			t.Fatalf("%v: %s", err, match)
		}
		for pattern, value := range fields {
			if _, name, ok := strings.Cut(pattern, ":"); ok && value != "" {
				found[name] = true
			}
		}
		if text := fields["GREEDYDATA:scache_text"]; text != "" && !strings.HasPrefix(text, "restart: ") {
			t.Errorf("no pattern is for %s", text)
		}
	}
	return found
}

// A mailSystem is a private Postfix with our server, and a receiver of mail.
type mailSystem struct{ *postfixtest.Instance }

// build builds the server as the packages have it, static, and returns its path.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "scache")
	cmd := exec.Command("go", "build", "-o", binary, "scache/cmd/scache")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(t, cmd)
	return binary
}

// startPostfix starts a private Postfix that caches all connections with a server.
func startPostfix(t *testing.T, server string, main map[string]string) mailSystem {
	t.Helper()
	sink, err := postfixtest.StartSink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	settings := map[string]string{
		"relayhost":                          fmt.Sprintf("[127.0.0.1]:%d", sink.Port),
		"smtp_connection_cache_destinations": "static:all",
	}
	for name, value := range main {
		settings[name] = value
	}
	i, err := postfixtest.NewInstance(postfixtest.Config{Scache: server, Chroot: "y", Main: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	return mailSystem{i}
}

// deliver sends messages and waits until they are delivered.
func deliver(t *testing.T, i mailSystem, messages int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	before, _ := i.Sent()
	if err := i.Send(ctx, messages, 5, "user@example.test"); err != nil {
		t.Fatal(err)
	}
	if err := i.WaitSent(ctx, before+messages); err != nil {
		t.Fatal(err)
	}
}

// ask asks the server.
func (i mailSystem) ask(t *testing.T, question func(*client.Client) error) {
	t.Helper()
	socket := filepath.Join(i.Dir, "queue/private/scache")
	if err := client.Ask(socket, 30*time.Second, question); err != nil {
		t.Fatal(err)
	}
}

// await waits until a line is in the log.
func (i mailSystem) await(t *testing.T, text string) {
	t.Helper()
	i.awaitTimes(t, text, 1)
}

func (i mailSystem) awaitTimes(t *testing.T, text string, times int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); len(i.Grep("/scache[", text)) < times; {
		if time.Now().After(end) {
			t.Fatalf("the log has no %q:\n%s", text, strings.Join(i.Log(), "\n"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// run runs a command, which must succeed, and returns what it prints.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
