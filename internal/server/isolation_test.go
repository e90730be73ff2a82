// SPDX-License-Identifier: EPL-2.0

package server

// What one client does, or had done, is no matter of another one: its output, its memory, its
// loop, its descriptors.

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/testenv"
)

// TestPanic_outputReachesNoOtherClient has a conversation of the same worker end between its
// answer to one request and the next request.
func TestPanic_outputReachesNoOtherClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.OnPanic = func() {}
	w.alive = func(int) bool { panic("a bug") }
	_, fd := testenv.Pipe(t)
	defer unix.Close(fd)
	w.Cache.SaveSession(time.Minute, []byte("e"), nil, fd)
	worker := stillWorker(t, w)
	victim, p := worker.meetStill(t)
	other, q := worker.meetStill(t)
	p.say(`request\0find_dest\0label\0none\0\0request\0find_endp\0label\0e\0\0`)
	victim.Ready()
	<-p.gone
	q.say(`request\0find_endp\0label\0none\0\0`)
	other.Ready()
	q.hear(`status\02\0property\0\0\0`)
	other.end(nil)
	q.wantEnd()
}

// TestConversation_keepsNoLongRequest has many clients send a long request, and the
// beginning of another one, that no more long requests would be taken if memory were kept.
func TestConversation_keepsNoLongRequest(t *testing.T) {
	t.Parallel()
	long := `request\0find_dest\0label\0` + strings.Repeat("x", 1<<20) + `\0\0`
	const miss = `status\02\0property\0\0property\0\0\0`
	for _, rest := range []string{"", "r"} {
		w := newWorld(t)
		for range maxPending>>20 + 10 {
			p := w.connect(t)
			p.say(long + rest)
			p.hear(miss)
		}
		p := w.connect(t)
		p.say(long)
		p.hear(miss)
		if got, limit := w.pending.Load(), int64(maxPending/10); got > limit {
			t.Errorf("rest %q: got %d bytes of memory, want at most %d", rest, got, limit)
		}
	}
}

// TestReply_thatIsNotRead has many clients find sessions with long properties, and read nothing:
// the memory for all together is bounded, and a client that reads is served.
func TestReply_thatIsNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := bytes.Repeat([]byte("x"), 1<<20)
	w.Cache.SaveBinding(time.Hour, []byte("d"), long, []byte("e"))
	const clients = 2 * maxPending >> 20
	ended := 0
	for range clients {
		_, fd := testenv.Pipe(t)
		w.Cache.SaveSession(time.Minute, []byte("e"), long, fd)
		p := w.connect(t)
		p.say(`request\0find_dest\0label\0d\0\0`)
		testenv.Eventually(t, "the request is answered", func() bool {
			return w.Cache.Size().Sessions == 0
		})
		w.Check()
		if got := w.pending.Load(); got > maxPending+8<<20 {
			t.Fatalf("got %d bytes of memory, want at most %d", got, maxPending)
		}
		select {
		case <-p.gone:
			ended++
		default:
		}
	}
	if ended == 0 || ended == clients {
		t.Errorf("got %d of %d clients disconnected, want some", ended, clients)
	}
	p := w.connect(t)
	p.miss()
	_, fd := testenv.Pipe(t)
	p.save("f", fd)
	unix.Close(fd)
}

// TestServer_repliesBeforeTheDescriptor has a client ask for a descriptor before it has read
// the reply.
func TestServer_repliesBeforeTheDescriptor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, fd := testenv.Pipe(t)
	want := testenv.Inode(t, fd)
	w.Cache.SaveSession(time.Minute, []byte("e"), []byte("p"), fd)
	p := w.connect(t)
	p.say(`request\0find_endp\0label\0e\0\0dummy\0\0\0`)
	p.hear(`status\00\0property\0p\0\0`)
	p.hear(`\0`)
	got, err := p.Take()
	if err != nil || testenv.Inode(t, got) != want {
		t.Fatalf("got descriptor %d, %v, want that of the session", got, err)
	}
	unix.Close(got)
	p.wantInStep()
}

// TestServer_sessionLimitFollowsClients has clients come, which takes descriptors from
// sessions, and go, which gives them back.
func TestServer_sessionLimitFollowsClients(t *testing.T) {
	t.Parallel()
	const files, clients = 10, 7
	w := newWorld(t)
	w.SessionLimit = func(clients, _ int) int { return files - clients }
	fill := func() (sessions int) {
		for i := range files + 1 {
			_, fd := testenv.Pipe(t)
			w.Cache.SaveSession(time.Minute, fmt.Append(nil, i), nil, fd)
		}
		return w.Cache.Size().Sessions
	}
	var peers []*peer
	for range clients {
		p := w.connect(t)
		p.miss()
		peers = append(peers, p)
	}
	if got := fill(); got != files-clients {
		t.Errorf("with %d clients: got %d sessions, want %d", clients, got, files-clients)
	}
	for _, p := range peers {
		p.leave()
	}
	if got := fill(); got != files {
		t.Errorf("without clients: got %d sessions, want %d", got, files)
	}
}

// TestServer_dealsClientsOut has one loop blocked by a client: those of the other loop are
// served. Clients that are gone leave room for others.
func TestServer_dealsClientsOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	blocked, blocking := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(blocking) })
	defer release()
	w.alive = func(int) bool {
		close(blocked)
		<-blocking
		return false
	}
	_, fd := testenv.Pipe(t)
	w.Cache.SaveSession(time.Minute, []byte("slow"), nil, fd)
	var peers []*peer
	for range 2 * len(w.workers) {
		peers = append(peers, w.connect(t))
	}
	for i, p := range peers {
		if p.miss(); i%len(w.workers) != 0 {
			p.leave() // all that the first loop does not serve
		}
	}
	others := []*peer{w.connect(t), w.connect(t)}
	peers[0].say(`request\0find_endp\0label\0slow\0\0`)
	<-blocked
	for _, p := range others {
		p.say(`request\0find_dest\0label\0none\0\0`)
		p.SetDeadline(time.Now().Add(soon))
		p.hear(`status\02\0property\0\0property\0\0\0`)
	}
	release()
	peers[0].hear(`status\02\0property\0\0\0`)
}

// TestCloser_goodbyeDoesNotBlock says goodbye to a connection whose remote end has stopped
// reading. Its descriptor is in blocking mode, as those of delivery agents are.
func TestCloser_goodbyeDoesNotBlock(t *testing.T) {
	t.Parallel()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	for err == nil {
		err = unix.Sendto(fds[0], make([]byte, 4096), unix.MSG_DONTWAIT, nil)
	}
	c := newCloser("QUIT")
	c.Close([]cache.Dropped{{FD: fds[0], Why: cache.Expired}})
	select {
	case <-c.sockets.whenIdle():
	case <-time.After(soon):
		t.Error("the goodbye is still being sent")
	}
}
