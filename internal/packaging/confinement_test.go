// SPDX-License-Identifier: EPL-2.0

package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"scache/internal/client"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// TestAppArmor_compiles has the parser read the profile.
func TestAppArmor_compiles(t *testing.T) {
	t.Parallel()
	need(t, "apparmor_parser")
	run(t, exec.Command("apparmor_parser",
		"--skip-kernel-load", "--skip-cache", "--skip-read-cache", "apparmor/scache-go"))
}

// TestAppArmor_allowsWhatTheServerDoes traces the server in a private Postfix, with mail, a
// reload and a restart, and looks each access to a file up in the profile. It says nothing
// about rules that are not for files; TestAppArmor_enforced does.
func TestAppArmor_allowsWhatTheServerDoes(t *testing.T) {
	t.Parallel()
	need(t, "strace")
	postfixtest.NeedPostfix(t)
	dir, err := os.MkdirTemp("", "scache-trace-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	server := build(t)
	script := fmt.Sprintf(`#!/bin/sh
exec strace -f -s 300 -o %s/trace.$$ -e trace=open,openat,execve,connect %s "$@"
`, dir, server)
	wrapper := filepath.Join(dir, "wrapper")
	if err := testenv.WriteProgram(wrapper, script); err != nil {
		t.Fatal(err)
	}
	i := startPostfix(t, wrapper, map[string]string{"postlog_service_name": "postlog"})
	deliver(t, i, 20)
	if err := i.Command("reload"); err != nil {
		t.Fatal(err)
	}
	i.await(t, "takeover: ") // a restart of the old process would be the same handover
	deliver(t, i, 20)
	i.ask(t, (*client.Client).Restart)
	i.awaitTimes(t, "takeover: ", 2)
	deliver(t, i, 20)

	traces, err := filepath.Glob(dir + "/trace.*")
	if len(traces) < 3 || err != nil {
		t.Fatalf("got %d processes, want 3 or more: %v", len(traces), err)
	}
	rules := appArmorRules(t)
	standard := strings.NewReplacer(
		i.Dir+"/queue/", "/var/spool/postfix/", i.Dir+"/queue", "/var/spool/postfix/",
		i.Dir+"/etc/", "/etc/postfix/", i.Dir+"/data/", "/var/lib/postfix/",
		server, "/usr/libexec/scache-go/scache",
	)
	seen := map[access]bool{}
	for _, trace := range traces {
		for _, a := range accesses(readFile(t, trace)) {
			a.path = standard.Replace(a.path)
			seen[a] = true
		}
	}
	for a := range seen {
		if !rules.allow(a) {
			t.Errorf("apparmor/scache-go: no rule allows %s of %s", a.mode, a.path)
		}
	}
	for _, want := range []access{
		{"/etc/postfix/main.cf", "r"},
		{"/var/spool/postfix/private/scache", "rw"},
		{"/usr/sbin/postconf", "x"},
	} {
		if !seen[want] {
			t.Errorf("the trace has no %s of %s: %v", want.mode, want.path, seen)
		}
	}
}

// TestAppArmor_rejectsWhatNoRuleAllows tests the test above.
func TestAppArmor_rejectsWhatNoRuleAllows(t *testing.T) {
	t.Parallel()
	rules := appArmorRules(t)
	for _, a := range []access{
		{"/etc/shadow", "r"}, {"/etc/postfix/main.cf", "w"},
		{"/bin/sh", "x"}, {"/var/spool/postfix/active/1", "r"},
	} {
		if rules.allow(a) {
			t.Errorf("%s of %s is allowed", a.mode, a.path)
		}
	}
}

// TestAppArmor_enforced runs the server confined, where the kernel has AppArmor.
func TestAppArmor_enforced(t *testing.T) {
	t.Parallel()
	need(t, "apparmor_parser")
	postfixtest.NeedPostfix(t)
	on, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if strings.TrimSpace(string(on)) != "Y" {
		t.Skip("the kernel has no AppArmor")
	}
	i := startPostfix(t, build(t), nil)
	name := filepath.Base(i.Dir)
	profile := strings.NewReplacer(
		"profile scache-go ", "profile "+name+" ",
		"peer=scache-go", "peer="+name, "label=scache-go", "label="+name,
		"/usr/libexec/scache-go/scache", i.Dir+"/libexec/scache-go/scache",
		"/etc/postfix/", i.Dir+"/etc/", "/var/spool/postfix*/", i.Dir+"/queue/",
		"/var/lib/postfix*/", i.Dir+"/data/",
	).Replace(readFile(t, "apparmor/scache-go"))
	file := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(file, []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, exec.Command("apparmor_parser", "--replace", "--skip-cache", file))
	t.Cleanup(func() { run(t, exec.Command("apparmor_parser", "--remove", file)) })
	deliver(t, i, 20)
	if err := i.Command("reload"); err != nil {
		t.Fatal(err)
	}
	deliver(t, i, 20)
	i.await(t, "takeover: ")
	i.ask(t, func(c *client.Client) error {
		status, err := c.Status()
		if err != nil {
			return err
		}
		label, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", status.PID))
		if got, want := strings.TrimSpace(string(label)), name+" (enforce)"; got != want || err != nil {
			t.Errorf("label of the server: got %s, %v; want %s", got, err, want)
		}
		return nil
	})
	for _, problem := range []string{"warning: ", "error: ", "fatal: "} {
		if lines := i.Grep("/scache[", problem); len(lines) > 0 {
			t.Errorf("confined, the server logs: %s", strings.Join(lines, "\n"))
		}
	}
}

// An access is to a file: r, w, rw, or x.
type access struct{ path, mode string }

var (
	opened    = regexp.MustCompile(`^open(?:at)?\((?:AT_FDCWD, )?"([^"]+)", ([A-Z_|]+)`)
	executed  = regexp.MustCompile(`^execve\("([^"]+)"`)
	connected = regexp.MustCompile(`^connect\(\d+, \{sa_family=AF_UNIX, sun_path="([^"]+)"`)
	inQueue   = regexp.MustCompile(`^/?(?:private|public)/`) // in the jail, or relative
	traced    = regexp.MustCompile(`(?m)^(\d+) +(.*)$`)
)

// accesses returns those of the server in a trace. Its children have profiles of their own.
func accesses(trace string) (all []access) {
	children := map[string]bool{}
	first := true
	for _, m := range traced.FindAllStringSubmatch(trace, -1) {
		pid, call := m[1], m[2]
		if children[pid] || strings.HasSuffix(call, "ENOENT (No such file or directory)") {
			continue
		}
		if m := executed.FindStringSubmatch(call); m != nil {
			if children[pid] = !first; !first {
				all = append(all, access{m[1], "x"})
			}
			first = false
		}
		if m := connected.FindStringSubmatch(call); m != nil {
			path := m[1]
			if inQueue.MatchString(path) {
				path = "/var/spool/postfix/" + strings.TrimPrefix(path, "/")
			}
			all = append(all, access{path, "rw"})
		}
		if m := opened.FindStringSubmatch(call); m != nil {
			mode := "r"
			if strings.HasPrefix(m[2], "O_WRONLY") {
				mode = "w"
			} else if strings.HasPrefix(m[2], "O_RDWR") {
				mode = "rw"
			}
			all = append(all, access{m[1], mode})
		}
	}
	return all
}

// fileRules are rules of a profile: patterns with permissions.
type fileRules []struct {
	path  *regexp.Regexp
	modes string
}

var fileRule = regexp.MustCompile(`(?m)^  ((?:/|@\{PROC\})\S+) ([a-zA-Z]+)(?: -> \w+)?,$`)

// appArmorRules returns the file rules of our profile, without those of profiles in it.
func appArmorRules(t *testing.T) (rules fileRules) {
	t.Helper()
	globs := strings.NewReplacer(
		"@{PROC}", "/proc", "@{pid}", `(?:\d+|self)`,
		"**", ".*", "*", "[^/]*", "{", "(?:", "}", ")", ",", "|", ".", `\.`,
	)
	for _, m := range fileRule.FindAllStringSubmatch(readFile(t, "apparmor/scache-go"), -1) {
		path := regexp.MustCompile("^" + globs.Replace(m[1]) + "$")
		rules = append(rules, struct {
			path  *regexp.Regexp
			modes string
		}{path, strings.ReplaceAll(m[2], "Cx", "x")})
	}
	if len(rules) < 15 {
		t.Fatalf("found %d rules only", len(rules))
	}
	return rules
}

// allow reports whether the rules allow an access.
func (rules fileRules) allow(a access) bool {
	for _, mode := range a.mode {
		allowed := false
		for _, r := range rules {
			if strings.ContainsRune(r.modes, mode) && r.path.MatchString(a.path) {
				allowed = true
			}
		}
		if !allowed {
			return false
		}
	}
	return true
}

// TestSELinux_module builds the module, links it with Debian's policy, and asks what the
// server may do with and without it.
func TestSELinux_module(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for _, tool := range []string{
		"checkmodule", "semodule_package", "semodule_link", "semodule_expand", "semodule_unpackage",
		"sesearch",
	} {
		need(t, tool)
	}
	out, err := exec.Command("../../.ci/selinux-policy").CombinedOutput()
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("SKIPPED: this test needs the policy of Debian: %v\n%s", err, out)
	} else if err != nil {
		t.Fatalf("no policy: %v\n%s", err, out)
	}
	modules := strings.TrimSpace(string(out))
	dir := t.TempDir()
	module := dir + "/scache-go.pp"
	compiled := dir + "/scache-go.mod"
	run(t, exec.Command("checkmodule", "-M", "-m", "-c", "17", "-o", compiled, "selinux/scache-go.te"))
	const labels = "selinux/scache-go.fc"
	run(t, exec.Command("semodule_package", "-o", module, "-m", compiled, "-f", labels))

	link := func(name string, more ...string) string {
		args := []string{"-o", dir + "/" + name + ".pp"}
		for _, m := range []string{"base", "postfix", "mta", "hostname"} { // those that the second needs
			args = append(args, modules+"/"+m+".pp")
		}
		run(t, exec.Command("semodule_link", append(args, more...)...))
		run(t, exec.Command("semodule_expand", dir+"/"+name+".pp", dir+"/"+name))
		return dir + "/" + name
	}
	before, after := link("before"), link("after", module)
	const domain = "postfix_smtp_t"
	for _, tt := range []struct{ target, class, permissions string }{
		{"postfix_master_t", "unix_stream_socket", "connectto accept read write"}, // its own socket
		{"postfix_private_t", "sock_file", "write"},
		{"tmpfs_t", "file", "read write"}, // a memory file
		{domain, "netlink_tcpdiag_socket", "create read write nlmsg_read"},
		{"bin_t", "file", "execute execute_no_trans"},   // postconf, getent
		{"postfix_data_t", "file", "create read write"}, // what a crash leaves
		{"cgroup_t", "file", "read"},                    // limits of memory
		{domain, "process", "getsched"},
		{domain, "capability", "setuid setgid sys_chroot"},
		{domain, "tcp_socket", "read write"},
	} {
		search := exec.Command("sesearch", "-A", "-s", domain, "-t", tt.target, "-c", tt.class, after)
		got := run(t, search)
		for _, permission := range strings.Fields(tt.permissions) {
			if !regexp.MustCompile(`[ {]` + permission + `[ ;]`).MatchString(got) {
				t.Errorf("not allowed: %s %s:%s %s", domain, tt.target, tt.class, permission)
			}
		}
	}
	// Without the module this is denied, which shows that it is asked rightly.
	search := exec.Command("sesearch", "-A", "-s", domain, "-c", "netlink_tcpdiag_socket", before)
	if got := run(t, search); got != "" {
		t.Errorf("without the module: got %q, want nothing", got)
	}

	// The label is that of the server which comes with Postfix.
	run(t, exec.Command("semodule_unpackage", dir+"/after.pp", dir+"/mod", dir+"/fc"))
	known := map[string]string{}
	for _, line := range strings.Split(readFile(t, dir+"/fc"), "\n") {
		if f := strings.Fields(line); len(f) == 3 {
			known[f[0]] = f[2]
		}
	}
	stock, ours := known["/usr/libexec/postfix/scache"], known["/usr/libexec/scache-go/scache"]
	if ours == "" || ours != stock {
		t.Errorf("label: got %q, want that of the stock server, %q", ours, stock)
	}
}
