// SPDX-License-Identifier: EPL-2.0

package server

import (
	"golang.org/x/sys/unix"

	"scache/internal/cache"
)

// Alive tells whether a cached connection can still be used: the remote end has
// neither hung up nor said anything. A descriptor that is not a socket cannot be
// asked, and counts as alive.
func Alive(fd int) bool {
	var b [1]byte
	for {
		_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.ENOTSOCK:
			return true
		}
		return false // something to read, the end of file, or an error
	}
}

// Closer returns a function that closes cached connections, for the cache. It
// takes leave of a remote end that listens with this text, if there is one.
func Closer(goodbye string) func(fd int, why cache.End) {
	text := []byte(goodbye + "\r\n")
	return func(fd int, why cache.End) {
		if goodbye != "" && why != cache.Dead && Alive(fd) {
			unix.Sendto(fd, text, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) // as far as it goes
		}
		unix.Close(fd)
	}
}
