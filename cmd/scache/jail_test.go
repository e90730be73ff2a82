// SPDX-License-Identifier: EPL-2.0

// Tests of what the daemon gives up before it serves, and of what must still
// work afterwards. They need root.

package main

import (
	encoding "encoding/binary" // the other binary is the daemon
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// queueDirectory returns the directory that a master works in.
func queueDirectory(m *postfixtest.Master) string { return filepath.Dir(filepath.Dir(m.Socket)) }

func TestJail_userAndGroups(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	postfixtest.NeedPostfix(t)
	root, err := user.LookupId("0")
	if err != nil {
		t.Fatal(err)
	}
	postfix, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	other, err := user.Lookup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options []string
		chroot  bool
		user    *user.User
	}{
		"-c -u":         {[]string{"-c", "-u"}, true, postfix},
		"-c":            {[]string{"-c"}, true, root},
		"-u":            {[]string{"-u"}, false, postfix},
		"-u mail_owner": {[]string{"-c", "-u", "-o", "mail_owner=daemon"}, true, other},
		"neither":       {nil, false, root},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, "", test.options...)
			c := startWithClient(t, m)
			wantLinks(t, m, test.chroot)
			wantUser(t, m, test.user)
			wantAnswer(t, c)
			if err := m.HangUp(); err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
			wantLog(t, m, missed...)
		})
	}
}

// wantLinks checks where the daemon works, and what it can see.
func wantLinks(t *testing.T, m *postfixtest.Master, chroot bool) {
	t.Helper()
	want := map[string]string{"cwd": queueDirectory(m), "root": "/"}
	if chroot {
		want["root"] = queueDirectory(m)
	}
	for name, want := range want {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", m.Cmd.Process.Pid, name)); got != want {
			t.Errorf("%s is %q, want %q (%v)", name, got, want, err)
		}
	}
}

// wantUser checks the identity of every thread of the daemon: to the kernel,
// each has its own.
func wantUser(t *testing.T, m *postfixtest.Master, u *user.User) {
	t.Helper()
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", m.Cmd.Process.Pid))
	if len(threads) == 0 {
		t.Fatal("the daemon has no threads")
	}
	patterns := []string{"Uid:(\t" + u.Uid + "){4}", "Gid:(\t" + u.Gid + "){4}"}
	if u.Uid != "0" { // root keeps what it was born with
		patterns = append(patterns, "Groups:\t"+u.Gid+" ", "CapEff:\t0+", "CapPrm:\t0+")
	}
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		for _, pattern := range patterns {
			if !regexp.MustCompile("(?m)^" + pattern + "$").Match(status) {
				t.Errorf("%s does not match %q:\n%s", thread, pattern, status)
			}
		}
	}
}

// TestJail_passesDescriptors: what one client saves in the jail, another one
// gets.
func TestJail_passesDescriptors(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	postfixtest.NeedPostfix(t)
	m := newMaster(t, "", "-c", "-u")
	giver, taker := startWithClient(t, m), talk(t, connect(t, m.Socket), true)
	fd := testenv.NewDescriptor(t)
	if status, err := giver.SaveEndpoint(100, "e", "p", fd); err != nil || status != client.OK {
		t.Fatal(status, err)
	}
	f, err := taker.FindEndpoint("e")
	if err != nil || f.Code != client.OK {
		t.Fatal(f.Code, err)
	}
	if want := inode(t, fd); inode(t, f.FD) != want {
		t.Error("got another descriptor than was saved")
	}
}

// TestJail_logsAgain replaces the receiver of the log, as a restart of
// postlogd(8) does, when the daemon can no longer see where it was.
func TestJail_logsAgain(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	postfixtest.NeedPostfix(t)
	m := newMaster(t, "", "-c", "-u", "-o", "postlog_service_name=other")
	path := filepath.Join(queueDirectory(m), "public", "other")
	var c *client.Client
	for range 2 {
		conn := receiveLog(t, path)
		if c == nil {
			c = startWithClient(t, m)
		}
		raw(list("request", "nonsense"), nil)(t, c)
		if line := readLog(t, conn); !strings.Contains(line, "unrecognized request") {
			t.Errorf("got %q", line)
		}
		conn.Close()
		os.Remove(path)
	}
}

// receiveLog listens for log lines.
func receiveLog(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(longWait))
	return conn
}

func readLog(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("nothing is logged: %v", err)
	}
	return string(buf[:n])
}

// TestJail_localTime has time zones whose files the jail does not hold.
func TestJail_localTime(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	postfixtest.NeedPostfix(t)
	for _, offset := range []time.Duration{
		5*time.Hour + 30*time.Minute, -3*time.Hour - 30*time.Minute,
	} {
		t.Run(offset.String(), func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, "", "-c", "-u")
			m.Env = append(m.Env, "TZ="+zoneFile(t, offset))
			begin := time.Now().Truncate(time.Second)
			wantAnswer(t, startWithClient(t, m))
			if err := m.HangUp(); err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
			wantLog(t, m, missed...)
			zone := time.FixedZone("", int(offset.Seconds()))
			times := startTimes(t, m, zone)
			for _, line := range m.Log() {
				times = append(times, parseStamp(t, line[:len(time.Stamp)], zone))
			}
			for _, at := range times {
				if at.Before(begin) || at.After(time.Now()) {
					t.Errorf("the log has %v, at %v", at, begin.In(zone))
				}
			}
		})
	}
}

// zoneFile writes a file of a time zone, in the format of tzfile(5), that has
// always been so far east of Greenwich.
func zoneFile(t *testing.T, offset time.Duration) string {
	t.Helper()
	data := append([]byte("TZif"), make([]byte, 16)...)
	// One type of time, with four characters of names.
	for _, count := range []uint32{0, 0, 0, 0, 1, 4} {
		data = encoding.BigEndian.AppendUint32(data, count)
	}
	data = encoding.BigEndian.AppendUint32(data, uint32(int32(offset.Seconds())))
	data = append(data, 0, 0)
	data = append(data, "XST\x00"...)
	path := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestJail_noNewPrivileges builds the daemon as it is installed: in pure Go, which can set this for
// all threads.
func TestJail_noNewPrivileges(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	pure := filepath.Join(t.TempDir(), "scache")
	build := exec.Command("go", "build", "-o", pure, "scache/cmd/scache")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m, err := postfixtest.NewMaster(pure, "")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	startWithClient(t, m)
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", m.Cmd.Process.Pid))
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err == nil && !strings.Contains(string(status), "\nNoNewPrivs:\t1\n") {
			t.Errorf("%s does not have NoNewPrivs", thread)
		}
	}
}
