// SPDX-License-Identifier: EPL-2.0

package server

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/fdpass"
)

// The hand-over. A process that is to be replaced leaves all it has to one that
// does not exist yet: it connects to its own listening socket, which master
// keeps open, sends a message, and goes. The connection makes master start the
// successor, which accepts it, reads the message and goes on.
//
// The message is one request, "take_over", with one descriptor: an end of a
// socket pair, in which batches of descriptors are queued. The first batch has a
// file that describes the others; then come the sessions, and then the clients.
// To a server that does not know the request, it is one request that it does not
// know: the kernel closes what it does not take.
//
// The first batch also has our end of the connection itself, which so outlives
// this process: the stock server does not survive a client that is gone before it
// was announced to, but sent something.

const (
	// descriptionVersion changes with the meaning of the description.
	descriptionVersion = 1

	// grace is how long requests in progress are waited for.
	grace = 100 * time.Millisecond

	// transferLimit is how long the message may take at either end.
	transferLimit = 5 * time.Second
)

// HandOver stops all conversations and leaves clients, sessions and bindings to
// whoever serves the socket at this path next. The server does not accept
// clients any more; wait waits until Serve has returned for those it has.
func (s *Server) HandOver(path string, wait func()) {
	end := time.Now().Add(grace)
	s.handOver.Store(&end)
	s.mu.Lock()
	for c := range s.clients {
		c.conn.SetWriteDeadline(end)
		c.conn.SetReadDeadline(time.Unix(1, 0)) // wakes those that are idle
	}
	s.mu.Unlock()
	wait()
	all := s.Cache.TakeAll()
	if len(all.Bindings)+len(all.Sessions)+len(s.leaving) == 0 {
		return
	}
	if err := leave(path, all, s.leaving); err != nil {
		s.Log.Warning("cannot leave %d sessions and %d clients to the next process: %v", len(all.Sessions), len(s.leaving), err)
		for _, session := range all.Sessions {
			s.Cache.Close(session.FD, cache.Flushed)
		}
	}
}

// leave sends the message.
func leave(path string, all cache.Snapshot, clients []*conversation) error {
	ours, theirs, err := fdpass.Pair()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	fd, err := theirs.FD()
	if err != nil {
		return err
	}
	conn, err := connect(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := queueBatches(ours, conn, all, clients); err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(transferLimit))
	var request bytes.Buffer
	out := attr.NewEncoder(&request)
	out.String("request", "take_over")
	if err := out.End(); err != nil {
		return err
	}
	return conn.SendWith(request.Bytes(), fd)
}

// connect connects as a client does. Other clients may be in line: where the
// line is full, it tries for a while.
func connect(path string) (*fdpass.Conn, error) {
	for end := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			return fdpass.New(conn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return nil, err
		}
	}
}

// queueBatches puts all descriptors into a socket that nobody reads yet.
func queueBatches(conn, self *fdpass.Conn, all cache.Snapshot, clients []*conversation) error {
	conn.SetDeadline(time.Now().Add(transferLimit))
	description, err := describe(all, clients)
	if err != nil {
		return err
	}
	defer description.Close()
	selfFD, err := self.FD()
	if err != nil {
		return err
	}
	if err := fdpass.SendBatch(conn.UnixConn, []int{int(description.Fd()), selfFD}); err != nil {
		return err
	}
	var sessions, connections []int
	for _, s := range all.Sessions {
		sessions = append(sessions, s.FD)
	}
	for _, c := range clients {
		fd, err := c.conn.FD()
		if err != nil {
			return err
		}
		connections = append(connections, fd)
	}
	for _, fds := range [][]int{sessions, connections} {
		for len(fds) > 0 {
			n := min(len(fds), fdpass.BatchSize)
			if err := fdpass.SendBatch(conn.UnixConn, fds[:n]); err != nil {
				return err
			}
			fds = fds[n:]
		}
	}
	return nil
}

// describe writes the description into a file in memory. Deadlines are those of
// the clock that all processes share.
func describe(all cache.Snapshot, clients []*conversation) (*os.File, error) {
	fd, err := unix.MemfdCreate("scache description", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "description")
	w := bufio.NewWriter(f)
	if err := encode(w, all, clients, bootTime()); err != nil {
		f.Close()
		return nil, err
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func encode(w io.Writer, all cache.Snapshot, clients []*conversation, now time.Duration) error {
	e := attr.NewEncoder(w)
	e.SetMaxSize(maxEntry)
	e.Int("version", descriptionVersion)
	e.Int("bindings", int32(len(all.Bindings)))
	e.Int("sessions", int32(len(all.Sessions)))
	e.Int("clients", int32(len(clients)))
	if err := e.End(); err != nil {
		return err
	}
	for _, b := range all.Bindings {
		e.String("label", b.Label)
		e.String("property", b.Property)
		e.String("label", b.Endpoint)
		e.Long("deadline", int64(now+b.TTL))
		if err := e.End(); err != nil {
			return err
		}
	}
	for _, s := range all.Sessions {
		e.String("label", s.Label)
		e.String("property", s.Property)
		e.Long("deadline", int64(now+s.TTL))
		if err := e.End(); err != nil {
			return err
		}
	}
	for _, c := range clients {
		e.Bool("to_announce", c.toAnnounce)
		e.Bool("ack_due", c.ackDue)
		if err := e.End(); err != nil {
			return err
		}
	}
	return nil
}

// maxEntry bounds a list of the description: what comes in one request, and a
// little more.
const maxEntry = 2 * attr.DefaultMaxSize

// bootTime returns the time since the machine was started.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("clock_gettime: %v", err)) // there is such a clock since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}
