// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/fdpass"
)

// An Heir goes on with what it is left. Descriptors become its own.
type Heir interface {
	RestoreCounts(Counts)
	RestoreClient(Client)
	RestoreBinding(cache.SavedBinding)
	RestoreSession(cache.SavedSession)
	RestoreHits(Hits)
}

// A Receipt counts what arrived, and the clients and sessions that were announced
// and did not.
type Receipt struct{ Sessions, Bindings, Clients, Lost int }

// patience bounds the time in which nothing arrives. Whoever left the message has
// gone, and all of it is there: only a stranger's would be waited for.
const patience = time.Second

// Receive receives a message by the descriptor that came with the request, which
// it closes. Where something is amiss, all that is not the heir's is closed.
//
// It stops waiting when stop is closed, but not working. announcement is what
// clients hear first that were left by a version that did not say so itself.
func Receive(fd int, heir Heir, now func() time.Duration, announcement []byte, stop <-chan struct{}) (Receipt, error) {
	control := fdpass.NewSocket(fd)
	defer control.Close()
	r := reception{Heir: heir, announcement: announcement, stop: stop}
	err := r.receive(control, now)
	if r.reader != nil {
		r.Lost += r.left[session] + r.left[client]
	}
	return r.Receipt, err
}

// reception is the work of Receive.
type reception struct {
	Heir
	Receipt
	*reader
	announcement []byte
	stop         <-chan struct{}

	sources []*fdpass.Socket // where the batches come from
	batch   []int            // those of the present batch, -1 where one did not arrive
}

func (r *reception) receive(control *fdpass.Socket, now func() time.Duration) error {
	r.waitForDescriptors(control)
	first, _, err := r.receiveBatch(control)
	if err != nil {
		return err
	}
	if len(first) == 0 {
		return errors.New("there is no description")
	}
	f := os.NewFile(uintptr(first[0]), "description")
	defer f.Close()
	defer func() { closeAll(r.batch) }()
	r.sources = []*fdpass.Socket{control} // of version 1
	if len(first) > 1 {
		defer unix.Close(first[1]) // the other end of the connection
	}
	if len(first) > 2 {
		r.sources = nil
		for _, fd := range first[2:] {
			s := fdpass.NewSocket(fd)
			defer s.Close()
			r.sources = append(r.sources, s)
		}
	}
	if r.reader, err = newReader(bufio.NewReaderSize(io.NewSectionReader(f, 0, math.MaxInt64), 1<<16), now); err != nil {
		return err
	}
	for {
		kind, f, err := r.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.restore(kind, f); err != nil {
			return err
		}
	}
}

// restore restores one entry. An error ends it all: it is unknown then which
// descriptor is whose.
func (r *reception) restore(kind string, f fields) error {
	fds := make([]int, r.attached)
	for i := range fds {
		var err error
		if fds[i], err = r.descriptor(kind); err != nil {
			closeAll(fds[:i])
			if kind == session || kind == client {
				r.Lost++
			}
			return err
		}
	}
	var err error
	switch kind {
	case counts:
		var c Counts
		if c, err = restoreCounts(f); err == nil {
			r.RestoreCounts(c)
		}
	case hit:
		var h Hits
		if h, err = restoreHits(f); err == nil {
			r.RestoreHits(h)
		}
	case binding:
		var b cache.SavedBinding
		if b, err = r.restoreBinding(f); err == nil {
			r.RestoreBinding(b)
			r.Bindings++
		}
	case session:
		var s cache.SavedSession
		if s, err = restoreSession(f, complete(fds)); err == nil && s.FD >= 0 {
			r.RestoreSession(s)
			r.Sessions++
			closeAll(fds[1:]) // which are not known
			return nil
		}
		r.Lost++
	case client:
		var c Client
		if c, err = restoreClient(f, r.announcement); err == nil && complete(fds) >= 0 {
			c.FD = fds[0]
			if len(fds) > 1 {
				c.Session = fds[1]
				closeAll(fds[2:]) // which are not known
			}
			r.RestoreClient(c)
			r.Clients++
			return nil
		}
		r.Lost++
	}
	closeAll(fds) // of an entry that is not understood
	return err
}

// complete returns the first of some descriptors, if there are any and all have
// arrived, or -1.
func complete(fds []int) int {
	if len(fds) == 0 || slices.Contains(fds, -1) {
		return -1
	}
	return fds[0]
}

// descriptor returns the next descriptor, or -1 if it did not arrive.
func (r *reception) descriptor(kind string) (int, error) {
	for len(r.batch) == 0 {
		if len(r.sources) == 0 {
			return -1, io.ErrUnexpectedEOF
		}
		r.waitForDescriptors(r.sources[0])
		fds, n, err := r.receiveBatch(r.sources[0])
		if err == io.EOF {
			r.sources = r.sources[1:]
			continue
		}
		if err != nil {
			return -1, err
		}
		if r.version == 1 { // it says nothing of how many there were
			n = min(r.left[kind]+1, fdpass.BatchSize)
		}
		if len(fds) > n {
			closeAll(fds)
			return -1, fmt.Errorf("%d descriptors arrived instead of %d", len(fds), n)
		}
		for len(fds) < n {
			fds = append(fds, -1)
		}
		r.batch = fds
	}
	fd := r.batch[0]
	r.batch = r.batch[1:]
	return fd, nil
}

// receiveBatch waits for a batch.
func (r *reception) receiveBatch(s *fdpass.Socket) (fds []int, n int, err error) {
	const slice = 10 * time.Millisecond
	for waited := time.Duration(0); ; waited += slice {
		fds, n, err = s.ReceiveBatch()
		if err != fdpass.ErrAgain {
			return fds, n, err
		}
		select {
		case <-r.stop:
			return nil, 0, errors.New("stopped: the rest did not arrive")
		default:
		}
		if waited >= patience {
			return nil, 0, errors.New("timeout: the rest did not arrive")
		}
		unix.Poll([]unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}, int(slice.Milliseconds()))
	}
}

// waitForDescriptors waits until this process can have the descriptors of the next
// batch: those of clients may have taken all. Descriptors that cannot be had when
// the batch is received are lost.
func (r *reception) waitForDescriptors(s *fdpass.Socket) {
	const pause = 10 * time.Millisecond
	for !available(s.NextBatch()) {
		select {
		case <-r.stop:
			return
		case <-time.After(pause):
		}
	}
}

// available tells whether this process can have n more descriptors.
func available(n int) bool {
	var probe []int
	defer func() { closeAll(probe) }()
	for range n {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err != unix.EMFILE
		}
		probe = append(probe, fd)
	}
	return true
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
