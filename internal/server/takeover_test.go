// SPDX-License-Identifier: EPL-2.0

package server

// What a predecessor leaves, in good order and not. Whole processes are
// replaced in the tests of the command.

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
)

// takesOver makes a server take over what others leave, and returns how to wait
// for the clients that it was left.
func takesOver(w *world) (wait func()) {
	var clients sync.WaitGroup
	w.Adopt = func(conn *net.UnixConn, handle func(*net.UnixConn)) {
		clients.Go(func() { handle(conn) })
	}
	return clients.Wait
}

// succession hands over from one server to the next, by way of a socket that
// nobody serves at the time.
func succession(t *testing.T, from, to *world, wait func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from.HandOver(path, wait)
	l.SetDeadline(time.Now().Add(time.Minute))
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err, from.logged())
	}
	to.Serve(conn)
}

func TestSuccessionKeepsWhatIsLeftOfTheTTL(t *testing.T) {
	t.Parallel()
	from, to := newWorld(t), newWorld(t)
	takesOver(to)
	r, fd := pipe(t)
	from.Cache.SaveSession(10*time.Second, []byte("e"), []byte("p"), fd)
	from.Cache.SaveBinding(20*time.Second, []byte("d"), []byte("q"), []byte("e"))
	from.now.Add(int64(4 * time.Second))
	succession(t, from, to, func() {})
	if got := to.Cache.Size(); got.Sessions != 1 || got.Destinations != 1 {
		t.Fatalf("the successor holds %+v; %q", got, to.logged())
	}
	unix.Close(fd)                                         // as the end of the first process would
	to.now.Add(int64(6*time.Second + 50*time.Millisecond)) // and the precision of the wheel
	to.Cache.Expire()
	if got := to.Cache.Size(); got.Sessions != 0 || got.Destinations != 1 {
		t.Errorf("after its end: %+v", got)
	}
	wantClosed(t, r)
	if got := to.Cache.Totals(); got.TakenOver != 1 {
		t.Errorf("totals: %+v", got)
	}
}

func TestAnIdleClientIsServedByTheSuccessor(t *testing.T) {
	t.Parallel()
	from, to := newWorld(t), newWorld(t)
	takesOver(to)
	p := from.connect(t)
	p.miss()
	succession(t, from, to, func() { <-p.gone })
	p.miss()
}

// TestDescriptionOfAnotherVersion has a message that this server cannot read.
func TestDescriptionOfAnotherVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	takesOver(w)
	r, fd := pipe(t)
	queue, theirs, err := fdpass.Pair()
	if err != nil {
		t.Fatal(err)
	}
	description, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(description, "version\x002\x00whatever\x00x\x00\x00")
	for _, fds := range [][]int{{int(description.Fd())}, {fd}} {
		if err := fdpass.SendBatch(queue.UnixConn, fds); err != nil {
			t.Fatal(err)
		}
	}
	unix.Close(fd)
	queue.Close()
	end, err := theirs.FD()
	if err != nil {
		t.Fatal(err)
	}
	p := w.connect(t)
	if err := p.SendWith([]byte("request\x00take_over\x00\x00"), end); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	<-p.gone
	wantClosed(t, r)
	warnings := 0
	for _, line := range w.logged() {
		if line != "takeover: sessions=0 bindings=0 clients=0 lost=0" {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("logged %q", w.logged())
	}
}

// TestTakeOverWithoutAMessage has the request alone, and one with something else.
func TestTakeOverWithoutAMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	takesOver(w)
	p := w.connect(t)
	p.say(`request\0take_over\0\0`)
	p.hear(`status\01\0\0`)
	r, fd := pipe(t)
	p.say(`request\0take_over\0\0`, fd)
	unix.Close(fd)
	<-p.gone // there is nobody to converse with
	wantClosed(t, r)
	wantLogged(t, w, "request take_over: no file descriptor was sent")
	wantLogged(t, w, "take over from the previous process: ")
}

func wantLogged(t *testing.T, w *world, text string) {
	t.Helper()
	if all := strings.Join(w.logged(), "\n"); !strings.Contains(all, text) {
		t.Errorf("%q is not logged: %s", text, all)
	}
}
