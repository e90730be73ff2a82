// SPDX-License-Identifier: EPL-2.0

// Tests of what keeps the daemon from starting, and of how it tells the
// administrator.

package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// wantFatal checks that the child ended by a single fatal error, and that the
// log names all these things that are wrong.
func wantFatal(t *testing.T, m *postfixtest.Master, err error, names ...string) {
	t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the daemon ended with %v, want exit status 1", err)
	}
	if err := m.DrainLog(); err != nil {
		t.Fatal(err)
	}
	var fatal []string
	for _, line := range m.Log() {
		if strings.Contains(line, "]: fatal: ") && !strings.HasPrefix(line, "stderr: ") {
			fatal = append(fatal, line)
		}
	}
	if len(fatal) != 1 {
		t.Fatalf("want one fatal error in %q", m.Log())
	}
	if head := " test postfix/scache["; !strings.Contains(fatal[0], head) {
		t.Errorf("logged %q, without %q", fatal[0], head)
	}
	for _, name := range names {
		if !strings.Contains(fatal[0], name) {
			t.Errorf("logged %q, which does not name %q", fatal[0], name)
		}
	}
}

func TestFatal_options(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	usual := []string{"-l", "-n", "scache", "-t", "unix"}
	with := func(options ...string) []string { return slices.Concat(usual, options) }
	for name, test := range map[string]struct {
		options []string
		names   []string
	}{
		"no -l":                       {usual[1:], []string{"process limit of 1"}},
		"no -t":                       {usual[:3], []string{"transport", "-t"}},
		"no option at all":            {nil, []string{"process limit of 1"}},
		"an argument":                 {with("surplus"), []string{"surplus"}},
		"an argument before options":  {append([]string{"surplus"}, usual...), []string{"surplus"}},
		"an unknown option":           {with("-Z"), []string{"-Z"}},
		"an unknown long option":      {with("--nonsense"), []string{"--nonsense"}},
		"an option without its value": {with("-o"), []string{"-o"}},
		"-o without =":                {with("-o", "max_idle"), []string{"-o", "max_idle", "="}},
		"-o without a name":           {with("-o", "=1"), []string{"-o", "=1"}},
		"-o with a space in the name": {with("-o", "max idle = 1"), []string{"-o", "max idle = 1"}},
		"-o in braces, without =":     {with("-o", "{ max_idle }"), []string{"-o", "max_idle", "="}},
		"bad -i":                      {with("-i", "1x"), []string{"max_idle", "1x"}},
		"zero -i":                     {with("-i", "0"), []string{"max_idle", "0"}},
		"bad -s":                      {with("-s", "many"), []string{"-s", "many"}},
		"zero -s":                     {with("-s", "0"), []string{"sockets", "0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, "")
			m.Args = test.options
			start(t, m)
			wantFatal(t, m, m.Wait(), test.names...)
		})
	}
}

func TestFatal_settings(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for settings, names := range map[string][]string{
		"connection_cache_ttl_limit = 2x":             {"connection_cache_ttl_limit", "2x", "line 5"},
		"connection_cache_ttl_limit = 0":              {"connection_cache_ttl_limit", `"0"`},
		"connection_cache_status_update_time = -1":    {"connection_cache_status_update_time", "-1"},
		"connection_cache_status_update_time = 0s":    {"connection_cache_status_update_time", "0s"},
		"max_idle = soon":                             {"max_idle", "soon"},
		"max_idle =":                                  {"max_idle", `""`},
		"ipc_timeout = 1.5":                           {"ipc_timeout", "1.5"},
		"daemon_timeout = 99999999999":                {"daemon_timeout", "99999999999"},
		"daemon_timeout = 4000w":                      {"daemon_timeout", "4000w"},
		"connection_cache_announce_protocol = maybe":  {"connection_cache_announce_protocol", "maybe"},
		"maillog_file =\nsyslog_facility = nonsense":  {"syslog_facility", "nonsense"},
		"maillog_file = /srv/mail.log":                {"/srv/mail.log", "maillog_file_prefixes"},
		"maillog_file_prefixes = /srv, /home":         {"maillog_file", "/var/log/test", "/srv, /home"},
		"max_idle = ${unbalanced":                     {"max_idle", "${unbalanced"},
		"syslog_name = a$(b":                          {"syslog_name", "$(b"},
		"x = ${y\ny = 1\nmail_name = $x\nmax_idle=$x": {"max_idle", "${y"},
		"max_idle = $max_idle":                        {"max_idle", "nesting"},
		"no equals sign":                              {"main.cf, line 5", "no equals sign"},
		"queue_directory = /nonexistent":              {"/nonexistent"},

		"connection_cache_receivers = {a, 192.0.2.1, conections=1}": {
			"connection_cache_receivers", "{ a, 192.0.2.1, conections=1 }", `"conections=1"`,
			"want one of connections", "main.cf, line"},
		"connection_cache_receiver_waiters = x": {"connection_cache_receiver_waiters", "x"},
	} {
		t.Run(settings, func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, settings)
			start(t, m)
			wantFatal(t, m, m.Wait(), names...)
		})
	}
}

func TestFatal_environment(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	empty := t.TempDir()
	for setting, names := range map[string][]string{
		"MAIL_CONFIG=" + empty:          {empty + "/main.cf"},
		"MAIL_CONFIG=" + empty + "/not": {empty + "/not/main.cf"},
		"GENERATION=":                   {"GENERATION"},
		"GENERATION=8":                  {"GENERATION", "8"}, // is not octal
		"GENERATION=-1":                 {"GENERATION", "-1"},
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, "")
			m.Env = append(m.Env, setting)
			start(t, m)
			wantFatal(t, m, m.Wait(), names...)
		})
	}
	t.Run("no GENERATION", func(t *testing.T) {
		t.Parallel()
		m := newMaster(t, "")
		m.Env = slices.DeleteFunc(m.Env, func(s string) bool {
			return strings.HasPrefix(s, "GENERATION=")
		})
		start(t, m)
		wantFatal(t, m, m.Wait(), "GENERATION")
	})
}

func TestFatal_mailOwner(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	postfixtest.NeedPostfix(t)
	m := newMaster(t, "mail_owner = no-such-user", "-u")
	start(t, m)
	wantFatal(t, m, m.Wait(), "mail_owner", "no-such-user")
}

// TestFatal_terminal starts the daemon as a person does who has found the
// program: by hand.
func TestFatal_terminal(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "")
	m.Cmd = postfixtest.Command(binary, m.Args...)
	m.Cmd.Env = m.Env
	m.Cmd.Stdin = openTerminal(t)
	err := m.Cmd.Run()
	wantFatal(t, m, err, "by hand", "master.cf", "--listen")
	m.Cmd = nil // it has ended, and need not be waited for
}

func openTerminal(t *testing.T) *os.File {
	t.Helper()
	ptmx, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("SKIPPED: no terminals: %v", err)
	}
	t.Cleanup(func() { unix.Close(ptmx) })
	if err := unix.IoctlSetPointerInt(ptmx, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.IoctlRetInt(ptmx, unix.TIOCGPTPEER)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "terminal")
	t.Cleanup(func() { f.Close() })
	return f
}

// TestOptions_override looks at the name in the log to see what the daemon has read.
func TestOptions_override(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const main = "syslog_name = main"
	for name, test := range map[string]struct {
		settings string
		options  []string
		tag      string
	}{
		"default":          {"", nil, "postfix"},
		"main.cf":          {main, nil, "main"},
		"name=value":       {main, []string{"-o", "syslog_name=other"}, "other"},
		"name = value":     {main, []string{"-o", "syslog_name = other"}, "other"},
		"{ name = value }": {main, []string{"-o", "{ syslog_name = other }"}, "other"},
		"{name=value}":     {main, []string{"-o", "{syslog_name=other}"}, "other"},
		"in one word":      {main, []string{"-osyslog_name=other"}, "other"},
		"with a reference": {main + "\nx = X",
			[]string{"-o", "syslog_name=$x/${y?{Y}:{Z}}"}, "X/Z"},
		"a name that main.cf refers to": {"syslog_name = $x", []string{"-o", "x=X"}, "X"},
		"a value with =":                {"", []string{"-o", "syslog_name=a=b"}, "a=b"},
		"the name of the service": {"syslog_name = $service_name-$process_name",
			[]string{"-n", "other"}, "other-scache"},
		"not the name of the process": {"syslog_name = $process_name",
			[]string{"-o", "process_name=x"}, "scache"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, test.settings, test.options...)
			c := startWithClient(t, m)
			wantAnswer(t, c)
			if err := m.HangUp(); err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
			m.DrainLog()
			lines := m.Log()
			if len(lines) == 0 || !strings.Contains(lines[0], " test "+test.tag+"/scache[") {
				t.Errorf("logged %q, want tag %s/scache", lines, test.tag)
			}
		})
	}
}

// TestCrash_isLogged has a process that the runtime ends, as it does when it cannot go on.
func TestCrash_isLogged(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	data, err := os.MkdirTemp("", "data") // mail_owner must reach it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(data)
	if err := os.Chmod(data, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(data, "scache-scache.crash")
	for _, options := range [][]string{nil, {"-c", "-u"}} {
		os.Remove(link)
		m := newMaster(t, "data_directory="+data, options...)
		startWithClient(t, m)
		m.Cmd.Process.Signal(unix.SIGABRT)
		if err := m.Wait(); err == nil {
			t.Fatal("it has ended without an error")
		}
		startWithClient(t, m)
		if !m.WaitForText("warning: the previous process has crashed: SIGABRT: abort") {
			t.Errorf("%q: the next process has not logged it", options)
		}
		if text, err := os.ReadFile(link); err != nil || len(text) > 0 {
			t.Errorf("%q: got %q, %v, want an empty file", options, text, err)
		}
	}
	// Nothing is written to a file that a link leads to.
	other := filepath.Join(t.TempDir(), "other")
	err = errors.Join(os.Remove(link), os.WriteFile(other, []byte("x"), 0o600),
		os.Symlink(other, link))
	if err != nil {
		t.Fatal(err)
	}
	startWithClient(t, newMaster(t, "data_directory="+data))
	if text, err := os.ReadFile(other); string(text) != "x" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
}
