// SPDX-License-Identifier: EPL-2.0

// The floor: a server without a cache, which makes the system calls that a
// cache server must make and says the same things each time. What a cache
// server in Go takes more than this is what there is left to gain.

package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
	"scache/internal/server"
)

// runFloor serves on the socket that master(8) leaves in descriptor 6, until
// master closes the status channel in descriptor 5.
func runFloor() error {
	go func() {
		io.Copy(io.Discard, os.NewFile(5, "status channel"))
		os.Exit(0)
	}()
	l, err := net.FileListener(os.NewFile(6, "listener"))
	if err != nil {
		return err
	}
	for {
		conn, err := l.(*net.UnixListener).AcceptUnix()
		if err != nil {
			return err
		}
		go (&floor{Conn: fdpass.New(conn), fd: -1}).serve()
	}
}

// A floor is one client of it, and the descriptor that this client saved last.
type floor struct {
	*fdpass.Conn
	in  [1024]byte
	got []byte // the bytes that were read last
	fd  int
}

// Lists that are said.
var (
	announcement = list("protocol", "connection_cache_protocol")
	dummy        = list("dummy", "")
	saved        = list("status", "0")
	endpoint     = list("status", "0", "property", endpointProperty)
	noEndpoint   = list("status", "2", "property", "")
	destination  = list("status", "0", "property", destinationProperty, "property", endpointProperty)
	noDest       = list("status", "2", "property", "", "property", "")
)

func list(fields ...string) []byte { return []byte(strings.Join(fields, "\x00") + "\x00\x00") }

// serve answers requests until one is not understood. It relies on a client that
// writes each list in one piece.
func (f *floor) serve() {
	defer f.Close()
	defer func() { unix.Close(f.fd) }()
	if !f.say(announcement) {
		return
	}
	for f.hear() {
		// The acknowledgement of a descriptor comes before the next request.
		request := bytes.TrimPrefix(f.got, dummy)
		for len(request) == 0 {
			if !f.hear() {
				return
			}
			request = f.got
		}
		once := bytes.Contains(request, []byte(onceWord))
		ok := false
		switch {
		case bytes.HasPrefix(request, []byte("request\x00save_endp\x00")):
			ok = f.save(once)
		case bytes.HasPrefix(request, []byte("request\x00save_dest\x00")):
			ok = f.say(saved)
		case bytes.HasPrefix(request, []byte("request\x00find_endp\x00")):
			ok = f.find(once, endpoint, noEndpoint)
		case bytes.HasPrefix(request, []byte("request\x00find_dest\x00")):
			ok = f.find(once, destination, noDest)
		}
		if !ok {
			return
		}
	}
}

func (f *floor) say(list []byte) bool {
	_, err := f.Write(list)
	return err == nil
}

func (f *floor) hear() bool {
	n, err := f.Read(f.in[:])
	f.got = f.in[:n]
	return err == nil
}

func (f *floor) save(once bool) bool {
	if !f.say(dummy) || !f.hear() {
		return false
	}
	fd, err := f.Take()
	if err != nil {
		return false
	}
	if once || f.fd >= 0 {
		unix.Close(fd)
	} else {
		f.fd = fd
	}
	return f.say(saved)
}

func (f *floor) find(once bool, found, missing []byte) bool {
	if once || f.fd < 0 {
		return f.say(missing)
	}
	defer func() {
		unix.Close(f.fd)
		f.fd = -1
	}()
	return server.Alive(f.fd) && f.say(found) && f.hear() && f.Send(f.fd) == nil
}
