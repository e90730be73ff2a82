// SPDX-License-Identifier: EPL-2.0

package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/postfix"
)

// TestDoctor_agents has delivery agents with parameters of their own.
func TestDoctor_agents(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	plainMain, plainMaster := s.read("main.cf"), s.masterCF()
	for name, test := range map[string]struct {
		main, master string
		remove       string // from master.cf
		healthy      bool
		want         []string
	}{
		"option of a transport": {
			master: "bulk unix - - n - - smtp -o smtp_connection_cache_on_demand=no " +
				"-o { smtp_connection_cache_destinations = }\n",
			healthy: true,
			want: []string{
				"note +agents +bulk: caches no connection: smtp_connection_cache_on_demand is no",
				"ok +agents +smtp, relay: always caches connections to 127.0.0.1",
			},
		},
		"lmtp": {
			main: "lmtp_connection_cache_on_demand = no\n", healthy: true,
			want: []string{
				"note +agents +lmtp: caches no connection: lmtp_connection_cache_on_demand is no",
			},
		},
		"a command by path": {
			master:  "x unix - - n - - ./lmtp -o lmtp_connection_cache_destinations=static:all\n",
			healthy: true,
			want:    []string{"ok +agents +x: always caches connections to static:all"},
		},
		"TLS without reuse": {
			main: "smtp_tls_security_level = may\n", healthy: true,
			want: []string{`note +agents +smtp, relay: caches no connection over TLS \(level: may\): ` +
				"smtp_tls_connection_reuse is no"},
		},
		"TLS as before 2.3": {
			main: "smtp_use_tls = YES\n", healthy: true,
			want: []string{`note +agents +smtp, relay: caches no connection over TLS \(level: may\)`},
		},
		"TLS by policy": {
			main: "smtp_tls_policy_maps = static:encrypt\n", healthy: true,
			want: []string{`note +agents +smtp, relay: caches no connection over TLS ` +
				`\(level: by smtp_tls_policy_maps\)`},
		},
		"TLS of one transport": {
			master: "secure unix - - n - - smtp -o smtp_tls_security_level=encrypt\n", healthy: true,
			want: []string{`note +agents +secure: caches no connection over TLS \(level: encrypt\)`},
		},
		"reuse without tlsproxy": {
			main:   "smtp_tls_security_level = may\nsmtp_tls_connection_reuse = yes\n",
			remove: "tlsproxy unix - - y - 0 tlsproxy\n",
			want: []string{
				"problem +agents +smtp, relay: all mail over TLS is deferred: .*no entry tlsproxy unix",
			},
		},
		"reuse with tlsproxy": {
			main: "smtp_tls_security_level = may\nsmtp_tls_connection_reuse = yes\n", healthy: true,
			want: []string{"ok +agents +smtp, relay: always"},
		},
		"ttl limit alone": {
			main: "smtp_connection_cache_time_limit = 2s\n", healthy: true,
			want: []string{"note +agents +smtp, relay: connection_cache_ttl_limit is 1h0m0s, " +
				"which has no effect: smtp_connection_cache_time_limit is 2s"},
		},
		"time limit alone": {
			master: "slow unix - - n - - lmtp -o lmtp_connection_cache_time_limit=2h\n", healthy: true,
			want: []string{"note +agents +slow: lmtp_connection_cache_time_limit is 2h, " +
				"but connection_cache_ttl_limit is 1h0m0s"},
		},
		"Postfix 2.2": {
			main: "smtp_connection_cache_reuse_limit = 10\n",
			want: []string{"problem +names +smtp_connection_cache_reuse_limit is set, " +
				"which this version of Postfix does not know"},
		},
		"a bad option": {
			master: "x unix - - n - - smtp -o nonsense\n",
			want:   []string{"problem +agents .*line 19: .*nonsense"},
		},
	} {
		s.write("main.cf", plainMain+test.main)
		s.write("master.cf", strings.Replace(plainMaster, test.remove, "", 1)+test.master)
		t.Log(name)
		s.doctor(test.healthy, test.want...)
	}
	s.write("main.cf", plainMain)
	noAgents := strings.NewReplacer(" smtp\n", " pipe\n", " lmtp\n", " pipe\n")
	s.write("master.cf", noAgents.Replace(plainMaster))
	s.edit("master.cf", "- - smtp -o syslog_name", "- - pipe -o syslog_name")
	s.doctor(true, "note +agents +no service")
}

// TestDoctor_logIsNoFile must not wait for a reader or writer, nor read its own output.
func TestDoctor_logIsNoFile(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	if err := unix.Mkfifo(s.Dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/dev/stdout", s.Dir + "/fifo"} {
		s.configure(map[string]string{"maillog_file": file, "maillog_file_prefixes": "/dev, /tmp"})
		start := time.Now()
		s.doctor(true, "note +log .*cannot be read: "+file+": not a regular file")
		t.Logf("%s: %v", file, time.Since(start))
	}
}

// TestDoctor_log sees the lines of this instance only, and behind those that are odd.
func TestDoctor_log(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	const ours = "Nov 05 10:00:00 h postfix/scache[1]: "
	odd := "Nov 05 10:00:00 h other/scache[1]: fatal: not ours\n\x00\x00" +
		strings.Repeat("x", 100_000) + "\n"
	log := s.Dir + "/maillog"
	appendTo(t, log, odd)
	s.doctor(true, "ok +log .*no fatal error")
	appendTo(t, log+".1", ours+"fatal: ours, rotated\n")
	s.doctor(false, "problem +log .*fatal: ours, rotated")
	appendTo(t, log, odd+ours+"panic: ours\n"+ours+"panic: at main.main (main.go:1)\n"+odd)
	s.doctor(false, "problem +log .*panic: ours")
}

// TestDoctor_limits has a master(8) with limits that are too low.
func TestDoctor_limits(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	s.doctor(true, "ok +limits +the limits of master")
	system, err := postfix.Open(s.etc)
	if err != nil {
		t.Fatal(err)
	}
	pid, running := system.MasterPID()
	if !running {
		t.Fatal("master(8) does not run")
	}
	for _, test := range []struct {
		resource int
		value    uint64
		want     string
	}{
		{unix.RLIMIT_NPROC, 7,
			`problem +limits .*"Max processes" of master\(8\) is 7, .* needs 20`},
		{unix.RLIMIT_AS, 500 << 20,
			`problem +limits .*"Max address space" of master\(8\) is 500 MB, .* needs 1024 MB`},
		{unix.RLIMIT_DATA, 100 << 20,
			`problem +limits .*"Max data size" of master\(8\) is 100 MB`},
		{unix.RLIMIT_FSIZE, 1 << 20,
			`note +limits .*"Max file size" of master\(8\) is 1 MB`},
		{unix.RLIMIT_CPU, 1000,
			`note +limits .*"Max cpu time" of master\(8\) is 1000 s, .* needs unlimited`},
		{unix.RLIMIT_NOFILE, 20,
			`problem +limits .*"Max open files" of master\(8\) is 20, .* needs 64`},
	} {
		var former unix.Rlimit
		if err := unix.Prlimit(pid, test.resource, nil, &former); err != nil {
			t.Fatal(err)
		}
		lower := unix.Rlimit{Cur: test.value, Max: former.Max}
		if test.resource == unix.RLIMIT_NOFILE {
			lower.Max = test.value // which only a privileged process could raise again: it is the last one
		}
		if err := unix.Prlimit(pid, test.resource, &lower, nil); err != nil {
			t.Fatal(err)
		}
		s.doctor(!strings.HasPrefix(test.want, "problem"), test.want)
		if lower.Max < former.Max {
			break
		}
		if err := unix.Prlimit(pid, test.resource, &former, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDescriptorError tells a limit that is reached from a denial by the kernel.
func TestDescriptorError(t *testing.T) {
	t.Parallel()
	cmd := startSleep(t)
	pid := cmd.Process.Pid
	if got := descriptorError("x", pid).Error(); !strings.Contains(got, "mandatory access control") {
		t.Errorf("got %s", got)
	}
	err := unix.Prlimit(pid, syscall.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: 1000}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := descriptorError("x", pid).Error()
	if !strings.Contains(got, "the limit is 3") || strings.Contains(got, "mandatory") {
		t.Errorf("got %s", got)
	}
}
