// SPDX-License-Identifier: EPL-2.0

package master

// A process without descriptors, in a process of its own: the limit of open files is that of
// all tests otherwise.

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/maillog"
)

const shortageSocket = "TEST_SHORTAGE_SOCKET" // tells the test that it is in that process

// attempts to accept a client without descriptors, and how long they take at the least.
const (
	attempts   = 50
	attemptsIn = (attempts - 1) * 10 * time.Millisecond
)

// TestServe_pausesWithoutDescriptors has a client wait while no descriptor is left: the
// process makes room again and again, but not in a busy loop, warns once, and then serves.
func TestServe_pausesWithoutDescriptors(t *testing.T) {
	if path := os.Getenv(shortageSocket); path != "" {
		serveWithoutDescriptors(t, path)
		return
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), shortageSocket+"="+path)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var conn net.Conn
	for conn == nil {
		select {
		case err := <-ended:
			t.Fatalf("%v: %s", err, out.String())
		case <-time.After(10 * time.Millisecond):
			conn, _ = net.Dial("unix", path)
		}
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Errorf("the client that waited was not served: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
}

// A lineCount counts log lines.
type lineCount struct{ atomic.Int32 }

func (n *lineCount) Write(maillog.Level, string) error {
	n.Add(1)
	return nil
}

// serveWithoutDescriptors serves one client, for whom there is no descriptor until MakeRoom was
// called often enough.
func serveWithoutDescriptors(t *testing.T, path string) {
	p, _, _ := newProcess(t, time.Hour)
	var lines lineCount
	p.Log = maillog.New(&lines)
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	p.listeners = []*os.File{l}
	const files = 64
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}); err != nil {
		t.Fatal(err)
	}
	var all []int
	for err == nil {
		var fd int
		if fd, err = unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			all = append(all, fd)
		}
	}
	defer func() {
		for _, fd := range all[1:] {
			unix.Close(fd)
		}
	}()
	n, begin := 0, time.Time{}
	p.MakeRoom = func() {
		switch n++; n {
		case 1:
			begin = time.Now()
		case attempts:
			if took := time.Since(begin); took < attemptsIn {
				t.Errorf("got %d attempts in %v, want a pause after each", n, took)
			}
			unix.Close(all[0])
		}
	}
	served := make(chan int)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.Serve(func(fd int, _ func(bool)) { served <- fd })
	}()
	fd := <-served
	defer unix.Close(fd)
	unix.Write(fd, []byte("x"))
	p.Log.Flush(time.Minute)
	if got := lines.Load(); got != 1 {
		t.Errorf("got %d log lines, want 1 warning", got)
	}
	p.signals <- syscall.SIGTERM
	<-ended
}
