// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
)

// An Injector makes a system call of the processes that it starts fail. The N-th call
// of a kind fails once, counted over all of these processes; every other call is left
// to the kernel. It works by a seccomp filter with user notification, which needs root
// and Linux 5.5.
type Injector struct {
	launcher string

	mu     sync.Mutex
	armed  bool
	denies bool
	fault  Fault
	counts map[string]int
	failed *FailedCall
	starts int // processes since it was armed
}

// A Fault says which call fails, and with which error. With N zero no call fails.
type Fault struct {
	Kind  string
	Errno unix.Errno
	N     int
}

// String returns the fault as KIND:ERRNO:N.
func (f Fault) String() string {
	return fmt.Sprintf("%s:%s:%d", f.Kind, unix.ErrnoName(f.Errno), f.N)
}

// A FailedCall describes the call that failed.
type FailedCall struct {
	Start int // 0 in the process that ran when the fault was armed, 1 in the next one, …
	Args  [3]uint64
	File  string // what the first argument refers to, if it is a descriptor
}

// String returns the hit for a person to read.
func (h *FailedCall) String() string {
	if h == nil {
		return "the call did not occur"
	}
	return fmt.Sprintf("in process %d, on %s, arguments %#x", h.Start, h.File, h.Args)
}

// tracedCalls are the kinds of system calls. Where inMemory is set, only calls on a
// file in memory are counted: the others of the kind are the runtime's own. Of
// epoll_ctl, those are counted that add a descriptor, and of fcntl those that duplicate
// one. A sendmsg with control data is of a kind of its own, sendmsg_rights.
var tracedCalls = append([]tracedCall{
	{kind: "socketpair", number: unix.SYS_SOCKETPAIR},
	{kind: "memfd_create", number: unix.SYS_MEMFD_CREATE},
	{kind: "write", number: unix.SYS_WRITE, inMemory: true},
	{kind: "write", number: unix.SYS_PWRITE64, inMemory: true},
	{kind: "write", number: unix.SYS_WRITEV, inMemory: true},
	{kind: "ftruncate", number: unix.SYS_FTRUNCATE},
	{kind: "pread64", number: unix.SYS_PREAD64},
	{kind: "read", number: unix.SYS_READ, inMemory: true},
	{kind: "socket", number: unix.SYS_SOCKET},
	{kind: "connect", number: unix.SYS_CONNECT},
	{kind: "sendmsg", number: unix.SYS_SENDMSG},
	{kind: "recvmsg", number: unix.SYS_RECVMSG},
	{kind: "epoll_ctl", number: unix.SYS_EPOLL_CTL},
	{kind: "accept4", number: unix.SYS_ACCEPT4},
	{kind: "getsockopt", number: unix.SYS_GETSOCKOPT},
	{kind: "eventfd2", number: unix.SYS_EVENTFD2},
	{kind: "epoll_create1", number: unix.SYS_EPOLL_CREATE1},
	{kind: "fcntl", number: unix.SYS_FCNTL},
	{kind: "dup", number: unix.SYS_DUP},
	{kind: "dup", number: unix.SYS_DUP3},
	{kind: "poll", number: unix.SYS_PPOLL},
}, tracedHere...)

type tracedCall struct {
	kind     string
	number   uint32
	inMemory bool
}

// NewInjector returns an injector that is not armed. launcher is the binary of package
// scache/internal/postfixtest/launcher.
func NewInjector(launcher string) *Injector { return &Injector{launcher: launcher} }

// Arm begins to count calls, from zero, and makes one of them fail.
func (in *Injector) Arm(f Fault) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.armed, in.fault, in.counts, in.failed, in.starts = true, f, map[string]int{}, nil, 0
}

// Disarm ends counting. It returns the number of calls by kind, and the call that
// failed, or nil.
func (in *Injector) Disarm() (counts map[string]int, hit *FailedCall) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.armed = false
	counts = maps.Clone(in.counts)
	delete(counts, "")
	return counts, in.failed
}

// Deny keeps all descriptors from the processes that receive one, as mandatory access control
// does: they get the bytes, without a descriptor, and with MSG_CTRUNC.
func (in *Injector) Deny() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.denies = true
}

// Start starts a command under the filter. It replaces the method of exec.Cmd, for
// [Master.Launch].
func (in *Injector) Start(cmd *exec.Cmd) error {
	pair, err := fdpass.Pair()
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "launcher")
	defer theirs.Close()
	if _, err := unix.Write(pair[0], filter()); err != nil {
		return err
	}
	fd := strconv.Itoa(3 + len(cmd.ExtraFiles))
	cmd.Args = append([]string{"launcher", fd, cmd.Path}, cmd.Args...)
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	cmd.Path = in.launcher
	if err := cmd.Start(); err != nil {
		return err
	}
	theirs.Close()
	listener, err := receiveDescriptor(pair[0])
	if err != nil {
		cmd.Process.Kill()
		return err
	}
	t := &tracee{Injector: in, listener: listener, pid: cmd.Process.Pid, threads: map[uint32]bool{}}
	in.mu.Lock()
	if in.armed {
		in.starts++
		t.start = in.starts
	}
	in.mu.Unlock()
	go t.serve()
	return nil
}

func (in *Injector) isArmed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.armed
}

func (in *Injector) isDenying() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.denies
}

func receiveDescriptor(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fdpass.None, os.NewSyscallError("recvmsg", err)
	}
	if n == 0 {
		return fdpass.None, errors.New("the launcher has failed")
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) == 0 {
		return fdpass.None, fmt.Errorf("the launcher sent no descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return fdpass.None, err
	}
	return fds[0], nil
}

// filter returns the seccomp filter: calls that are not traced cost nothing. Of fcntl,
// only the commands are traced that need a new descriptor.
func filter() []byte {
	const (
		offsetNumber  = 0
		offsetCommand = 16 + 8 // the lower half of the second argument
	)
	jumpEqual := func(k uint32, yes uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, K: k}
	}
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	give := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	program := []unix.SockFilter{load(offsetNumber)}
	n := uint8(len(tracedCalls))
	for i, c := range tracedCalls {
		left := n - uint8(i) - 1 // of the table
		target := left + 5       // behind the answers for the rest, and the commands of fcntl
		if c.number == unix.SYS_FCNTL {
			target = left + 1
		}
		program = append(program, jumpEqual(c.number, target))
	}
	program = append(program,
		give(unix.SECCOMP_RET_ALLOW),
		load(offsetCommand),
		jumpEqual(unix.F_DUPFD, 2),
		jumpEqual(unix.F_DUPFD_CLOEXEC, 1),
		give(unix.SECCOMP_RET_ALLOW),
		give(unix.SECCOMP_RET_USER_NOTIF),
	)
	return unsafe.Slice((*byte)(unsafe.Pointer(&program[0])), 8*len(program))
}

// A tracee is a process with the filter.
type tracee struct {
	*Injector
	listener int
	pid      int
	start    int
	threads  map[uint32]bool // those of the process, without the commands that it runs
}

// notification and response are struct seccomp_notif and struct seccomp_notif_resp.
type (
	notification struct {
		id                 uint64
		pid, flags         uint32
		number             int32
		arch               uint32
		instructionPointer uint64
		args               [6]uint64
	}
	response struct {
		id           uint64
		value        int64
		errno, flags int32
	}
)

// serve answers notifications until the process has ended.
func (t *tracee) serve() {
	defer unix.Close(t.listener)
	for {
		poll := []unix.PollFd{{Fd: int32(t.listener), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 || poll[0].Revents&unix.POLLIN == 0 {
			return
		}
		call := notification{}
		if t.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&call)) != 0 {
			continue // the thread has ended
		}
		answer := response{id: call.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if errno := t.judge(&call); errno != 0 {
			answer.flags, answer.errno = 0, -int32(errno)
		} else if n := t.denied(&call); n > 0 {
			answer.flags, answer.value = 0, int64(n)
		}
		t.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&answer))
	}
}

func (t *tracee) ioctl(request uintptr, arg unsafe.Pointer) unix.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.listener), request, uintptr(arg))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// judge counts a call, and returns the error that it ends with, or zero.
func (t *tracee) judge(call *notification) unix.Errno {
	if !t.isArmed() || !t.isOurs(call.pid) {
		return 0
	}
	kind := t.kindOf(call)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[kind]++
	if kind == "" || kind != t.fault.Kind || t.counts[kind] != t.fault.N {
		return 0
	}
	t.failed = &FailedCall{Start: t.start, Args: [3]uint64(call.args[:3]), File: t.file(call.args[0])}
	return t.fault.Errno
}

// kindOf returns the kind of a call, or nothing if it is not counted.
func (t *tracee) kindOf(call *notification) string {
	for _, c := range tracedCalls {
		switch {
		case c.number != uint32(call.number):
			continue
		case c.inMemory && !strings.HasPrefix(t.file(call.args[0]), "/memfd:"),
			c.kind == "epoll_ctl" && call.args[1] != unix.EPOLL_CTL_ADD:
			return ""
		case c.kind == "sendmsg" && t.hasControl(call.args[1]):
			return "sendmsg_rights"
		}
		return c.kind
	}
	return ""
}

// hasControl reports whether the struct msghdr at this address has control data.
func (t *tracee) hasControl(address uint64) bool {
	header, err := read[unix.Msghdr](t, uintptr(address))
	return err == nil && header.Controllen > 0
}

// read reads a value from the memory of the process.
func read[T any](t *tracee, address uintptr) (value T, err error) {
	local, remote := iovecs(&value, address)
	_, err = unix.ProcessVMReadv(t.pid, local, remote, 0)
	return value, err
}

// write writes a value to the memory of the process.
func write[T any](t *tracee, address uintptr, value T) error {
	local, remote := iovecs(&value, address)
	_, err := unix.ProcessVMWritev(t.pid, local, remote, 0)
	return err
}

func iovecs[T any](value *T, address uintptr) ([]unix.Iovec, []unix.RemoteIovec) {
	size := int(unsafe.Sizeof(*value))
	local := unix.Iovec{Base: (*byte)(unsafe.Pointer(value))}
	local.SetLen(size)
	return []unix.Iovec{local}, []unix.RemoteIovec{{Base: address, Len: size}}
}

// denied receives in place of the process, if it is to be kept from a descriptor that comes
// with the next byte. It returns 1 if it did, and otherwise 0.
func (t *tracee) denied(call *notification) int {
	if call.number != unix.SYS_RECVMSG || !t.isDenying() || !t.isOurs(call.pid) {
		return 0
	}
	header, err := read[unix.Msghdr](t, uintptr(call.args[1]))
	if err != nil || header.Iov == nil {
		return 0
	}
	buffer, err := read[unix.Iovec](t, uintptr(unsafe.Pointer(header.Iov)))
	if err != nil || buffer.Len == 0 {
		return 0
	}
	socket, err := t.duplicate(int(call.args[0]))
	if err != nil {
		return 0
	}
	defer unix.Close(socket)
	data, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	flags := unix.MSG_PEEK | unix.MSG_DONTWAIT | unix.MSG_CMSG_CLOEXEC
	_, n, _, _, err := unix.Recvmsg(socket, data, oob, flags)
	if err != nil || n == 0 {
		return 0
	}
	closeAll(oob[:n])
	// Without room for a descriptor, the kernel drops it.
	if _, _, _, _, err := unix.Recvmsg(socket, data, nil, unix.MSG_DONTWAIT); err != nil {
		return 0
	}
	header.SetControllen(0)
	header.Flags = unix.MSG_CTRUNC
	err = errors.Join(write(t, uintptr(unsafe.Pointer(buffer.Base)), data[0]),
		write(t, uintptr(call.args[1]), header))
	if err != nil {
		return 0
	}
	return 1
}

// duplicate returns a copy of a descriptor of the process.
func (t *tracee) duplicate(fd int) (int, error) {
	process, err := unix.PidfdOpen(t.pid, 0)
	if err != nil {
		return fdpass.None, err
	}
	defer unix.Close(process)
	return unix.PidfdGetfd(process, fd, 0)
}

// closeAll closes the descriptors in control data.
func closeAll(oob []byte) {
	messages, _ := unix.ParseSocketControlMessage(oob)
	for _, message := range messages {
		fds, _ := unix.ParseUnixRights(&message)
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

func (t *tracee) file(fd uint64) string {
	name, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.pid, int32(fd)))
	return name
}

// isOurs reports whether a thread is one of the program: neither the launcher's nor
// that of a command which the program runs.
func (t *tracee) isOurs(thread uint32) bool {
	if t.threads[thread] {
		return true
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", t.pid, thread)); err != nil {
		return false
	}
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", t.pid))
	if err != nil || program == t.launcher {
		return false
	}
	t.threads[thread] = true
	return true
}
