// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/fdpass"
)

// A Sender hands a state over to the next process. Acquire may be called at any time, and more
// than once. Send may be called when nothing changes the state any more. After an error, Send
// can be called again.
type Sender struct {
	Path  string      // of the listening socket
	Owner fdpass.Peer // of the listening socket: nothing is sent to another process

	// Now returns the time of the clock that all processes share, and Pause waits.
	Now   func() time.Duration
	Pause func(time.Duration)

	// AcceptQueued takes a client out of the accept queue. If the queue is empty, the error is
	// fdpass.ErrAgain.
	AcceptQueued func() (Client, error)

	memory *os.File
	conn   *fdpass.Socket // to be connected to the listening socket
	first  *pipe          // for the first batch, whose reading end is sent with the request
	spare  []*pipe        // for queues
}

// A pipe is a socket pair that is used in one direction. This process writes to in; the next
// process gets out, and reads from it.
type pipe struct{ in, out *fdpass.Socket }

// A Result says what was handed over.
type Result struct {
	Clients, Sessions int

	// Unsent and LostClients were not sent, because of Err. The sessions still belong to the
	// caller. The clients are disconnected.
	Unsent      []cache.SavedSession
	LostClients int
	Err         error
}

// batchesPerPipe is how many batches a pipe takes at least, with the usual size of its buffer.
// If it takes fewer, Send makes more pipes.
const batchesPerPipe = 128

// clientsPerBatch is small, as the new process receives all descriptors of a batch or none,
// and may have few left.
const clientsPerBatch = 8

// Acquire acquires in advance what Send needs for this number of sessions: everything whose
// acquisition can fail, except the connection. What it has acquired before, it keeps. After
// a transient failure it tries again, for some milliseconds.
func (s *Sender) Acquire(sessions int) error {
	return s.retry(func() error { return s.acquire(sessions) })
}

func (s *Sender) acquire(sessions int) error {
	if s.memory == nil {
		fd, err := unix.MemfdCreate("scache state", unix.MFD_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("memfd_create", err)
		}
		s.memory = os.NewFile(uintptr(fd), "description")
	}
	if s.conn == nil {
		conn, err := fdpass.NewStream()
		if err != nil {
			return err
		}
		s.conn = conn
	}
	if s.first == nil {
		p, err := newPipe()
		if err != nil {
			return err
		}
		s.first = p
	}
	// For clients, for claims, for those in the accept queue, and to make room for the latter.
	const others = 4
	for len(s.spare) < others+1+sessions/(batchesPerPipe*fdpass.BatchSize) {
		p, err := newPipe()
		if err != nil {
			return err
		}
		s.spare = append(s.spare, p)
	}
	return nil
}

func newPipe() (*pipe, error) {
	in, out, err := fdpass.SocketPair()
	if err != nil {
		return nil, err
	}
	return &pipe{in, out}, nil
}

func (p *pipe) close() {
	p.in.Close()
	p.out.Close()
}

// Close releases what was acquired and not sent.
func (s *Sender) Close() {
	if s.memory != nil {
		s.memory.Close()
	}
	if s.conn != nil {
		s.conn.Close()
	}
	if s.first != nil {
		s.first.close()
	}
	for _, p := range s.spare {
		p.close()
	}
	s.memory, s.conn, s.first, s.spare = nil, nil, nil, nil
}

// Send sends a state. If it returns an error, nothing was sent: everything still belongs to the
// caller. So do the clients that it returns, which came from the accept queue. If there is no
// error, everything belongs to the new process, except what Result says. The caller must exit
// soon.
//
// After a transient failure Send tries again, for some milliseconds. Then it returns the error
// or, if partial is set, sends what can be sent: clients first, then sessions.
func (s *Sender) Send(state *State, partial bool) (Result, []Client, error) {
	t := transfer{Sender: s, state: state, partial: partial}
	err := t.send()
	if err != nil {
		queued := t.takeBackQueued()
		t.close()
		s.Close() // parts of it are used, and cannot be used again
		return Result{}, queued, err
	}
	t.close()
	s.Close() // the kernel has copies of what was sent
	return t.result, nil, nil
}

// A transfer is one call of Send.
type transfer struct {
	*Sender
	state   *State
	partial bool // send what can be sent
	result  Result

	queues   []*queue
	sessions []sessionBatch // in the order of their descriptors
	queued   []Client       // from the accept queue, whose descriptors are in the last queue
}

// A queue is a pipe with batches in it.
type queue struct {
	*pipe
	kind    string
	batches int
}

type sessionBatch struct {
	queue    *queue
	sessions []cache.SavedSession
}

func (t *transfer) close() {
	for _, q := range t.queues {
		q.close()
	}
}

func (t *transfer) send() error {
	if err := t.Acquire(len(t.state.Sessions)); err != nil {
		return err
	}
	if unsent := t.state.fit(maxSize-reservedBytes, maxEntries-reservedEntries); len(unsent) > 0 {
		t.result.Unsent = unsent
		t.lose(errTooLong, len(unsent), 0)
	}
	steps := []func() error{t.sendClients, t.sendClaims, t.sendSessions, t.connect, t.sendMessage}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	t.result.Clients, t.result.Sessions = len(t.state.Clients)+len(t.queued), len(t.state.Sessions)
	return nil
}

// sendClaims sends claims. The next process can do without one: another server may be first
// then.
func (t *transfer) sendClaims() error {
	var sent []Claim
	for _, c := range t.state.Claims {
		err := t.queueBatch(kindReceiverClaim, []int{c.FD})
		switch {
		case err == nil:
			sent = append(sent, c)
		case !t.partial:
			return err
		}
	}
	t.state.Claims = sent
	return nil
}

func (t *transfer) sendClients() error {
	var sent []Client
	for group := range slices.Chunk(t.state.Clients, clientsPerBatch) {
		var fds []int
		for i := range group {
			fds = append(fds, group[i].descriptors()...)
		}
		if err := t.queueBatch(kindClient, fds); err != nil {
			if !t.partial {
				return err
			}
			t.lose(err, 0, len(group))
			continue
		}
		sent = append(sent, group...)
	}
	t.state.Clients = sent
	return nil
}

func (t *transfer) sendSessions() error {
	all := t.state.Sessions
	for group := range slices.Chunk(all, fdpass.BatchSize) {
		fds := make([]int, len(group))
		for i, s := range group {
			fds[i] = s.FD
		}
		if err := t.queueBatch(kindSession, fds); err != nil {
			if !t.partial {
				return err
			}
			rest := all[len(t.sessions)*fdpass.BatchSize:]
			t.result.Unsent = append(t.result.Unsent, rest...)
			t.lose(err, len(rest), 0)
			break
		}
		t.sessions = append(t.sessions, sessionBatch{t.queues[len(t.queues)-1], group})
	}
	return nil
}

// lose counts what cannot be sent. The new process continues this count.
func (t *transfer) lose(err error, sessions, clients int) {
	t.result.Err = errors.Join(t.result.Err, err)
	t.result.LostClients += clients
	t.state.Counts.Lost += int64(sessions + clients)
}

// connect connects to the listening socket. It empties the accept queue first: the new process
// would serve the clients in it before it receives the state, and the queue may be full.
func (t *transfer) connect() error {
	if err := t.sendQueued(); err != nil {
		return err
	}
	err := t.retry(func() error {
		err := t.conn.Connect(t.Path)
		if err == fdpass.ErrAgain { // it has filled up meanwhile
			if full := t.sendQueued(); full != nil {
				return full
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	switch peer, err := fdpass.PeerOf(t.conn.FD()); {
	case err != nil:
		return err
	case peer != t.Owner:
		return fmt.Errorf("another process listens at %s: pid %d of uid %d, not pid %d of uid %d",
			t.Path, peer.PID, peer.UID, t.Owner.PID, t.Owner.UID)
	}
	return nil
}

// sendQueued sends the clients in the accept queue, one after the other, so that this process
// needs a descriptor for one of them at a time. A client that cannot be sent is disconnected:
// it has not been served yet, and connects again.
func (t *transfer) sendQueued() error {
	for {
		var c Client
		err := t.retry(func() (err error) {
			c, err = t.acceptQueued()
			switch n := len(t.spare); {
			case err == fdpass.ErrAgain:
				return nil // no client is left, and c is empty
			case fdpass.Shortage(err) && n > 0: // a spare pipe makes room for a client
				t.spare[n-1].close()
				t.spare = t.spare[:n-1]
			}
			return err
		})
		switch {
		case fdpass.Transient(err) && !t.partial:
			return err
		case err != nil || c.Phase == "": // if any client is left, the next process accepts it
			return nil
		}
		t.state.Counts.Connections++ // the counts were taken before this client was accepted
		err = t.queueBatch(kindQueued, c.descriptors())
		unix.Close(c.FD)
		c.FD = fdpass.None
		if err != nil {
			t.lose(err, 0, 1)
			continue
		}
		t.queued = append(t.queued, c)
	}
}

// acceptQueued accepts a client. What fails for other reasons than a shortage may concern one
// client alone, such as EPERM, so it is tried again.
func (t *transfer) acceptQueued() (c Client, err error) {
	for range 3 {
		c, err = t.AcceptQueued()
		if err == nil || fdpass.Transient(err) {
			break
		}
	}
	return c, err
}

// kindQueued stands for clients from the accept queue, which come after the sessions.
const kindQueued = "queued"

// takeBackQueued receives the clients that sendQueued has sent.
func (t *transfer) takeBackQueued() (clients []Client) {
	i := 0
	for _, q := range t.queues {
		for n := q.batches; q.kind == kindQueued && n > 0; n-- {
			if fds, _, err := q.out.ReceiveBatch(); err == nil {
				c := t.queued[i]
				c.FD = fds[0]
				clients = append(clients, c)
			} else {
				q.out.DiscardBatch()
			}
			i++
		}
	}
	return clients
}

// queueBatch puts descriptors into the last queue of this kind or, where that is full, into
// a new one.
func (t *transfer) queueBatch(kind string, fds []int) error {
	return t.retry(func() error {
		var q *queue
		if n := len(t.queues); n > 0 && t.queues[n-1].kind == kind {
			q = t.queues[n-1]
		}
		for {
			fresh := q == nil
			if fresh {
				p, err := t.takePipe()
				if err != nil {
					return err
				}
				q = &queue{pipe: p, kind: kind}
				t.queues = append(t.queues, q)
			}
			err := q.in.SendBatch(fds)
			if err == nil {
				q.batches++
			}
			if err != fdpass.ErrAgain || fresh {
				return err
			}
			q = nil
		}
	})
}

// takePipe returns a pipe that was acquired, or a new one.
func (s *Sender) takePipe() (*pipe, error) {
	if n := len(s.spare); n > 0 {
		p := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return p, nil
	}
	return newPipe()
}

// sendMessage sends the message, and so commits the transfer. The kernel limits how many
// descriptors a user may have in flight. At this limit, a partial transfer drops sessions.
func (t *transfer) sendMessage() error {
	for {
		err := t.retry(t.sendOnce)
		if err == nil || !t.partial || !fdpass.Transient(err) || !t.dropSessions(err) {
			return err
		}
	}
}

// dropSessions removes a batch of sessions from the transfer, and reports whether there was one.
func (t *transfer) dropSessions(why error) bool {
	if len(t.sessions) == 0 {
		return false
	}
	last := t.sessions[len(t.sessions)-1].queue
	i := slices.IndexFunc(t.sessions, func(b sessionBatch) bool { return b.queue == last })
	last.out.DiscardBatch()
	last.batches--
	dropped := t.sessions[i].sessions
	t.sessions = slices.Delete(t.sessions, i, i+1)
	t.result.Unsent = append(t.result.Unsent, dropped...)
	t.lose(why, len(dropped), 0)
	return true
}

func (t *transfer) sendOnce() error {
	if err := t.writeDescription(); err != nil {
		return err
	}
	first := []int{int(t.memory.Fd()), t.conn.FD()}
	for _, q := range t.queues {
		if q.batches > 0 {
			first = append(first, q.out.FD())
		}
	}
	if len(first) > fdpass.BatchSize {
		return errors.New("too many queues")
	}
	if err := t.first.in.SendBatch(first); err != nil {
		return err
	}
	err := t.conn.SendWith(request(), t.first.out.FD())
	if err != nil {
		t.first.out.DiscardBatch() // for the next attempt
	}
	return err
}

// writeDescription writes the description into the memory file, over an earlier one.
func (t *transfer) writeDescription() error {
	t.state.Sessions = t.state.Sessions[:0:0]
	for _, b := range t.sessions {
		t.state.Sessions = append(t.state.Sessions, b.sessions...)
	}
	if err := t.memory.Truncate(0); err != nil {
		return err
	}
	if _, err := t.memory.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w := bufio.NewWriterSize(t.memory, 1<<16)
	if err := writeState(w, t.state, t.queued, t.Now()); err != nil {
		return err
	}
	return w.Flush()
}

func request() []byte {
	var list bytes.Buffer
	e := attr.NewEncoder(&list)
	e.String("request", Request)
	e.End() // into memory
	return list.Bytes()
}

// retry calls f again after a transient failure. Clients wait meanwhile, so it gives up after
// some 20 ms.
func (s *Sender) retry(f func() error) (err error) {
	const ms = time.Millisecond
	for _, pause := range []time.Duration{ms, 4 * ms, 16 * ms, 0} {
		if err = f(); err == nil || !fdpass.Transient(err) {
			return err
		}
		s.Pause(pause)
	}
	return err
}
