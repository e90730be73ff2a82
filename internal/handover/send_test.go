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
	"scache/internal/testenv"
)

// TestSend_manySessions has more of them than one queue takes, which is 70,334 descriptors, if
// this process may have as many open files.
func TestSend_manySessions(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	n := 80_000
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100_000,
		Max: max(limit.Max, 100_000)}) != nil {
		n = int(limit.Cur) - 100
		t.Logf("only %d sessions: root is required to have more open files", n)
	}
	p := newPlace(t)
	fd, inode := file(t)
	defer unix.Close(fd)
	s := &State{Sessions: make([]cache.SavedSession, n)}
	for i := range s.Sessions {
		copied, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		s.Sessions[i] = cache.SavedSession{TTL: time.Hour, Label: "e", FD: copied}
	}
	sent := *s
	result, _, err := p.sender(t).Send(&sent, true)
	if err != nil || result.Err != nil && !errors.Is(result.Err, unix.ETOOMANYREFS) {
		t.Fatal(err, result.Err)
	}
	s.close()
	got, r, err := receiver(time.Hour).receive(p.message(t))
	defer got.close()
	if r.Sessions+len(result.Unsent) != n || r.Lost != 0 ||
		got.Counts.Lost != int64(len(result.Unsent)) || err != nil {
		t.Fatalf("got %+v, %v, and %d of %d were not sent", r, err, len(result.Unsent), n)
	}
	for _, session := range got.Sessions {
		if testenv.Inode(t, session.FD) != inode {
			t.Fatal("another descriptor")
		}
	}
}

// TestSend_othersHaveDescriptorsInFlight of the same user, who may have no more: first nothing
// is sent; then clients are, and as many sessions as find room.
func TestSend_othersHaveDescriptorsInFlight(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("root is required to become another user")
	}
	const limit, clients, sessions = 5000, 3, 6000
	p := newPlace(t)
	sender := p.sender(t)
	fd, _ := file(t)
	defer unix.Close(fd)
	s, _ := newState(t, clients, 0)
	for range sessions {
		// Out of the way of the limit.
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 2*limit)
		if err != nil {
			t.Fatal(err)
		}
		s.Sessions = append(s.Sessions, cache.SavedSession{TTL: time.Hour, Label: "e", FD: copied})
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
	ours, theirs := pair(t)
	defer ours.Close()
	defer theirs.Close()

	var strict, partial error
	var result Result
	asAnotherUser(func() {
		for range 2 {
			ours.SendBatch(slices.Repeat([]int{fd}, fdpass.BatchSize))
		}
		unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: files.Max})
		sent := *s
		_, _, strict = sender.Send(&sent, false)
		sent = *s
		result, _, partial = sender.Send(&sent, true)
	})
	s.close()
	unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
	if !errors.Is(strict, unix.ETOOMANYREFS) {
		t.Errorf("all or nothing: got %v, want %v", strict, unix.ETOOMANYREFS)
	}
	const room = limit - 2*fdpass.BatchSize
	if partial != nil || !errors.Is(result.Err, unix.ETOOMANYREFS) ||
		result.Sessions < room-2*fdpass.BatchSize || result.Sessions > room {
		t.Errorf("got %d sessions, %v, %v, want about %d", result.Sessions, partial, result.Err, room)
	}
	got, r, err := receiver(time.Hour).receive(p.message(t))
	defer got.close()
	if r.Clients != clients || r.Sessions != result.Sessions || r.Lost != 0 || err != nil ||
		got.Counts.Lost != int64(sessions-result.Sessions) {
		t.Errorf("got %+v, %v, and %d lost", r, err, got.Counts.Lost)
	}
}

// asAnotherUser calls a function in a thread of another real user without privileges, but
// for the right to reach any file, and waits.
func asAnotherUser(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		const other = 64999
		unix.RawSyscall(unix.SYS_SETRESUID, other, 0, 0)
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		rights := [2]unix.CapUserData{{Effective: 1 << unix.CAP_DAC_OVERRIDE,
			Permitted: 1 << unix.CAP_DAC_OVERRIDE}}
		unix.Capset(&header, &rights[0])
		f()
	}()
	<-done
}

func zero() time.Duration { return 0 }

// fillQueue connects until the accept queue is full.
func (p place) fillQueue(t *testing.T) (clients int) {
	t.Helper()
	for ; ; clients++ {
		c, err := fdpass.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.Connect(p.path); err != nil {
			return clients
		}
	}
}

// acceptQueued is for a sender.
func (p place) acceptQueued() (Client, error) {
	fd, err := fdpass.Accept(p.listener)
	if err != nil {
		return Client{}, err
	}
	greeting := []byte("hello")
	return Client{FD: fd, Phase: BetweenRequests, Session: fdpass.None, Unwritten: greeting}, nil
}

// TestSend_takesTheAcceptQueueAlong has a full one. Its clients come last.
func TestSend_takesTheAcceptQueueAlong(t *testing.T) {
	p := newPlace(t)
	waiting := p.fillQueue(t)
	s, _ := newState(t, 1, 1)
	defer s.close()
	sender := p.sender(t)
	sender.AcceptQueued = p.acceptQueued
	sent := *s
	if result, _, err := sender.Send(&sent, false); err != nil || result.Err != nil ||
		result.Clients != 1+waiting {
		t.Fatalf("got %+v, %v, want %d clients", result, err, 1+waiting)
	}
	got, r, err := receiver(0).receive(p.message(t))
	defer got.close()
	if r.Clients != 1+waiting || r.Sessions != 1 || r.Lost != 0 || err != nil ||
		string(got.Clients[1].Unwritten) != "hello" {
		t.Errorf("%d in the queue: got %+v, %v", waiting, r, err)
	}
	if want := s.Counts.Connections + int64(waiting); got.Counts.Connections != want {
		t.Errorf("got %d connections, want %d", got.Counts.Connections, want)
	}
}

// TestSend_changesNothingWhenItFails: what is not sent is still there, and in use.
func TestSend_changesNothingWhenItFails(t *testing.T) {
	p := newPlace(t)
	waiting := p.fillQueue(t)
	s, inodes := newState(t, 2, 3)
	defer s.close()
	sender := p.sender(t)
	sender.AcceptQueued = p.acceptQueued
	sender.Owner.PID++
	before := testenv.OpenDescriptors(t)
	sent := *s
	_, queued, err := sender.Send(&sent, false)
	if err == nil || !strings.Contains(err.Error(), "another process listens at "+p.path) {
		t.Errorf("got %v", err)
	}
	if len(queued) != waiting {
		t.Errorf("got %d clients of the accept queue back, want %d", len(queued), waiting)
	}
	before.WantMore(t, waiting, "after the failure")
	for _, c := range queued {
		if string(c.Unwritten) != "hello" {
			t.Errorf("got %+v", c)
		}
		unix.Close(c.FD)
	}
	fd, err := fdpass.Accept(p.listener)
	if err != nil {
		t.Fatal(err)
	}
	conn := fdpass.NewSocket(fd)
	defer conn.Close()
	if n, err := conn.Receive(make([]byte, 100)); n != 0 || err != io.EOF {
		t.Errorf("the other process has received %d bytes, %v", n, err)
	}
	if got := s.inodes(t); !slices.Equal(got, inodes) {
		t.Error("the descriptors are not the same")
	}
	sender.Owner.PID--
	sent = *s
	if result, _, err := sender.Send(&sent, false); err != nil || result.Clients != 2 ||
		result.Sessions != 3 {
		t.Errorf("the next attempt: got %+v, %v", result, err)
	}
	got, r, err := receiver(0).receive(p.message(t))
	defer got.close()
	if r.Clients != 2 || r.Sessions != 3 || err != nil {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestSend_withoutASocket(t *testing.T) {
	s, _ := newState(t, 0, 2)
	defer s.close()
	sender := newPlace(t).sender(t)
	sender.Path = filepath.Join(t.TempDir(), "none")
	sent := *s
	if _, _, err := sender.Send(&sent, true); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want %v", err, unix.ENOENT)
	}
}
