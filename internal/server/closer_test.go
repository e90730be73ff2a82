// SPDX-License-Identifier: EPL-2.0

package server

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/client"
	"scache/internal/maillog"
	"scache/internal/testenv"
)

func newCloser(goodbye string) *Closer {
	return &Closer{Goodbye: goodbye, Labels: NewLabels(func() time.Duration { return 0 })}
}

// TestCloser_saysGoodbyeToLiveConnections has remote ends that listen, that have sent
// something, and that have hung up; one and many.
func TestCloser_saysGoodbyeToLiveConnections(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, maxInlineClose + 1} {
		for name, test := range map[string]struct {
			goodbye string
			why     cache.Reason
			before  func(remote int)
			want    string
		}{
			"listens":             {"QUIT", cache.Expired, func(int) {}, "QUIT\r\n"},
			"listens, no goodbye": {"", cache.Expired, func(int) {}, ""},
			"has sent something": {"QUIT", cache.Expired, func(remote int) {
				unix.Write(remote, []byte("421 bye\r\n"))
			}, ""},
			"has hung up": {"QUIT", cache.Expired, func(remote int) {
				unix.Shutdown(remote, unix.SHUT_WR)
			}, ""},
			"was found dead": {"QUIT", cache.Dead, func(int) {}, ""},
		} {
			var remotes []int
			var all []cache.Dropped
			for range n {
				const kind = unix.SOCK_STREAM | unix.SOCK_CLOEXEC
				pair, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
				if err != nil {
					t.Fatal(err)
				}
				test.before(pair[0])
				remotes = append(remotes, pair[0])
				all = append(all, cache.Dropped{FD: pair[1], Why: test.why})
			}
			c := newCloser(test.goodbye)
			c.Close(all)
			c.Wait(time.Minute)
			for _, remote := range remotes {
				buf := make([]byte, 100)
				heard, _ := unix.Read(remote, buf)
				if got := string(buf[:max(heard, 0)]); got != test.want {
					t.Errorf("%d, %s: got %q, want %q", n, name, got, test.want)
				}
				if end, _ := unix.Read(remote, buf); end > 0 {
					t.Errorf("%d, %s: got an open connection, want it closed", n, name)
				}
				unix.Close(remote)
			}
		}
	}
}

// unread returns a TCP connection with SO_LINGER and more data than its remote end, which
// does not read, has room for.
func unread(t *testing.T) (fd int, remote net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	remote, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remote.Close() })
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(f uintptr) {
		fd, err = unix.FcntlInt(f, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err != nil {
		t.Fatal(err)
	}
	linger := unix.Linger{Onoff: 1, Linger: 20}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 64<<10))
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	return fd, remote
}

// soon is far less than the 20 s of SO_LINGER, and more than a busy machine needs.
const soon = 5 * time.Second

// TestCloser_doesNotLinger closes connections whose unsent data is not read: neither the
// caller nor the end of the process waits for them, and the kernel still sends the data.
func TestCloser_doesNotLinger(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"some": 6, "many": maxInlineClose + 2} {
		c := newCloser("QUIT")
		var all []cache.Dropped
		var remotes []net.Conn
		for range n {
			fd, remote := unread(t)
			all = append(all, cache.Dropped{FD: fd, Why: cache.Expired})
			remotes = append(remotes, remote)
		}
		start := time.Now()
		c.Close(all)
		if took := time.Since(start); took > soon/5 {
			t.Errorf("%s: got Close after %v, want it at once", name, took)
		}
		c.Wait(time.Minute)
		if took := time.Since(start); took > soon {
			t.Errorf("%s: got all closed after %v, want less than %v", name, took, soon)
		}
		remotes[0].SetReadDeadline(time.Now().Add(time.Minute))
		if got, err := io.Copy(io.Discard, remotes[0]); err != nil || got < 64<<10 {
			t.Errorf("%s: got %d bytes, %v, want all of them and the end", name, got, err)
		}
	}
}

// TestCloser_isNotHeldUpByAFile closes files whose close(2) blocks: connections are closed
// meanwhile, and waiting for all ends in time.
func TestCloser_isNotHeldUpByAFile(t *testing.T) {
	t.Parallel()
	c := newCloser("")
	blocked := make(chan struct{})
	c.others.add(make([]cache.Dropped, 2*maxCloseWorkers), maxCloseWorkers,
		func(cache.Dropped) { <-blocked }) // as a file system that does not answer
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	fd, remote := unread(t)
	c.Close([]cache.Dropped{{FD: pipe[1]}, {FD: fd}})
	remote.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, remote); err != nil {
		t.Errorf("got %v, want the end of the connection", err)
	}
	start := time.Now()
	c.Wait(10 * time.Millisecond)
	if took := time.Since(start); took > soon {
		t.Errorf("got Wait after %v, want 10 ms", took)
	}
	close(blocked)
	c.Wait(time.Minute)
	if n, err := unix.Read(pipe[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("got %d, %v, want the end of the pipe", n, err)
	}
}

// TestSave_whileManyWaitToBeClosed has files whose close(2) blocks, and more of them than may
// wait: no descriptor is received, so descriptors do not run out. Other requests are answered,
// and sessions are saved again when the file system answers.
func TestSave_whileManyWaitToBeClosed(t *testing.T) {
	t.Parallel()
	c := newCloser("")
	for name, test := range map[string]struct{ copies, sessions int }{
		"copies":   {maxWaitingToClose + 1, 0},
		"sessions": {0, maxWaitingToClose + 1},
		"both":     {maxWaitingToClose/2 + 1, maxWaitingToClose / 2},
	} {
		w := newWorld(t)
		w.Waiting = c.Waiting
		p := w.connect(t)
		_, kept := testenv.Pipe(t)
		p.save("kept", kept)
		unix.Close(kept)
		blocked := make(chan struct{})
		for q, n := range map[*closeQueue]int{&w.copies: test.copies, &c.others: test.sessions} {
			if n > 0 {
				q.add(make([]cache.Dropped, n+maxCloseWorkers), maxCloseWorkers,
					func(cache.Dropped) { <-blocked })
			}
		}
		testenv.Eventually(t, "all workers are busy", func() bool {
			return w.waitingToClose() == test.copies+test.sessions
		})
		r, fd := testenv.Pipe(t)
		p.say(`request\0save_endp\0ttl\02\0label\0e\0property\0\0\0`)
		p.hear(`dummy\0\0\0`)
		p.say(`\0`, fd)
		p.hear(`status\02\0\0`)
		unix.Close(fd)
		testenv.WantClosed(t, r)
		p.say(`request\0find_endp\0label\0kept\0\0`)
		p.hear(`status\00\0property\0of kept\0\0`)
		close(blocked)
		testenv.Eventually(t, "nothing waits", func() bool { return w.waitingToClose() == 0 })
		p.say(`dummy\0\0\0`)
		p.hear(`\0`)
		if fd, err := p.Take(); err != nil || unix.Close(fd) != nil {
			t.Errorf("%s: got %v, want the session", name, err)
		}
		p.say(`dummy\0\0\0`)
		_, fd = testenv.Pipe(t)
		p.save("again", fd)
		unix.Close(fd)
	}
}

// TestDescriptors_inVainBlockNoLoop has a client send descriptors that no request asks for, and
// go. They are files, and those whose close(2) comes first block: the loop does not wait for it.
func TestDescriptors_inVainBlockNoLoop(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 2; n++ {
		w := newWorld(t)
		blocked := make(chan struct{})
		w.copies.add(make([]cache.Dropped, maxCloseWorkers), maxCloseWorkers,
			func(cache.Dropped) { <-blocked })
		testenv.Eventually(t, "all workers are busy", func() bool { return w.waitingToClose() == 0 })
		p := w.connect(t)
		var fds []int
		for range n {
			fd, err := unix.MemfdCreate("file", unix.MFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			fds = append(fds, fd)
		}
		p.say(`request\0`, fds...)
		p.leave()
		if got := w.waitingToClose(); got != n {
			t.Errorf("got %d descriptors that wait to be closed, want %d", got, n)
		}
		close(blocked)
	}
}

// TestCloser_closesInlineWhenBehind has more connections waiting than the limit: the
// caller then closes its own.
func TestCloser_closesInlineWhenBehind(t *testing.T) {
	t.Parallel()
	c := newCloser("")
	blocked := make(chan struct{})
	c.sockets.add(make([]cache.Dropped, maxInlineClose+2), 1, func(cache.Dropped) { <-blocked })
	fd, remote := unread(t)
	c.Close([]cache.Dropped{{FD: fd}})
	remote.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, remote); err != nil {
		t.Errorf("got %v, want the end of the connection", err)
	}
	close(blocked)
	c.Wait(time.Minute)
}

// TestCloser_pipe closes a pipe while files cannot be closed: that does not use up descriptors.
func TestCloser_pipe(t *testing.T) {
	t.Parallel()
	c := newCloser("")
	blocked := make(chan struct{})
	block := func(cache.Dropped) { <-blocked }
	c.sockets.add(make([]cache.Dropped, maxInlineClose+2), 1, block)
	c.others.add(make([]cache.Dropped, maxCloseWorkers), maxCloseWorkers, block)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	c.Close([]cache.Dropped{{FD: pipe[1]}})
	if n, err := unix.Read(pipe[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("got %d, %v, want its end at once", n, err)
	}
	close(blocked)
	c.Wait(time.Minute)
}

// TestCloseQueue_copies closes a copy inline if that cannot block. The connection keeps
// SO_LINGER for its other owner.
func TestCloseQueue_copies(t *testing.T) {
	t.Parallel()
	var q closeQueue
	fd, remote := unread(t)
	kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	q.closeFD(fd)
	if took := time.Since(start); took > soon {
		t.Errorf("copy: got %v, want it at once", took)
	}
	linger, err := unix.GetsockoptInt(kept, unix.SOL_SOCKET, unix.SO_LINGER)
	if err != nil || linger == 0 {
		t.Errorf("got SO_LINGER %d, %v, want it on", linger, err)
	}
	q.closeFD(kept) // the last one lingers, in the background
	if took := time.Since(start); took > soon {
		t.Errorf("last copy: got %v, want it at once", took)
	}
	go io.Copy(io.Discard, remote)
	<-q.whenIdle()

	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	q.closeFD(pipe[1])
	if n, err := unix.Read(pipe[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("pipe: got %d, %v, want its end at once", n, err)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if !mayBlock(int(file.Fd())) {
		t.Error("file: got that it cannot block, want that it may")
	}
}

// TestCloser_doesNotDelayClients ends connections that linger in each way that a client
// can cause, with all clients in one event loop. Another client measures the delay.
func TestCloser_doesNotDelayClients(t *testing.T) {
	t.Parallel()
	closer := newCloser("QUIT")
	start := time.Now()
	clock := func() time.Duration { return time.Since(start) }
	s := &Server{Log: maillog.New(), Timeout: time.Minute, Labels: closer.Labels}
	s.Cache = cache.New(cache.Config{
		Now: clock, Alarm: func(time.Duration) {}, Alive: Alive, Release: closer.Close,
	})
	if err := s.Start(1, clock); err != nil {
		t.Fatal(err)
	}
	connect := func() *client.Client {
		p, theirs := newPeer(t)
		s.Accept(theirs, func(bool) { close(p.gone) })
		t.Cleanup(p.leave)
		return client.Detect(p.Conn)
	}
	t.Cleanup(func() { s.Stop(); closer.Wait(time.Minute) })
	bad, good := connect(), connect()
	for name, end := range map[string]func(remotes []net.Conn) error{
		"flushed": func([]net.Conn) error {
			_, err := bad.Flush("bad")
			return err
		},
		"dead": func(remotes []net.Conn) error {
			for _, remote := range remotes {
				remote.Write([]byte("421 bye\r\n"))
			}
			_, err := bad.FindEndpoint("bad")
			return err
		},
		"found, and not taken": func([]net.Conn) error {
			c := connect()
			c.Conn.Write([]byte(wire(`request\0find_endp\0label\0bad\0\0`)))
			return c.Close()
		},
		"sent unasked": func([]net.Conn) error {
			fd, _ := unread(t)
			p, theirs := newPeer(t)
			s.Accept(theirs, func(bool) { close(p.gone) })
			p.say(`request\0find_endp\0label\0none\0\0`, fd)
			unix.Close(fd)
			p.leave()
			return nil
		},
		"evicted": func([]net.Conn) error {
			s.Cache.SetLimit(func() int { return 1 })
			_, err := bad.SaveDestination(60, "d", "p", "bad")
			return err
		},
	} {
		var remotes []net.Conn
		s.Cache.SetLimit(func() int { return 100 })
		for range 6 {
			fd, remote := unread(t)
			remotes = append(remotes, remote)
			s.Cache.SaveSession(time.Minute, []byte("bad"), []byte("p"), fd)
		}
		start := time.Now()
		done := make(chan error)
		go func() { done <- end(remotes) }()
		slowest := time.Duration(0)
		for running := true; running; {
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				running = false
			default:
			}
			before := time.Now()
			if _, err := good.FindEndpoint("good"); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			slowest = max(slowest, time.Since(before))
		}
		closer.Wait(time.Minute)
		took := time.Since(start)
		t.Logf("%s: slowest lookup %v, all closed after %v", name, slowest, took)
		if slowest > soon || took > soon {
			t.Errorf("%s: got a lookup of %v and all closed after %v, want less than %v",
				name, slowest, took, soon)
		}
		s.Cache.Clear()
	}
}
