// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// boundingSet drops capabilities that containers often lack.
const boundingSet = "--bounding-set=-kill,-sys_ptrace,-sys_resource,-sys_chroot"

// A container is a fixture in namespaces of its own: "postfix start-fg" is process 1, the root
// file system is read-only except for the instance, and capabilities are dropped.
type container struct {
	*fixture
	init string // process 1, as it is seen from outside
}

var chrootColumn = regexp.MustCompile(`(?m)^(\S+ \S+ \S+ \S+) y `)

// newContainer starts it. No service is in a chroot jail, which takes a capability.
func newContainer(t *testing.T) *container {
	t.Helper()
	s := newFixture(t)
	s.configure(map[string]string{"postlog_service_name": "postlog"}) // nothing outside is needed
	s.write("master.cf", chrootColumn.ReplaceAllString(s.masterCF(), "$1 n "))
	const script = `set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro /
exec setpriv "$2" postfix -c "$1/etc" start-fg`
	cmd := postfixtest.Command("unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child",
		"sh", "-c", script, "sh", s.Dir, boundingSet)
	cmd.WaitDelay = time.Second
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	c := &container{fixture: s}
	t.Cleanup(func() {
		if init, err := strconv.Atoi(c.init); err == nil {
			syscall.Kill(init, syscall.SIGKILL) // and so all processes of the container
		}
		cmd.Process.Kill()
		<-ended
		os.Remove(filepath.Join(s.Dir, "queue/pid/master.pid")) // which names process 1
	})
	testenv.Eventually(t, "Postfix accepts mail in the container", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%v: %s", err, out.String())
		default:
		}
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children",
			cmd.Process.Pid, cmd.Process.Pid))
		c.init = strings.TrimSpace(string(children))
		for network, address := range map[string]string{
			"tcp": s.SMTP, "unix": filepath.Join(s.Dir, "queue/private/scache"),
		} {
			conn, err := net.Dial(network, address)
			if err != nil {
				return false
			}
			conn.Close()
		}
		return c.init != ""
	})
	return c
}

// ctl runs the tool inside, where no other program is in the search path.
func (c *container) ctl(args ...string) (out string, ok bool) {
	c.t.Helper()
	cmd := exec.Command("nsenter", append([]string{"-t", c.init, "-m", "-p", "setpriv", boundingSet,
		"env", "-i", "PATH=/nonexistent", tool, "-c", c.etc}, args...)...)
	stdout, stderr, ok := run(cmd)
	return stdout + stderr, ok
}

func (c *container) must(texts []string, args ...string) {
	c.t.Helper()
	out, ok := c.ctl(args...)
	if !ok {
		c.t.Errorf("scachectl %s: %s", strings.Join(args, " "), out)
	}
	want(c.t, out, texts...)
}

func TestContainer(t *testing.T) {
	t.Parallel()
	c := newContainer(t)
	c.must([]string{"ok       limits", "ok       configuration"}, "doctor")
	c.must([]string{"enabled in"}, "enable")
	c.must([]string{"scache test"}, "status")
	c.send()
	c.must([]string{"restarted: scache test"}, "restart")
	c.send()
	c.must([]string{"ok       answer", "ok       socket", "ok       versions"}, "doctor")
	c.must([]string{"disabled in"}, "disable")
	if out, ok := c.ctl("status"); ok || !strings.Contains(out, "stock scache") {
		t.Errorf("after disable: %s", out)
	}
	c.send()

	// A service in a jail needs a capability that is not there.
	c.edit("master.cf", "scache unix - - n", "scache unix - - y")
	out, ok := c.ctl("enable")
	if ok || !strings.Contains(out, "chroot") || !strings.Contains(out, "operation not permitted") ||
		!strings.Contains(out, "nothing was changed") {
		t.Errorf("with a jail: %s", out)
	}
}
