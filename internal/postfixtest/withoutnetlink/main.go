// SPDX-License-Identifier: EPL-2.0

// Command withoutnetlink executes the program beside it that has its own name and ".real",
// with all arguments. A seccomp filter refuses netlink sockets, as the sandbox of a container
// does.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread()
	path, err := os.Executable()
	if err == nil {
		err = refuse()
	}
	if err == nil {
		err = syscall.Exec(path+".real", os.Args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "withoutnetlink:", err)
	os.Exit(1)
}

// refuse installs the filter for this thread, which is going to execute the program.
func refuse() error {
	const (
		callOffset     = 0  // of the number in struct seccomp_data
		argumentOffset = 16 // of the first argument, in a little-endian machine
		refused        = unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)
	)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: callOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SOCKET, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: argumentOffset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_NETLINK, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: refused},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}
