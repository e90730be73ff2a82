// SPDX-License-Identifier: EPL-2.0

package fdpass

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
)

// connected returns a Blocking and the Conn that it is connected to.
func connected(t *testing.T, limit time.Duration) (*Blocking, *Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := DialBlocking(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	c := New(conn)
	t.Cleanup(func() { c.Close() })
	return b, c
}

func TestBlockingPassesDescriptorsBothWays(t *testing.T) {
	t.Parallel()
	b, c := connected(t, time.Minute)
	r, w := pipe(t)
	if err := b.Send(w); err != nil {
		t.Fatal(err)
	}
	unix.Close(w)
	read(t, c)
	fd, err := c.Take()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(fd); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if n, err := b.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
	if fd, err = b.Take(); err != nil {
		t.Fatal(err)
	}
	unix.Write(fd, []byte("x"))
	unix.Close(fd)
	if got, err := io.ReadAll(r); string(got) != "x" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestBlockingWritesAll(t *testing.T) {
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
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

func TestBlockingDoesNotWaitForever(t *testing.T) {
	t.Parallel()
	b, c := connected(t, 20*time.Millisecond)
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	c.Close()
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := DialBlocking("/nonexistent", time.Second); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}
