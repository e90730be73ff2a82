// SPDX-License-Identifier: EPL-2.0

package fdpass_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
)

// TestDial has paths around the length that an address has room for.
func TestDial(t *testing.T) {
	dir := t.TempDir()
	for _, length := range []int{106, 107, 108, 109, 200} {
		long := filepath.Join(dir, strings.Repeat("x", length-len(dir)-len("//socket")))
		if err := os.Mkdir(long, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(long, "socket")
		_, err := fdpass.Dial(path, time.Minute)
		if !errors.Is(err, unix.ENOENT) {
			t.Errorf("%d bytes: got %v, want %v", len(path), err, unix.ENOENT)
		}
		// The socket is bound to a shorter path.
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(long, link); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(link, "socket"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := fdpass.Dial(path, time.Minute)
		if err != nil {
			t.Errorf("%d bytes: got %v", len(path), err)
		} else {
			conn.Close()
		}
		l.Close()
	}
	gone := filepath.Join(dir, strings.Repeat("y", 200), "socket")
	if _, err := fdpass.Dial(gone, time.Minute); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want %v", err, unix.ENOENT)
	}
}
