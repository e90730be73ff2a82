// SPDX-License-Identifier: EPL-2.0

// Ports for servers that are to be started.

package postfixtest

import (
	"math/rand/v2"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// FreePort returns a port that is not in use on 127.0.0.1. Outgoing connections do not get it
// from the kernel, and FreePort returns it to no other test while this process lives.
func FreePort() (port int, err error) {
	for range 100 {
		port = 20000 + rand.IntN(12000)
		if err = reserve(port); err != nil {
			continue
		}
		if err = CheckFree("127.0.0.1:" + strconv.Itoa(port)); err == nil {
			return port, nil
		}
	}
	return 0, err
}

// CheckFree returns an error if a process listens at a TCP address. It binds a socket to the
// address, and does not listen there. A child that is being started has a copy of all sockets
// until it executes its command. A copy of a listening one would still be in the way when the
// address is used.
func CheckFree(address string) error {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: a.Port})
	if ip := a.IP.To4(); ip != nil {
		to.(*unix.SockaddrInet4).Addr = [4]byte(ip)
	} else {
		family = unix.AF_INET6
		to = &unix.SockaddrInet6{Port: a.Port, Addr: [16]byte(a.IP)}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("bind to "+address, unix.Bind(fd, to))
}

// reserve marks a port as taken. It binds a socket to an abstract name, which only one socket
// can have.
func reserve(port int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	name := "@scache-test-port-" + strconv.Itoa(port)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		unix.Close(fd)
		return err
	}
	return nil // the socket stays open as long as the process lives
}
