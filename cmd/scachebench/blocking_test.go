// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
)

// connected returns a blocking connection and its other end.
func connected(t *testing.T, limit time.Duration) (*blocking, *fdpass.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := dialBlocking(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	c := fdpass.New(conn)
	t.Cleanup(func() { c.Close() })
	return b, c
}

func TestBlocking_passesDescriptorsBothWays(t *testing.T) {
	t.Parallel()
	b, c := connected(t, time.Minute)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := b.Send(int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if n, err := c.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Fatalf("got %d bytes, %v, want 1", n, err)
	}
	fd, err := c.Take()
	if err != nil {
		t.Fatal(err)
	}
	err = c.Send(fd)
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := b.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("got %d bytes, %v, want 1", n, err)
	}
	if fd, err = b.Take(); err != nil {
		t.Fatal(err)
	}
	unix.Write(fd, []byte("x"))
	unix.Close(fd)
	if got, err := io.ReadAll(r); string(got) != "x" || err != nil {
		t.Errorf("got %q, %v, want x", got, err)
	}
}

func TestBlocking_writesAll(t *testing.T) {
	t.Parallel()
	b, c := connected(t, time.Minute)
	text := make([]byte, 4<<20)
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		b.Write(text)
		b.Close()
	})
	if got, err := io.ReadAll(c); len(got) != len(text) || err != nil {
		t.Errorf("got %d bytes, %v, want %d", len(got), err, len(text))
	}
}

func TestBlocking_waitsNoLongerThanItsLimit(t *testing.T) {
	t.Parallel()
	b, c := connected(t, 20*time.Millisecond)
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want %v", err, os.ErrDeadlineExceeded)
	}
	c.Close()
	b.limit = time.Minute // a process that has just been forked may hold a copy for a moment
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("got %d bytes, %v, want the end", n, err)
	}
	if _, err := dialBlocking("/nonexistent", time.Second); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want %v", err, unix.ENOENT)
	}
}
