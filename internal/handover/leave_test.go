// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/fdpass"
)

// TestManySessions has more than one queue takes, which is 70,334 descriptors, if
// this process may have as many open files.
func TestManySessions(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	n := 80_000
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100_000, Max: max(limit.Max, 100_000)}) != nil {
		n = int(limit.Cur) - 100
		t.Logf("only %d sessions: it takes root to have more open files", n)
	}
	p := newPlace(t)
	fd, inode := file(t)
	defer unix.Close(fd)
	e := &Estate{Sessions: make([]cache.SavedSession, n)}
	for i := range e.Sessions {
		copied, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		e.Sessions[i] = cache.SavedSession{TTL: time.Hour, Label: "e", FD: copied}
	}
	count := len(e.Sessions)
	rest, err := Leave(p.route(t), e)
	if err != nil && !errors.Is(err, unix.ETOOMANYREFS) {
		t.Fatal(err)
	}
	for _, s := range rest {
		unix.Close(s.FD)
	}
	h, r, err := receive(t, p.message(t), time.Hour)
	defer h.close()
	if r.Sessions+len(rest) != count || r.Lost != 0 || err != nil {
		t.Fatalf("got %+v, %v, and %d of %d were not left", r, err, len(rest), count)
	}
	for _, s := range h.Sessions {
		if inodeOf(t, s.FD) != inode {
			t.Fatal("another descriptor")
		}
	}
}

// TestOthersHaveDescriptorsInFlight of the same user, who may have no more: clients go
// first, and then as many sessions as find room.
func TestOthersHaveDescriptorsInFlight(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("to become another user takes root")
	}
	const limit, clients, sessions = 5000, 3, 6000
	p := newPlace(t)
	route := p.route(t)
	fd, _ := file(t)
	defer unix.Close(fd)
	e, _ := estate(t, clients, 0)
	for range sessions {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 2*limit) // out of the way of the limit
		if err != nil {
			t.Fatal(err)
		}
		e.Sessions = append(e.Sessions, cache.SavedSession{TTL: time.Hour, Label: "e", FD: copied})
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
	ours, theirs, err := fdpass.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()

	var rest []cache.SavedSession
	asAnotherUser(func() {
		for range 2 {
			ours.SendBatch(slices.Repeat([]int{fd}, fdpass.BatchSize))
		}
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: files.Max})
		rest, err = Leave(route, e)
	})
	for _, s := range rest {
		unix.Close(s.FD)
	}
	unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
	if !errors.Is(err, unix.ETOOMANYREFS) || len(rest) != sessions-queueSize {
		t.Errorf("%d sessions are not left: %v", len(rest), err)
	}
	h, r, err := receive(t, p.message(t), time.Hour)
	defer h.close()
	if r.Clients != clients || r.Sessions != queueSize || r.Lost != 0 || err != nil {
		t.Errorf("got %+v, %v", r, err)
	}
}

// asAnotherUser calls a function in a thread of another real user without privileges, but
// for the right to reach any file, and waits.
func asAnotherUser(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		const nobody = 64999
		unix.RawSyscall(unix.SYS_SETRESUID, nobody, 0, 0)
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		rights := [2]unix.CapUserData{{Effective: 1 << unix.CAP_DAC_OVERRIDE, Permitted: 1 << unix.CAP_DAC_OVERRIDE}}
		unix.Capset(&header, &rights[0])
		f()
	}()
	<-done
}

func zero() time.Duration { return 0 }

// TestAFullLine has a full accept queue: whoever is in it goes along.
func TestAFullLine(t *testing.T) {
	p := newPlace(t)
	var waiting []*fdpass.Socket
	for {
		c, err := fdpass.Connect(p.path)
		if err != nil {
			break
		}
		defer c.Close()
		waiting = append(waiting, c)
	}
	e, _ := estate(t, 1, 1)
	route := p.route(t)
	route.NextInLine = func() (Client, error) {
		fd, err := fdpass.Accept(p.listener)
		return Client{FD: fd, State: BetweenRequests, Session: -1, Unwritten: []byte("hello")}, err
	}
	if rest, err := Leave(route, e); err != nil || len(rest) > 0 {
		t.Fatal(rest, err)
	}
	h, r, err := receive(t, p.message(t), 0)
	defer h.close()
	if r.Clients != 2 || r.Sessions != 1 || r.Lost != 0 || err != nil || string(h.Clients[1].Unwritten) != "hello" {
		t.Errorf("%d in line: got %+v, %v", len(waiting), r, err)
	}
}

func TestNothingIsLeftToOthers(t *testing.T) {
	p := newPlace(t)
	e, inodes := estate(t, 2, 3)
	route := p.route(t)
	route.Owner.PID++
	before := openDescriptors(t)
	rest, err := Leave(route, e)
	if err == nil || !strings.Contains(err.Error(), "another process listens at "+p.path) || len(rest) != 3 {
		t.Errorf("%d sessions, %v", len(rest), err)
	}
	if after := openDescriptors(t); after != before-3 { // two clients, and a session in hand
		t.Errorf("%d descriptors are open, were %d", after, before)
	}
	fd, err := fdpass.Accept(p.listener)
	if err != nil {
		t.Fatal(err)
	}
	s := fdpass.NewSocket(fd)
	defer s.Close()
	if n, err := s.Receive(make([]byte, 100)); n != 0 || err != io.EOF {
		t.Errorf("the other process has received %d bytes, %v", n, err)
	}
	for i, s := range rest {
		if inodeOf(t, s.FD) != inodes[3+i] {
			t.Error("a session that is returned has another descriptor")
		}
		unix.Close(s.FD)
	}
}

func TestNobodyListens(t *testing.T) {
	e, _ := estate(t, 0, 2)
	rest, err := Leave(Route{Path: filepath.Join(t.TempDir(), "none")}, e)
	if !errors.Is(err, unix.ENOENT) || len(rest) != 2 {
		t.Errorf("%d sessions, %v", len(rest), err)
	}
	h := heir{Estate{Sessions: rest}}
	h.close()
}
