// SPDX-License-Identifier: EPL-2.0

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"scache/internal/postfix"
	"scache/internal/testenv"
)

// doctor runs it, and wants it to succeed or not.
func (s *fixture) doctor(healthy bool, patterns ...string) {
	s.t.Helper()
	out, errOut, ok := ctl(s.t, "-c", s.etc, "doctor")
	if ok != healthy {
		s.t.Errorf("doctor: %v\n%s%s", ok, out, errOut)
	}
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)^" + pattern).MatchString(out) {
			s.t.Errorf("no %q in:\n%s", pattern, out)
		}
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.doctor(true, "note +entry .*another server: scache$", "note +answer .*not running")
	s.start()
	s.doctor(true, "note +entry", "ok +configuration", "ok +socket", "ok +answer")
	must(t, "-c", s.etc, "enable")
	s.send()
	s.doctor(true, "ok +entry .*this server: "+postfix.OurName,
		"ok +configuration .*trial; the process limit is 1", "ok +names", "ok +agents .*127.0.0.1",
		"ok +versions .*scache test", "ok +socket .*for postfix only", "ok +answer", "ok +confinement",
		"ok +limits", "ok +rates", "ok +log .*maillog")
	var findings []finding
	err := json.Unmarshal([]byte(must(t, "-c", s.etc, "doctor", "--json")), &findings)
	if err != nil || len(findings) < 10 {
		t.Errorf("%v, %v", findings, err)
	}

	const update = "connection_cache_status_update_time = 1h"
	const few = "connection_cache_receivers = { few, 192.0.2.0/24, connections=2 }"
	s.edit("main.cf", update, few+"\n"+update)
	s.doctor(true, "note +receivers .*at most 4s for a connection .connection_cache_protocol_timeout")
	s.edit("main.cf", few, few+"\nconnection_cache_protocol_timeout = 1m")
	s.doctor(true, "ok +receivers ")
	s.edit("main.cf", "smtp_connection_cache_destinations = 127.0.0.1", "# nothing")
	s.doctor(true, "note +receivers .*smtp: the first messages .* do not ask "+
		".*smtp_connection_cache_destinations is empty")
	s.edit("main.cf", "# nothing", "smtp_connection_cache_destinations = 127.0.0.1")
	s.edit("main.cf", few+"\nconnection_cache_protocol_timeout = 1m\n", "")

	const limit = "-o connection_cache_ttl_limit=1h"
	s.edit("main.cf", update, "bulk_smtp_connection_cache_destinations = a.example\n"+update)
	s.edit("master.cf", limit, limit+
		" -o smtp_connection_cache_destinations=$bulk_smtp_connection_cache_destinations")
	s.doctor(true, "ok +names")

	s.edit("main.cf", update,
		"connection_cache_status_update_tim = 1h\nsmtp_connection_cache_on_demand = no")
	s.edit("master.cf", limit, "-o connection_cache_ttl_limt=1h")
	s.doctor(false, "problem +names .*connection_cache_status_update_tim is set",
		"problem +names .*connection_cache_ttl_limt is set",
		"note +agents .*smtp_connection_cache_time_limit is 1h, but connection_cache_ttl_limit is 2s")
	s.edit("main.cf", "smtp_connection_cache_destinations = 127.0.0.1", "")
	s.edit("main.cf", "connection_cache_status_update_tim ",
		"ipc_timeout = 1x\nconnection_cache_status_update_time ")
	s.doctor(false, "note +agents .*caches no connection",
		`problem +configuration .*ipc_timeout: "1x"`)
}

// TestDoctor_agentsThatWait has as many agents wait for a receiver as there may be.
func TestDoctor_agentsThatWait(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.configure(map[string]string{
		"connection_cache_receivers":        "{ full, 127.0.0.12, connections=1 }",
		"connection_cache_protocol_timeout": "1m",
	})
	s.edit("master.cf", "smtp unix - - y - - smtp", "smtp unix - - y - 2 smtp")
	must(t, "-c", s.etc, "enable")
	s.start()
	l, err := net.Listen("tcp", "127.0.0.12:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	open, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for range 2 {
		conn, err := net.Dial("unix", filepath.Join(s.Dir, "queue/private/scache"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "request\x00find_endp\x00label\x00smtp\n127.0.0.12\n%s\n0\n\x00\x00", port)
	}
	testenv.Eventually(t, "both wait", func() bool {
		return strings.Contains(must(t, "-c", s.etc, "receivers", "--json"), `"waiting": 2`)
	})
	s.doctor(true, "note +receivers .*smtp: 2 agents wait .* process limit is 2")
	open.Close()
	l.Close()
}

func TestDoctorSeesAThrottledServer(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	must(t, "-c", s.etc, "enable")
	s.edit("main.cf", "connection_cache_status_update_time = 1h",
		"connection_cache_status_update_time = soon")
	if err := s.Command("reload"); err != nil {
		t.Fatal(err)
	}
	s.throttle()
	s.doctor(false, "problem +configuration .*soon", "problem +answer .*may be throttled",
		"problem +log .*fatal: bad value of parameter connection_cache_status_update_time")
	s.edit("main.cf", "connection_cache_status_update_time = soon", "")
	want(t, must(t, "-c", s.etc, "enable"), "Clearing the throttle", "already enabled")
	s.doctor(true, "ok +answer", `note +log .*fatal.*\n +→ nothing, if that is over`)
}

// TestStatus_anotherBinaryIsInstalled has an upgrade that is not in use yet.
func TestStatus_anotherBinaryIsInstalled(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	must(t, "-c", s.etc, "enable")
	const note = "The installed binary is another one (scache test): " +
		"scachectl restart puts it in place.\n"
	if out := must(t, "-c", s.etc, "status"); strings.Contains(out, note) {
		t.Error(out)
	}
	s.install(server)
	want(t, must(t, "-c", s.etc, "status"), note)
	want(t, must(t, "-c", s.etc, "status", "--json"), `"running": false`)
	s.doctor(true, "note +versions .*another binary is installed")
	must(t, "-c", s.etc, "restart")
	if out := must(t, "-c", s.etc, "status"); strings.Contains(out, note) {
		t.Error(out)
	}
}

func TestDoctorSeesOpenDoors(t *testing.T) {
	t.Parallel()
	s := newRunningFixture(t)
	private := filepath.Join(s.Dir, "queue/private")
	if err := os.Chmod(private, 0o755); err != nil {
		t.Fatal(err)
	}
	s.doctor(false, "problem +socket .*belongs to postfix, with mode -rwxr-xr-x")
	os.Chmod(private, 0o700)
	cmd := exec.Command(tool, "-c", s.etc, "doctor")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, _, _ := run(cmd); !strings.Contains(out, "permission denied") {
		t.Errorf("who is not root: %s", out)
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	cmd = exec.Command(tool, "-c", s.etc, "doctor")
	as := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if out, errOut, ok := run(cmd); !ok || !regexp.MustCompile("(?m)^ok +answer").MatchString(out) {
		t.Errorf("the mail system's own user: %s%s", out, errOut)
	}
	wantError(t, []string{"--socket", "/x", "doctor"}, "--socket")
	wantError(t, []string{"-c", "/nosuch", "doctor"}, "/nosuch")
}
