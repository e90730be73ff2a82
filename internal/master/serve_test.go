// SPDX-License-Identifier: EPL-2.0

package master

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/mailconf"
	"scache/internal/maillog"
)

// newProcess returns a process with a listening socket and a status channel, whose
// other end is returned, too.
func newProcess(t *testing.T, maxIdle time.Duration) (p *Process, path string, theirs *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK,
		0)
	if err != nil {
		t.Fatal(err)
	}
	theirs = os.NewFile(uintptr(pair[0]), "master's end")
	t.Cleanup(func() { theirs.Close() })
	p = &Process{
		Options: &Options{}, Config: mailconf.New("test"), Log: maillog.New(),
		listeners: []*os.File{l}, maxIdle: maxIdle, signals: make(chan os.Signal, 1),
		parent: os.Getppid(),
	}
	channel, err := watched(pair[1], "status channel")
	if err != nil {
		t.Fatal(err)
	}
	p.status = &status{pair[1], channel, 8}
	return p, path, theirs
}

// clients are handled by keeping them until the end of the test.
type clients struct {
	came chan int
	gone atomic.Pointer[func(bool)]
	mu   sync.Mutex
	fds  []int
}

func (c *clients) handle(fd int, gone func(bool)) {
	c.mu.Lock()
	c.fds = append(c.fds, fd)
	c.mu.Unlock()
	c.gone.Store(&gone)
	c.came <- fd
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (c *clients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range c.fds {
		unix.Close(fd)
	}
}

// serve runs Serve, and returns where its reason will be.
func serve(t *testing.T, p *Process, c *clients) <-chan Reason {
	t.Helper()
	t.Cleanup(func() { p.StopAccepting(); c.close() })
	reasons := make(chan Reason, 1)
	go func() {
		reason, err := p.Serve(c.handle)
		if err != nil {
			t.Error(err)
		}
		reasons <- reason
	}()
	return reasons
}

// TestServe_endsWhenIdle looks at the timer: it runs while no client is connected.
func TestServe_endsWhenIdle(t *testing.T) {
	t.Parallel()
	p, path, _ := newProcess(t, time.Hour)
	c := &clients{came: make(chan int, 1)}
	reasons := serve(t, p, c)
	dial(t, path)
	<-c.came
	if p.service.idle.Stop() {
		t.Error("the timer runs while a client is connected")
	}
	(*c.gone.Load())(true)
	if !p.service.idle.Reset(0) {
		t.Error("the timer does not run after the last client has gone")
	}
	if reason := <-reasons; reason != Idle {
		t.Errorf("got %s, want %s", reason, Idle)
	}
}

// TestServe_operatorsDoNotKeepTheProcess has one after another, and never none for
// the whole of the time.
func TestServe_operatorsDoNotKeepTheProcess(t *testing.T) {
	t.Parallel()
	p, path, _ := newProcess(t, 300*time.Millisecond)
	c := &clients{came: make(chan int, 1)}
	reasons := serve(t, p, c)
	for {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		select {
		case reason := <-reasons:
			if reason != Idle {
				t.Error(reason)
			}
			return
		case <-c.came:
		}
		time.Sleep(20 * time.Millisecond)
		(*c.gone.Load())(false)
	}
}

// TestServe_clientAtTheLastMoment has one who comes when the time ran
// out before it was looked at.
func TestServe_clientAtTheLastMoment(t *testing.T) {
	t.Parallel()
	p, path, status := newProcess(t, time.Hour)
	c := &clients{came: make(chan int, 2)}
	reasons := serve(t, p, c)
	dial(t, path)
	<-c.came
	p.End(Idle) // as if the timer had just ended
	dial(t, path)
	<-c.came
	status.Close()
	if reason := <-reasons; reason != Reload {
		t.Error(reason)
	}
}

func TestServe_acceptsUntilStopAccepting(t *testing.T) {
	t.Parallel()
	p, path, status := newProcess(t, time.Hour)
	c := &clients{came: make(chan int, 10)}
	reasons := serve(t, p, c)
	dial(t, path)
	<-c.came
	status.Close()
	if reason := <-reasons; reason != Reload {
		t.Error(reason)
	}
	dial(t, path)
	<-c.came
	p.StopAccepting()
	for range 3 {
		dial(t, path)
	}
	if len(c.came) > 0 {
		t.Error("a client was accepted")
	}
	if fd, err := p.AcceptQueued(); err != nil {
		t.Error(err)
	} else {
		unix.Close(fd)
	}
	p.HandleQueued()
	if len(c.came) != 2 {
		t.Errorf("%d clients were in line", len(c.came))
	}
	if _, err := p.AcceptQueued(); err == nil {
		t.Error("another client was in line")
	}
}

// TestServe_waitsForAcceptedClients has a client who is not in other hands yet when
// the reason to end comes: it would be lost.
func TestServe_waitsForAcceptedClients(t *testing.T) {
	t.Parallel()
	p, path, status := newProcess(t, time.Hour)
	c := &clients{came: make(chan int)} // handle waits until it is taken
	reasons := serve(t, p, c)
	dial(t, path)
	for c.gone.Load() == nil {
		time.Sleep(time.Millisecond)
	}
	status.Close()
	select {
	case <-reasons:
		t.Error("it has ended, with a client in between")
	case <-time.After(50 * time.Millisecond):
	}
	<-c.came
	<-reasons
}

func TestEnd_restart(t *testing.T) {
	t.Parallel()
	p, path, _ := newProcess(t, time.Hour)
	c := &clients{came: make(chan int, 1)}
	reasons := serve(t, p, c)
	dial(t, path)
	<-c.came
	p.End(Restart)
	if reason := <-reasons; reason != Restart {
		t.Error(reason)
	}
}

// TestWatchdog has checks that return, for many times its limit, and then one that
// does not.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	const limit, calm = 300 * time.Millisecond, 10 // checks in a second, at the most
	p := &Process{Log: maillog.New()}
	stuck, bitten := make(chan struct{}), make(chan struct{})
	var checks atomic.Int32
	p.watch(limit, func() {
		if checks.Add(1) == calm {
			<-stuck
		}
	}, func() { close(bitten) })
	<-bitten
	if n := checks.Load(); n != calm {
		t.Errorf("got the end of the process after %d checks, want %d", n, calm)
	}
	close(stuck)
}

// TestListen_socketOfALivingProcess: not from a process that has no time either.
func TestListen_socketOfALivingProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "socket")
	busy, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	unix.Listen(int(busy.Fd()), 0)
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			break
		}
	}
	if _, err := listen(path); err == nil || !strings.Contains(err.Error(), "does not serve it") {
		t.Errorf("a busy one: %v", err)
	}
	busy.Close()
	next, err := listen(path)
	if err != nil {
		t.Fatalf("one that has gone: %v", err)
	}
	next.Close()
}

func TestSocket_relativeToTheQueueDirectory(t *testing.T) {
	t.Parallel()
	p, path, _ := newProcess(t, time.Hour)
	if got := p.Socket(); got != path {
		t.Errorf("got %s, want %s", got, path)
	}
	if err := p.Config.Override("queue_directory=" + filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if got := p.Socket(); got != "socket" {
		t.Errorf("got %s", got)
	}
}
