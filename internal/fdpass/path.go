// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxPath is how long the path in the address of a socket may be.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// Dial connects to a stream socket. Its path may be longer than an address has room for, as
// master(8) binds its sockets to relative paths: then it is reached through its directory.
func Dial(path string, timeout time.Duration) (*net.UnixConn, error) {
	address := path
	if len(path) > maxPath {
		directory, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "unix", Err: err}
		}
		defer directory.Close()
		address = fmt.Sprintf("/proc/self/fd/%d/%s", directory.Fd(), filepath.Base(path))
	}
	conn, err := net.DialTimeout("unix", address, timeout)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
