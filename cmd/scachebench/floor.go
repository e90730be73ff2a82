// SPDX-License-Identifier: EPL-2.0

// The floor: a server without a cache, on the same event loops as ours. It makes the system
// calls that a cache server must make, and sends the same replies each time. The difference
// between ours and the floor is the cost of the cache, the protocol and the checks.

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/eventloop"
	"scache/internal/fdpass"
	cache "scache/internal/server"
)

// runFloor serves on the listening socket in descriptor 6 until master(8) closes the status
// channel in descriptor 5.
func runFloor() error {
	go func() {
		io.Copy(io.Discard, os.NewFile(5, "status channel"))
		os.Exit(0)
	}()
	l, err := net.FileListener(os.NewFile(6, "listener"))
	if err != nil {
		return err
	}
	n := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(n + 1)
	start := time.Now()
	var loops []*eventloop.Loop
	for range n {
		loop, err := eventloop.New(func() time.Duration { return time.Since(start) })
		if err != nil {
			return err
		}
		loops = append(loops, loop)
		go loop.Run()
	}
	for i := 0; ; i++ {
		conn, err := l.(*net.UnixListener).AcceptUnix()
		if err != nil {
			return err
		}
		f, err := conn.File()
		conn.Close()
		if err != nil {
			return err
		}
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		f.Close()
		if err != nil {
			return err
		}
		loop := loops[i%n]
		loop.Post(func() {
			client := &floor{Socket: fdpass.NewSocket(fd), fd: fdpass.None}
			client.Send(announcement)
			loop.Add(&client.watch, fd, client)
		})
	}
}

// A floor is one client of the floor, and the descriptor that this client saved last.
type floor struct {
	*fdpass.Socket
	watch eventloop.Watch
	in    [1024]byte
	fd    int
	save  bool // the next message is a descriptor
	find  bool // the next message is the dummy before a descriptor
	once  bool // a session that is saved is not kept
}

// The lists that the floor sends and expects.
var (
	announcement = []byte(cache.Announcement)
	dummy        = list("dummy", "")
	saved        = list("status", "0")
	endpoint     = list("status", "0", "property", endpointProperty)
	noEndpoint   = list("status", "2", "property", "")
	destination  = list("status", "0", "property", destinationProperty, "property", endpointProperty)
	noDest       = list("status", "2", "property", "", "property", "")
)

func list(fields ...string) []byte { return []byte(strings.Join(fields, "\x00") + "\x00\x00") }

// TimedOut does nothing: no client of the floor has a time limit.
func (f *floor) TimedOut() {}

// Ready answers a request. It relies on clients that write each list in one piece.
func (f *floor) Ready() {
	n, err := f.Receive(f.in[:])
	if err == fdpass.ErrAgain {
		return
	}
	if err != nil || !f.answer(f.in[:n]) {
		f.watch.Remove()
		f.Close()
		unix.Close(f.fd)
	}
}

func (f *floor) answer(request []byte) bool {
	switch {
	case f.save:
		f.save = false
		return f.saveEndpoint()
	case f.find:
		f.find = false
		err := f.SendDescriptor(f.fd)
		unix.Close(f.fd)
		f.fd = fdpass.None
		return err == nil
	}
	// The acknowledgement of a descriptor comes before the next request.
	if request = bytes.TrimPrefix(request, dummy); len(request) == 0 {
		return true
	}
	f.once = bytes.Contains(request, []byte(onceWord))
	switch {
	case bytes.HasPrefix(request, []byte("request\x00save_endp\x00")):
		f.save = true
		return f.say(dummy)
	case bytes.HasPrefix(request, []byte("request\x00save_dest\x00")):
		return f.say(saved)
	case bytes.HasPrefix(request, []byte("request\x00find_endp\x00")):
		return f.give(endpoint, noEndpoint)
	case bytes.HasPrefix(request, []byte("request\x00find_dest\x00")):
		return f.give(destination, noDest)
	}
	return false
}

func (f *floor) say(list []byte) bool {
	_, err := f.Send(list)
	return err == nil
}

func (f *floor) saveEndpoint() bool {
	fd, err := f.Take()
	if err != nil {
		return false
	}
	if f.once || f.fd >= 0 {
		unix.Close(fd)
	} else {
		f.fd = fd
	}
	return f.say(saved)
}

func (f *floor) give(found, missing []byte) bool {
	if f.once || f.fd < 0 {
		return f.say(missing)
	}
	f.find = true
	return cache.Alive(f.fd) && f.say(found)
}
