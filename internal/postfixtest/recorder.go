// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/fdpass"
)

// A Recorder is a proxy between the clients of a connection cache and a server. It passes on
// all bytes and descriptors, in both directions and in order, and records them.
type Recorder struct {
	server   *Master
	listener *net.UnixListener
	serving  sync.WaitGroup // both ways of each client
	meeting  sync.Mutex     // held while a client connects, or the server restarts

	mu      sync.Mutex
	lines   []Line
	clients int
	open    map[*fdpass.Conn]bool
	names   map[uint64]string // of descriptors, by inode
	err     error
}

// StartRecorder listens at the path of a socket, for clients of a server that runs.
func StartRecorder(path string, server *Master) (*Recorder, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	r := &Recorder{server: server, listener: l, open: map[*fdpass.Conn]bool{},
		names: map[uint64]string{}}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	go r.accept()
	return r, nil
}

func (r *Recorder) accept() {
	for {
		client, err := r.listener.AcceptUnix()
		if err != nil {
			return // closed
		}
		r.meet(fdpass.New(client))
	}
}

// meet connects a client to the server.
func (r *Recorder) meet(client *fdpass.Conn) {
	r.meeting.Lock()
	defer r.meeting.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.server.Socket, Net: "unix"})
	if err != nil {
		r.err = errors.Join(r.err, err)
		client.Close()
		return
	}
	server := fdpass.New(conn)
	r.clients++
	r.open[client], r.open[server] = true, true
	for _, way := range []struct {
		side     byte
		from, to *fdpass.Conn
	}{{'C', client, server}, {'S', server, client}} {
		n := r.clients
		r.serving.Go(func() {
			defer r.hangUp(client, server)
			if err := r.pass(way.side, n, way.from, way.to); err != nil {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.err = errors.Join(r.err, fmt.Errorf("%c%d: %w", way.side, n, err))
			}
		})
	}
}

// hangUp closes both connections when one has ended.
func (r *Recorder) hangUp(both ...*fdpass.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range both {
		conn.UnixConn.Close()
		delete(r.open, conn)
	}
}

// pass passes on the messages of one side. It records each before it passes it on, so that no
// answer is recorded before its request.
func (r *Recorder) pass(side byte, client int, from, to *fdpass.Conn) error {
	var scan attr.Scanner
	var unread []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return nil // either side may end the connection at any time
		}
		fd, err := from.Take()
		if err == nil { // the descriptor came with the last byte
			n--
		} else if err != fdpass.ErrNone {
			return err
		}
		unread = append(unread, buf[:n]...)
		for size := scan.Size(unread); size > 0; size = scan.Size(unread) {
			if unreadable.Match(unread[:size]) {
				return fmt.Errorf("%q cannot be recorded", unread[:size])
			}
			r.note(Line{Side: side, Client: client, Text: string(unread[:size])})
			unread = unread[size:]
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return nil
		}
		if fd < 0 {
			continue
		}
		if len(unread) > 0 || buf[n] != 0 {
			err = fmt.Errorf("a descriptor came with %q", append(unread, buf[n]))
		} else {
			err = r.passDescriptor(side, client, to, fd)
		}
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
}

func (r *Recorder) passDescriptor(side byte, client int, to *fdpass.Conn, fd int) error {
	name, err := r.name(fd)
	if err != nil {
		return err
	}
	r.note(Line{Side: side, Client: client, Descriptor: name})
	return to.Send(fd)
}

func (r *Recorder) note(l Line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, l)
}

// name returns the name of a descriptor, the same for each copy.
func (r *Recorder) name(fd int) (string, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return "", os.NewSyscallError("fstat", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.names[stat.Ino] == "" {
		r.names[stat.Ino] = string(rune('a' + len(r.names)))
	}
	return r.names[stat.Ino], nil
}

// Lines returns the lines that were recorded so far.
func (r *Recorder) Lines() ([]Line, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Line(nil), r.lines...), r.err
}

// Wait waits, and records that.
func (r *Recorder) Wait(d time.Duration) {
	time.Sleep(d)
	r.note(Line{Wait: d})
}

// Restart ends the server as "postfix reload" does, and starts a new one.
func (r *Recorder) Restart() error {
	r.meeting.Lock()
	defer r.meeting.Unlock()
	if err := r.server.HangUp(); err != nil {
		return err
	}
	r.serving.Wait() // its connections are closed
	r.note(Line{Restart: true})
	return r.server.Start()
}

// Close closes all connections. The server stays.
func (r *Recorder) Close() error {
	err := r.listener.Close()
	r.mu.Lock()
	for conn := range r.open {
		conn.UnixConn.Close()
	}
	r.mu.Unlock()
	r.serving.Wait()
	return err
}
