// SPDX-License-Identifier: EPL-2.0

// Command launcher executes a program under a seccomp filter with user
// notification. It is a part of [postfixtest.Injector]:
//
//	launcher FD PATH ARGV0 [ARG…]
//
// FD is a UNIX-domain stream. The launcher reads the filter from there, and sends
// the descriptor at which the other end is notified.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	fd, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fail(err)
	}
	unix.CloseOnExec(fd)
	filter := make([]byte, 8*256)
	n, err := unix.Read(fd, filter)
	if err != nil || n == 0 {
		fail(fmt.Errorf("read the filter: %d, %v", n, err))
	}
	// Only the thread that is going to execute the program has the filter: this one
	// must be able to send the descriptor while the other end does not have it yet.
	installed, sent := make(chan int), make(chan bool)
	go func() {
		runtime.LockOSThread()
		listener, err := install(filter[:n])
		if err != nil {
			fail(fmt.Errorf("install the filter: %w", err))
		}
		installed <- listener
		<-sent
		fail(syscall.Exec(os.Args[2], os.Args[3:], os.Environ()))
	}()
	listener := <-installed
	if err := unix.Sendmsg(fd, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		fail(err)
	}
	sent <- true
	select {}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "launcher:", err)
	os.Exit(1)
}

// install installs a filter for this thread, and returns the descriptor of its
// notifications. A call that waits for an answer should not be interrupted by the
// signals of Go's runtime, as it would be repeated and counted twice; kernels before
// 5.19 cannot do that.
func install(filter []byte) (listener int, err error) {
	instructions := (*unix.SockFilter)(unsafe.Pointer(&filter[0]))
	program := unix.SockFprog{Len: uint16(len(filter) / 8), Filter: instructions}
	for _, flags := range []uintptr{
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
	} {
		fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP,
			unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
		if errno == 0 {
			return int(fd), nil
		}
		err = os.NewSyscallError("seccomp", errno)
	}
	return -1, err
}
