// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/fdpass"
)

// A Route leads to the next process.
type Route struct {
	Path  string      // of the listening socket
	Owner fdpass.Peer // who listens there: nobody else is left anything
	Now   time.Duration

	// NextInLine takes a client out of the accept queue, where that is full.
	// Nobody would come in otherwise.
	NextInLine func() (Client, error)
}

// Leave leaves an estate to whoever serves the listening socket next. It never
// waits, and owns all descriptors from the beginning but those of the sessions
// that it returns: they could not be left, for want of room in the kernel or with
// any other error. The estate is cut down to what was left.
func Leave(route Route, e *Estate) (rest []cache.SavedSession, err error) {
	l := leaving{route: route, estate: e}
	defer l.close()
	sessions := e.Sessions
	full := l.queueClients()
	if err := l.connect(); err != nil {
		return l.fail(sessions, full, err)
	}
	l.withClients = len(l.queues)
	if full == nil {
		full = l.queueSessions()
	} else {
		e.Sessions = nil
	}
	err = l.send()
	for errors.Is(err, unix.ETOOMANYREFS) && l.giveBack() {
		full, err = err, l.send()
	}
	if err != nil {
		return l.fail(sessions, full, err)
	}
	for _, s := range e.Sessions {
		unix.Close(s.FD)
	}
	return sessions[len(e.Sessions):], full
}

// leaving is the work of Leave.
type leaving struct {
	route  Route
	estate *Estate
	conn   *fdpass.Socket // to the next process
	queue  *fdpass.Socket // where batches are put
	queues []queue        // what goes to the next process: those with clients, then those with sessions

	withClients    int // how many of the queues have clients
	queuedSessions int // how many sessions are in the others
}

// A queue is the end of a socket pair where batches are taken out.
type queue struct {
	*fdpass.Socket
	before int // how many sessions are in the queues before it
}

func (l *leaving) close() {
	l.endQueue()
	for _, q := range l.queues {
		q.Close()
	}
	if l.conn != nil {
		l.conn.Close()
	}
}

// fail is for when nothing can be left.
func (l *leaving) fail(sessions []cache.SavedSession, errs ...error) ([]cache.SavedSession, error) {
	l.estate.Clients = nil
	return sessions, errors.Join(errs...)
}

// groupSize is how many clients go in one batch. Each has one descriptor or two.
// The next process may have so few left that it can only take some at a time.
const groupSize = 8

// queueClients comes first, as the descriptors are needed: our copies are closed.
// Those that find no room are gone.
func (l *leaving) queueClients() (full error) {
	clients := l.estate.Clients
	l.estate.Clients = nil
	for group := range slices.Chunk(clients, groupSize) {
		full = l.queueGroup(group, full)
	}
	return full
}

// queueGroup queues some clients, unless there is no room any more.
func (l *leaving) queueGroup(group []Client, full error) error {
	var fds []int
	for i := range group {
		fds = append(fds, group[i].descriptors()...)
	}
	if full == nil {
		full = l.queueBatch(fds)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	if full == nil {
		l.estate.Clients = append(l.estate.Clients, group...)
	}
	return full
}

// queueSize is how many sessions go into a queue. The kernel takes 70,000.
const queueSize = 16 * fdpass.BatchSize

// queueSessions queues as many as the kernel takes, in queues of their own.
func (l *leaving) queueSessions() error {
	for group := range slices.Chunk(l.estate.Sessions, fdpass.BatchSize) {
		if l.queuedSessions%queueSize == 0 {
			l.endQueue()
		}
		fds := make([]int, len(group))
		for i, s := range group {
			fds[i] = s.FD
		}
		if err := l.queueBatch(fds); err != nil {
			l.estate.Sessions = l.estate.Sessions[:l.queuedSessions]
			return err
		}
		l.queuedSessions += len(group)
	}
	return nil
}

// giveBack takes the last sessions out of the message again, for the sake of all else,
// if there are any. A user may only have so many descriptors in flight, and others of
// its processes may have some, too: then not even the message itself can be sent.
func (l *leaving) giveBack() bool {
	last := len(l.queues) - 1
	if last < l.withClients {
		return false
	}
	l.endQueue()
	l.queues[last].Close()
	l.estate.Sessions = l.estate.Sessions[:l.queues[last].before]
	l.queues = l.queues[:last]
	return true
}

// endQueue makes the next batch go into a new queue.
func (l *leaving) endQueue() {
	if l.queue != nil {
		l.queue.Close()
		l.queue = nil
	}
}

// queueBatch puts descriptors into the present queue or, where that is full, a
// new one.
func (l *leaving) queueBatch(fds []int) error {
	if l.queue != nil {
		err := l.queue.SendBatch(fds)
		if err != fdpass.ErrAgain {
			return err
		}
		l.endQueue()
	}
	ours, theirs, err := fdpass.SocketPair()
	if err != nil {
		return err
	}
	l.queue, l.queues = ours, append(l.queues, queue{theirs, l.queuedSessions})
	return l.queue.SendBatch(fds)
}

// connect connects as a client does. Where the line is full, clients that are in
// it come first.
func (l *leaving) connect() error {
	for {
		var err error
		if l.conn, err = fdpass.Connect(l.route.Path); err == nil {
			break
		} else if err != fdpass.ErrAgain {
			return err
		}
		next, err := l.route.NextInLine()
		if err != nil {
			return fmt.Errorf("the accept queue is full: %w", err)
		}
		if err := l.queueGroup([]Client{next}, nil); err != nil {
			return err
		}
	}
	switch peer, err := fdpass.PeerOf(l.conn.FD()); {
	case err != nil:
		return err
	case peer != l.route.Owner:
		return fmt.Errorf("another process listens at %s: pid %d of uid %d, not pid %d of uid %d",
			l.route.Path, peer.PID, peer.UID, l.route.Owner.PID, l.route.Owner.UID)
	}
	return nil
}

// send sends the message.
func (l *leaving) send() error {
	description, err := l.describe()
	if err != nil {
		return err
	}
	defer description.Close()
	ours, theirs, err := fdpass.SocketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	defer theirs.Close()
	first := []int{int(description.Fd()), l.conn.FD()}
	for _, q := range l.queues {
		first = append(first, q.FD())
	}
	if len(first) > fdpass.BatchSize {
		return errors.New("too many queues")
	}
	if err := ours.SendBatch(first); err != nil {
		return err
	}
	return l.conn.SendWith(request(), theirs.FD())
}

func request() []byte {
	var list bytes.Buffer
	e := attr.NewEncoder(&list)
	e.String("request", Request)
	e.End() // into memory
	return list.Bytes()
}

// describe writes the description into a file in memory.
func (l *leaving) describe() (*os.File, error) {
	fd, err := unix.MemfdCreate("scache description", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "description")
	w := bufio.NewWriterSize(f, 1<<16)
	if err := errors.Join(describe(w, l.estate, l.route.Now), w.Flush()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
