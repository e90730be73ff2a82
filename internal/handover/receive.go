// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/fdpass"
)

// A Receiver is what the new process needs to receive states.
type Receiver struct {
	Now          func() time.Duration // of the clock that all processes share
	Announcement []byte               // for clients of a state of version 1: see readClient
	Stop         <-chan struct{}      // closed when the process is about to end
	Overtime     <-chan struct{}      // closed when it must end
	MakeRoom     func()               // gives up descriptors that clients need more, or nil
}

// Requested reports whether the other end of a connection has sent the request to receive a
// state, and nothing else.
func Requested(fd int) bool {
	want := request()
	got := make([]byte, len(want)+1)
	n, _, err := unix.Recvfrom(fd, got, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && bytes.Equal(got[:n], want)
}

// Received counts what has arrived. Lost counts the sessions and clients that were announced
// and have not arrived.
type Received struct{ Sessions, Bindings, Clients, Lost int }

// The sender has exited, so everything that it sent has arrived. A reception may still have to
// wait for room: this process may have no descriptors left at the moment. The bounds are on
// the total time of a state, as any process of the user may pretend to be a sender.
const (
	maxWaitForData = time.Second
	maxWaitForRoom = 5 * time.Second
	waitStep       = 10 * time.Millisecond
)

// A Reception is one state, on its way in.
type Reception struct {
	Receiver
	Received
	Err     error // why the rest cannot be read, or nil
	Refused error // why counts were left out: they cannot be true; or nil

	first   *fdpass.Socket // has come with the request, and has the first batch
	memory  *os.File
	entries *entryReader
	ahead   []item           // of entries, and not yielded yet
	sources []*fdpass.Socket // where the batches come from
	batch   []int            // the rest of the present batch
	held    []int            // descriptors that are only kept open until the end

	aheadErr                     error // why nothing can be read after ahead
	expected                     int   // sessions, by the header
	waitedForData, waitedForRoom time.Duration
}

// Receive returns a state that is to be received from the socket fd, which has come with the
// request. Nothing is read before Entries is ranged over.
func (r Receiver) Receive(fd int) *Reception {
	return &Reception{Receiver: r, first: fdpass.NewSocket(fd)}
}

// ExpectedSessions returns how many sessions the state should have.
func (r *Reception) ExpectedSessions() int { return r.expected }

// Entries receives the state, once, and yields its entries: *Counts, *receivers.State (a part of
// it), *cache.SavedBinding, *Announced; then *Client, *Claim, *cache.SavedSession, whose
// descriptors belong to the caller; and at last *LabelCounts. Descriptors of all else are closed.
//
// When Stop is closed, nothing is waited for any more, but what is there is read until Overtime
// is closed.
func (r *Reception) Entries() iter.Seq[any] {
	return func(yield func(any) bool) {
		defer r.close()
		if r.Err = r.open(); r.Err != nil {
			return
		}
		for {
			entry, err := r.next()
			if err == io.EOF {
				return
			}
			if err != nil {
				r.Err = err
				return
			}
			if entry != nil && !yield(entry) {
				return
			}
		}
	}
}

// open receives the first batch, and reads the header of the description.
func (r *Reception) open() error {
	if err := fdpass.AdoptStream(r.first.FD()); err != nil {
		return err
	}
	first, _, err := r.receiveBatch(r.first, true)
	if err != nil {
		return err
	}
	if len(first) == 0 {
		return errors.New("the description is missing")
	}
	r.memory = os.NewFile(uintptr(first[0]), "description")
	r.held = first[1:]
	size, err := memorySize(first[0])
	if err != nil {
		return err
	}
	r.sources = []*fdpass.Socket{r.first} // version 1
	if len(first) > 2 {
		r.held = first[1:2] // the sender's connection to the socket: see the package comment
		r.sources = nil
		for _, fd := range first[2:] {
			r.sources = append(r.sources, fdpass.NewSocket(fd))
		}
	}
	for _, s := range r.sources {
		if err := fdpass.AdoptStream(s.FD()); err != nil {
			return err
		}
	}
	text := io.NewSectionReader(persistentReader{r}, 0, size)
	r.entries, err = newEntryReader(bufio.NewReaderSize(text, 1<<16), r.Now)
	r.expected = r.entries.missing[kindSession]
	if err == nil && r.entries.version > 1 {
		r.readAhead()
	}
	return err
}

// memorySize returns the size of a file, which must be in memory: others may make a reader
// wait.
func memorySize(fd int) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if st.Mode&unix.S_IFMT != unix.S_IFREG || err != nil {
		return 0, errors.New("the description is not a file in memory")
	}
	if st.Size > maxSize {
		return 0, fmt.Errorf("the description has %d bytes, more than %d", st.Size, maxSize)
	}
	return st.Size, nil
}

func (r *Reception) close() {
	closeAll(r.batch)
	closeAll(r.held)
	for _, s := range r.sources {
		s.Close()
	}
	if r.memory != nil {
		r.memory.Close()
	}
	r.first.Close() // may be one of the sources
	if r.entries != nil {
		r.Lost += r.entries.missing[kindSession] + r.entries.missing[kindClient]
	}
	for _, i := range r.ahead {
		r.lose(i.kind)
	}
}

// next returns the next entry, or nil for one that is not understood or not complete. After an
// error nothing more can be read: it is unknown to which entries the next descriptors belong.
func (r *Reception) next() (any, error) {
	if r.stopped() {
		return nil, errStopped
	}
	i, err := r.nextItem()
	if err != nil {
		return nil, err
	}
	var fds []int
	for range i.descriptors {
		fd, err := r.descriptor(i.kind)
		if err != nil {
			closeAll(fds)
			r.lose(i.kind)
			return nil, err
		}
		fds = append(fds, fd)
	}
	entry, used := r.complete(i.entry, fds)
	closeAll(fds[used:])
	if entry == nil {
		r.lose(i.kind)
	}
	return entry, i.err
}

// complete gives an entry its descriptors, and returns how many it has taken. It returns nil if
// some are missing or are of the wrong kind.
func (r *Reception) complete(entry any, fds []int) (completed any, used int) {
	has := len(fds) > 0 && !slices.Contains(fds, fdpass.None)
	switch e := entry.(type) {
	case *cache.SavedBinding:
		r.Bindings++
	case *cache.SavedSession:
		if !has {
			return nil, 0
		}
		e.FD, used = fds[0], 1
		r.Sessions++
	case *Client:
		if !has || fdpass.AdoptStream(fds[0]) != nil {
			return nil, 0
		}
		e.FD, used = fds[0], 1
		if len(fds) > 1 {
			e.Session, used = fds[1], 2
		}
		r.Clients++
	case *Claim:
		if !has {
			return nil, 0
		}
		e.FD, used = fds[0], 1
	}
	return entry, used
}

// lose counts a client or session that has not arrived.
func (r *Reception) lose(kind string) {
	if kind == kindSession || kind == kindClient {
		r.Lost++
	}
}

// descriptor returns the next descriptor, or fdpass.None if it did not arrive.
func (r *Reception) descriptor(kind string) (int, error) {
	for len(r.batch) == 0 {
		if len(r.sources) == 0 {
			return fdpass.None, io.ErrUnexpectedEOF
		}
		fds, n, err := r.receiveBatch(r.sources[0], kind != kindSession)
		if err == io.EOF {
			r.sources[0].Close()
			r.sources = r.sources[1:]
			continue
		}
		if err != nil {
			return fdpass.None, err
		}
		if r.entries.version == 1 {
			n = r.entries.batchOfVersion1(kind)
		}
		if len(fds) > n {
			closeAll(fds)
			return fdpass.None, fmt.Errorf("%d descriptors arrived instead of %d", len(fds), n)
		}
		for len(fds) < n {
			fds = append(fds, fdpass.None)
		}
		r.batch = fds
	}
	fd := r.batch[0]
	r.batch = r.batch[1:]
	return fd, nil
}

// receiveBatch receives a batch. It waits for the batch, and for room for its descriptors. If
// there is no room in time, it discards the batch, and the descriptors are missing. If urgent
// is set, it calls MakeRoom.
func (r *Reception) receiveBatch(s *fdpass.Socket, urgent bool) (fds []int, n int, err error) {
	for {
		fds, n, err = s.ReceiveBatch()
		switch {
		case err == nil || !fdpass.Transient(err):
			return fds, n, err
		case err == fdpass.ErrNoRoom:
			if urgent && r.MakeRoom != nil {
				r.MakeRoom()
			}
			if !r.wait(&r.waitedForRoom, maxWaitForRoom) {
				n, err := s.DiscardBatch()
				return nil, n, err
			}
		case !r.wait(&r.waitedForData, maxWaitForData):
			return nil, 0, fmt.Errorf("the rest has not arrived: %w", err)
		}
	}
}

var errStopped = errors.New("the rest was not read: the process is about to end")

// stopped reports whether the process must end.
func (r *Reception) stopped() bool {
	select {
	case <-r.Overtime:
		return true
	default:
		return false
	}
}

// wait waits for waitStep, and reports whether it did. It does not wait if the total time has
// reached most, or if Stop is closed.
func (r *Reception) wait(total *time.Duration, most time.Duration) bool {
	if *total >= most {
		return false
	}
	*total += waitStep
	select {
	case <-r.Stop:
		return false
	case <-time.After(waitStep):
		return true
	}
}

// A persistentReader reads the memory file. After a transient failure it tries again.
type persistentReader struct{ *Reception }

func (p persistentReader) ReadAt(b []byte, off int64) (n int, err error) {
	for {
		n, err = p.memory.ReadAt(b, off)
		if err == nil || !fdpass.Transient(err) || !p.wait(&p.waitedForData, maxWaitForData) {
			return n, err
		}
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd != fdpass.None {
			unix.Close(fd)
		}
	}
}
