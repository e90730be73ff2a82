// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"errors"
	"fmt"
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

// TestSend_smallBuffers has the smallest socket buffers that the kernel allows, as where
// net.core.wmem_default is that small. A pipe takes few batches then.
func TestSend_smallBuffers(t *testing.T) {
	fdpass.OnCreate(func(fd int) {
		testenv.TraceDescriptor(fd)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1) // not each is a socket
	})
	defer fdpass.OnCreate(testenv.TraceDescriptor)
	p := newPlace(t)
	state, inodes := newState(t, 50, 5000)
	p.send(t, state)
	got, r, err := receiver(time.Hour).receive(p.message(t))
	defer got.close()
	if want := (Received{5000, 1, 50, 0}); r != want || err != nil {
		t.Errorf("got %+v, %v, want %+v", r, err, want)
	}
	if !slices.Equal(got.inodes(t), inodes) {
		t.Error("descriptors are not in order")
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

// TestSend_withoutDescriptorsLeft has acquired all that it needs before: for clients, for those
// in the accept queue, and for sessions.
func TestSend_withoutDescriptorsLeft(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	p := newPlace(t)
	waiting := p.fillQueue(t)
	s, _ := newState(t, 3, 3)
	defer s.close()
	sender := p.sender(t)
	sender.AcceptQueued = p.acceptQueued
	if err := sender.Acquire(len(s.Sessions)); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = uint64(len(testenv.OpenDescriptors(t)) - 1) // without that of the list itself
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	if fd, err := unix.Dup(p.listener); err == nil {
		t.Fatalf("got descriptor %d, want none left", fd)
	}
	sent := *s
	result, _, err := sender.Send(&sent, false)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if err != nil || result.Err != nil || result.Clients != 3+waiting || result.Sessions != 3 {
		t.Fatalf("got %+v, %v, want %d clients and 3 sessions", result, err, 3+waiting)
	}
	got, r, err := receiver(0).receive(p.message(t))
	defer got.close()
	if r.Clients != 3+waiting || r.Sessions != 3 || r.Lost != 0 || err != nil {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestAcquire_inAdvance acquires more for many sessions, and nothing twice.
func TestAcquire_inAdvance(t *testing.T) {
	before := testenv.OpenDescriptors(t)
	sender := newPlace(t).sender(t)
	acquire := func(queues int) {
		t.Helper()
		if err := sender.Acquire(queues * batchesPerPipe * fdpass.BatchSize); err != nil {
			t.Fatal(err)
		}
	}
	acquire(0)
	few := testenv.OpenDescriptors(t)
	for _, step := range []struct{ queues, more int }{{0, 0}, {2, 4}, {1, 4}} {
		acquire(step.queues)
		few.WantMore(t, step.more, fmt.Sprintf("for %d queues", step.queues))
	}
	sender.Close()
	before.WantMore(t, 1, "after Close") // the listener
}

// TestSend_triesAgain has no descriptor for a client in the accept queue at first, or never.
// It waits for some milliseconds in all, and does without the client if it may.
func TestSend_triesAgain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		failures     int
		partial      bool
		fails        bool
		clients      int
		least, limit time.Duration // of the wait
	}{
		{2, false, false, 2, 1, 20 * time.Millisecond},
		{1 << 30, false, true, 0, 10 * time.Millisecond, 100 * time.Millisecond},
		{1 << 30, true, false, 1, 10 * time.Millisecond, 100 * time.Millisecond},
	} {
		p := newPlace(t)
		s, _ := newState(t, 1, 1)
		sender := p.sender(t)
		waited := time.Duration(0)
		sender.Pause = func(d time.Duration) { waited += d }
		left := test.failures
		connected, err := fdpass.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		if err := connected.Connect(p.path); err != nil {
			t.Fatal(err)
		}
		sender.AcceptQueued = func() (Client, error) {
			if left--; left >= 0 {
				return Client{}, unix.EMFILE
			}
			return p.acceptQueued()
		}
		sent := *s
		result, queued, err := sender.Send(&sent, test.partial)
		if (err != nil) != test.fails || result.Clients != test.clients || len(queued) > 0 {
			t.Errorf("%+v: got %+v, %v, %v", test, result, queued, err)
		}
		if waited < test.least || waited > test.limit {
			t.Errorf("%+v: got a wait of %v", test, waited)
		}
		connected.Close()
		s.close()
	}
}

// TestSend_losesWhatCannotBeSent has descriptors that are not open, among clients and among
// sessions: all else is sent, and the loss is counted.
func TestSend_losesWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	const closed = 1 << 20
	const clients, sessions = clientsPerBatch + 2, 2*fdpass.BatchSize + 5
	p := newPlace(t)
	s, _ := newState(t, 0, 0)
	fd, _ := stream(t)
	defer unix.Close(fd)
	for range clients {
		s.Clients = append(s.Clients, Client{FD: fd, Phase: BetweenRequests, Session: fdpass.None})
	}
	for range sessions {
		s.Sessions = append(s.Sessions, cache.SavedSession{TTL: time.Hour, Label: "e", FD: fd})
	}
	s.Clients[1].FD, s.Sessions[fdpass.BatchSize].FD = closed, closed
	sent := *s
	if _, _, err := p.sender(t).Send(&sent, false); !errors.Is(err, unix.EBADF) {
		t.Errorf("all or nothing: got %v, want %v", err, unix.EBADF)
	}
	sent = *s
	result, _, err := p.sender(t).Send(&sent, true)
	if err != nil || !errors.Is(result.Err, unix.EBADF) || result.LostClients != clientsPerBatch ||
		len(result.Unsent) != sessions-fdpass.BatchSize {
		t.Fatalf("got %d clients lost, %d sessions unsent, %v, %v",
			result.LostClients, len(result.Unsent), result.Err, err)
	}
	got, r, err := receiver(time.Hour).receive(p.message(t))
	defer got.close()
	if r.Clients != 2 || r.Sessions != fdpass.BatchSize || r.Lost != 0 || err != nil ||
		got.Counts.Lost != int64(clientsPerBatch+len(result.Unsent)) {
		t.Errorf("got %+v, %v, and %d lost", r, err, got.Counts.Lost)
	}
}
