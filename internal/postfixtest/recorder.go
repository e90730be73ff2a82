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

// A Recorder stands between the clients of a connection cache and a server. It hands
// on all bytes and descriptors, both ways and as they come, and writes down what goes
// by.
type Recorder struct {
	server   *Master
	listener *net.UnixListener
	serving  sync.WaitGroup // both ways of each client
	meeting  sync.Mutex     // nobody connects meanwhile

	mu      sync.Mutex
	lines   []Line
	clients int
	open    map[*fdpass.Conn]bool
	names   map[uint64]string // of descriptors, by what they refer to
	err     error
}

// StartRecorder listens at the path of a socket, for clients of a server that runs.
func StartRecorder(path string, server *Master) (*Recorder, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	r := &Recorder{server: server, listener: l, open: map[*fdpass.Conn]bool{}, names: map[uint64]string{}}
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

// meet connects a client with the server.
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

// hangUp ends both connections when one has ended.
func (r *Recorder) hangUp(both ...*fdpass.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range both {
		conn.UnixConn.Close()
		delete(r.open, conn)
	}
}

// pass hands on what one side says, and first writes it down: an answer cannot come
// before its request.
func (r *Recorder) pass(side byte, client int, from, to *fdpass.Conn) error {
	var scan attr.Scanner
	var unread []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return nil // whoever ends it, at any place
		}
		fd, err := from.Take()
		if err == nil { // it came with the last byte
			n--
		} else if err != fdpass.ErrNone {
			return err
		}
		unread = append(unread, buf[:n]...)
		for size := scan.Size(unread); size > 0; size = scan.Size(unread) {
			if unreadable.Match(unread[:size]) {
				return fmt.Errorf("%q cannot be written down", unread[:size])
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

// Lines returns what was said so far.
func (r *Recorder) Lines() ([]Line, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Line(nil), r.lines...), r.err
}

// Wait lets time pass.
func (r *Recorder) Wait(d time.Duration) {
	time.Sleep(d)
	r.note(Line{Wait: d})
}

// Restart ends the server as "postfix reload" does, and starts another one.
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

// Close ends all connections. The server goes on.
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
