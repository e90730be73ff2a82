// SPDX-License-Identifier: EPL-2.0

package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/cache"
	"scache/internal/fdpass"
)

// takeOver goes on with what a predecessor has left. The predecessor has gone:
// there is nobody to answer.
func (c *conversation) takeOver(list attr.List) error {
	fd, err := c.conn.Take()
	if err == nil && (c.Adopt == nil || len(list) > 0) {
		unix.Close(fd)
		err = errors.New("unexpected request")
	}
	if err != nil {
		c.warn(fmt.Errorf("request take_over: %w", err))
		return c.reply(statusBad)
	}
	t := takeover{Server: c.Server, now: bootTime()}
	if err := t.receive(fd); err != nil {
		c.Log.Warning("take over from the previous process: %v", err)
	}
	c.Log.Info("takeover: sessions=%d bindings=%d clients=%d lost=%d", t.sessions, t.bindings, t.clients, t.lost)
	return io.EOF
}

// A takeover is the reception of what a predecessor has left.
type takeover struct {
	*Server
	now  time.Duration // by the clock of the description
	conn *net.UnixConn // where the batches of descriptors come from
	in   *attr.Decoder // the description of the descriptors

	sessions, bindings, clients int // what was taken over
	lost                        int // descriptors that were announced, and did not arrive
}

func (t *takeover) receive(fd int) (err error) {
	if t.conn, err = fdpass.FromFD(fd); err != nil {
		return err
	}
	defer t.conn.Close()
	t.conn.SetDeadline(time.Now().Add(transferLimit))
	first, err := fdpass.ReceiveBatch(t.conn)
	if err != nil {
		return err
	}
	if len(first) == 0 {
		return errors.New("it left no description")
	}
	f := os.NewFile(uintptr(first[0]), "description")
	defer f.Close()
	defer closeAll(first[1:]) // its end of the connection
	t.in = attr.NewDecoder(bufio.NewReader(io.NewSectionReader(f, 0, math.MaxInt64)))
	t.in.SetMaxSize(maxEntry)
	return t.receiveAll()
}

func (t *takeover) receiveAll() error {
	list, err := t.in.Decode()
	if err != nil {
		return err
	}
	if version, found := list.Lookup("version"); !found || string(version.Value) != fmt.Sprint(descriptionVersion) {
		return fmt.Errorf("it left a description of version %s, not %d: closing all connections", version.Value, descriptionVersion)
	}
	if err := list.Expect("version", "bindings", "sessions", "clients"); err != nil {
		return err
	}
	bindings, err1 := list[1].Int()
	sessions, err2 := list[2].Int()
	clients, err3 := list[3].Int()
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	for range bindings {
		if err := t.restoreBinding(); err != nil {
			return err
		}
	}
	if err := t.eachDescriptor(int(sessions), t.restoreSession); err != nil {
		return err
	}
	return t.eachDescriptor(int(clients), t.restoreClient)
}

// eachDescriptor receives n descriptors, in batches as they were sent, and
// restores each by the next entry of the description. It is called with -1 for
// a descriptor that did not arrive.
func (t *takeover) eachDescriptor(n int, restore func(fd int) error) error {
	for n > 0 {
		size := min(n, fdpass.BatchSize)
		fds, err := fdpass.ReceiveBatch(t.conn)
		if err != nil {
			return err
		}
		if len(fds) > size {
			closeAll(fds)
			return fmt.Errorf("%d descriptors arrived instead of %d", len(fds), size)
		}
		for i := range size {
			fd := -1
			if i < len(fds) {
				fd = fds[i]
			} else {
				t.lost++
			}
			if err := restore(fd); err != nil {
				closeAll(fds[min(i, len(fds)):])
				return err
			}
		}
		n -= size
	}
	return nil
}

func (t *takeover) restoreBinding() error {
	list, err := t.next("label", "property", "label", "deadline")
	if err != nil {
		return err
	}
	ttl, err := t.ttl(list[3])
	if err != nil {
		return err
	}
	t.Cache.RestoreBinding(cache.SavedBinding{
		TTL: ttl, Label: string(list[0].Value), Property: string(list[1].Value), Endpoint: string(list[2].Value),
	})
	t.bindings++
	return nil
}

func (t *takeover) restoreSession(fd int) error {
	list, err := t.next("label", "property", "deadline")
	if err != nil {
		return err
	}
	ttl, err := t.ttl(list[2])
	if err != nil || fd < 0 {
		return err
	}
	t.Cache.RestoreSession(cache.SavedSession{
		TTL: ttl, Label: string(list[0].Value), Property: string(list[1].Value), FD: fd,
	})
	t.sessions++
	return nil
}

func (t *takeover) restoreClient(fd int) error {
	list, err := t.next("to_announce", "ack_due")
	if err != nil {
		return err
	}
	toAnnounce, err1 := list[0].Bool()
	ackDue, err2 := list[1].Bool()
	if err := errors.Join(err1, err2); err != nil || fd < 0 {
		return err
	}
	conn, err := fdpass.FromFD(fd)
	if err != nil {
		t.lost++
		return nil // it is closed
	}
	t.clients++
	t.Adopt(conn, func(conn *net.UnixConn) {
		c := newConversation(t.Server, fdpass.New(conn))
		c.toAnnounce, c.ackDue = toAnnounce, ackDue
		t.converse(c)
	})
	return nil
}

func (t *takeover) next(names ...string) (attr.List, error) {
	list, err := t.in.Decode()
	if err != nil {
		return nil, err
	}
	return list, list.Expect(names...)
}

func (t *takeover) ttl(deadline attr.Attr) (time.Duration, error) {
	at, err := deadline.Long()
	return time.Duration(at) - t.now, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
