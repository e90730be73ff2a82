// SPDX-License-Identifier: EPL-2.0

// Package sockdiag lists the TCP connections of this network namespace by their remote
// address and port, as the kernel knows them: those of each process, user and chroot.
//
// It asks over netlink (NETLINK_SOCK_DIAG), which needs no privilege and no file. Two
// dumps answer one question: IPv4, and IPv6 with the IPv4-mapped connections. The kernel
// selects by state and by remote port, so little is copied. The cost grows with the number of
// TCP sockets that it walks over.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is wrapped by errors that will not pass by themselves: the kernel has
// no module for it, or seccomp, SELinux or the like refuses it.
var ErrUnavailable = errors.New("the kernel does not list connections")

// Timeout is how long one message of the kernel may take.
const Timeout = time.Second

// attempts is how often a dump is tried. A lack of memory can disturb it, or a change of the
// tables while it runs.
const attempts = 4

// bufferSize is more than the kernel puts in one message of a dump: 32 KiB.
const bufferSize = 64 << 10

// A Connection is one that was begun by this machine or by the remote end, and that the
// remote end may still count.
type Connection struct {
	Remote netip.AddrPort // an IPv4-mapped address as IPv4
	Cookie uint64         // the kernel's number of the socket, never used again
}

// A Socket asks the kernel. It may be used by one goroutine at a time.
type Socket struct {
	fd     int
	seq    uint32
	buf    []byte
	found  []Connection
	sys    system
	broken bool // a dump may still be under way: the next one needs another socket
}

// system has the system calls, so that a test can make each of them fail.
type system struct {
	open    func() (int, error)
	write   func(fd int, p []byte) (int, error)
	read    func(fd int, p []byte) (int, error)
	closeFD func(fd int) error
}

// Open opens a socket. A success does not tell that the kernel will answer: Dump does.
func Open() (*Socket, error) {
	return newSocket(system{openNetlink, unix.Write, unix.Read, unix.Close})
}

func newSocket(sys system) (*Socket, error) {
	s := &Socket{fd: -1, sys: sys}
	if err := s.reopen(); err != nil {
		return nil, err
	}
	return s, nil
}

// openNetlink returns a socket that receives from the kernel only, because it is connected to it.
func openNetlink() (int, error) {
	const kind = unix.SOCK_RAW | unix.SOCK_CLOEXEC
	fd, err := unix.Socket(unix.AF_NETLINK, kind, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	timeout := unix.NsecToTimeval(Timeout.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	err = os.NewSyscallError("setsockopt", err)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		err = os.NewSyscallError("connect", err)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (s *Socket) reopen() error {
	fd, err := s.sys.open()
	if err != nil {
		return classify(err)
	}
	if s.fd >= 0 {
		s.sys.closeFD(s.fd)
	}
	s.fd, s.broken = fd, false
	return nil
}

// Close closes the socket. A second Close does nothing.
func (s *Socket) Close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return os.NewSyscallError("close", s.sys.closeFD(fd))
}

// Dump calls f with each connection to one of these remote ports, or to any port if
// there are none. States are those that a receiver may count: from SYN_SENT to
// CLOSE_WAIT, without TIME_WAIT and LAST_ACK. It calls f only when the list is complete.
func (s *Socket) Dump(ports []uint16, f func(Connection)) error {
	if s.fd < 0 {
		return fmt.Errorf("list connections: %w", os.ErrClosed)
	}
	var err error
	for range attempts {
		if err = s.collect(ports); err == nil {
			for _, c := range s.found {
				f(c)
			}
			return nil
		}
		if !isTransient(err) {
			break
		}
	}
	return fmt.Errorf("list connections: %w", classify(err))
}

// collect fills s.found with the connections of both families.
func (s *Socket) collect(ports []uint16) error {
	s.found = s.found[:0]
	if err := s.dump(unix.AF_INET, ports); err != nil {
		return err
	}
	err := s.dump(unix.AF_INET6, ports)
	if errors.Is(err, unix.ENOENT) { // a kernel without IPv6
		return nil
	}
	return err
}

var errInterrupted = errors.New("the tables changed while the kernel listed them")

func isTransient(err error) bool {
	return errors.Is(err, errInterrupted) || errors.Is(err, unix.ENOBUFS) ||
		errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOMEM)
}

// classify marks errors that will not pass.
func classify(err error) error {
	for _, e := range []error{unix.ENOENT, unix.EPERM, unix.EACCES, unix.EPROTONOSUPPORT,
		unix.EAFNOSUPPORT, unix.ENOSYS, unix.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return err
}

// dump adds the connections of one family to s.found.
func (s *Socket) dump(family byte, ports []uint16) error {
	if s.broken {
		if err := s.reopen(); err != nil {
			return err
		}
	}
	s.seq++
	s.broken = true // until the end of the dump is seen
	if _, err := retryEINTR(s.sys.write, s.fd, request(family, s.seq, ports)); err != nil {
		return os.NewSyscallError("write", err)
	}
	if s.buf == nil {
		s.buf = make([]byte, bufferSize)
	}
	interrupted := false
	for {
		n, err := retryEINTR(s.sys.read, s.fd, s.buf)
		if err != nil {
			if err == unix.EAGAIN {
				return fmt.Errorf("no answer from the kernel within %v: %w", Timeout, os.ErrDeadlineExceeded)
			}
			return os.NewSyscallError("read", err)
		}
		done, changed, err := s.parse(s.buf[:n], ports)
		interrupted = interrupted || changed
		if err != nil {
			return err
		}
		if done {
			s.broken = false
			break
		}
	}
	if interrupted {
		return errInterrupted
	}
	return nil
}

func retryEINTR(call func(int, []byte) (int, error), fd int, p []byte) (n int, err error) {
	for {
		if n, err = call(fd, p); err != unix.EINTR {
			return n, err
		}
	}
}

// The layout of messages, in the machine's byte order except for ports and addresses.
const (
	headerSize  = 16 // struct nlmsghdr: length, type, flags, sequence, port
	requestSize = 56 // struct inet_diag_req_v2
	replySize   = 72 // struct inet_diag_msg
	idOffset    = 4  // struct inet_diag_sockid in inet_diag_msg

	attrBytecode = 1 // INET_DIAG_REQ_BYTECODE
	opJump       = 1 // INET_DIAG_BC_JMP
	opRemote     = 8 // INET_DIAG_BC_D_COND
	opSize       = 4
	condSize     = opSize + 8
	blockSize    = condSize + opSize

	maxFilter = 256 // ports; more are not selected by the kernel, but here
)

// States of TCP as the kernel numbers them.
const (
	established = 1
	synSent     = 2
	finWait1    = 4
	finWait2    = 5
	closeWait   = 8

	states = 1<<established | 1<<synSent | 1<<finWait1 | 1<<finWait2 | 1<<closeWait
)

var machine = binary.NativeEndian

// request returns the message that asks for the connections of one family.
func request(family byte, seq uint32, ports []uint16) []byte {
	filter := bytecode(ports)
	size := headerSize + requestSize
	if len(filter) > 0 {
		size += 4 + len(filter)
	}
	m := make([]byte, 0, size)
	m = machine.AppendUint32(m, uint32(size))
	m = machine.AppendUint16(m, unix.SOCK_DIAG_BY_FAMILY)
	m = machine.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	m = machine.AppendUint32(m, seq)
	m = machine.AppendUint32(m, 0)
	m = append(m, family, unix.IPPROTO_TCP, 0, 0)
	m = machine.AppendUint32(m, states)
	m = append(m, make([]byte, requestSize-8)...) // of any socket
	if len(filter) > 0 {
		m = machine.AppendUint16(m, uint16(4+len(filter)))
		m = machine.AppendUint16(m, attrBytecode)
		m = append(m, filter...)
	}
	return m
}

// bytecode returns a filter program that accepts these remote ports. Each port has a
// condition and, when it holds, a jump to the end, which means "accept". A condition
// that does not hold leads to the next one; the last one leads beyond the end, which
// means "reject". The jump is needed because a condition can skip only 255 bytes.
func bytecode(ports []uint16) []byte {
	if len(ports) > maxFilter {
		return nil
	}
	var p []byte
	for i, port := range ports {
		left := (len(ports) - i) * blockSize
		next := blockSize
		if i == len(ports)-1 {
			next = left + opSize
		}
		p = append(p, opRemote, condSize)
		p = machine.AppendUint16(p, uint16(next))
		p = append(p, unix.AF_UNSPEC, 0, 0, 0) // any address
		p = machine.AppendUint32(p, uint32(port))
		p = append(p, opJump, opSize)
		p = machine.AppendUint16(p, uint16(left-condSize))
	}
	return p
}

// parse reads what one read call has returned: some messages of a dump.
func (s *Socket) parse(p []byte, ports []uint16) (done, changed bool, err error) {
	for len(p) > 0 {
		if len(p) < headerSize {
			return false, changed, errMalformed
		}
		size := machine.Uint32(p)
		if size < headerSize || uint64(size) > uint64(len(p)) {
			return false, changed, errMalformed
		}
		kind, flags, seq := machine.Uint16(p[4:]), machine.Uint16(p[6:]), machine.Uint32(p[8:])
		body := p[headerSize:size]
		p = p[min(len(p), int(size+3)&^3):]
		if seq != s.seq {
			continue
		}
		if flags&unix.NLM_F_DUMP_INTR != 0 {
			changed = true
		}
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			// Both may carry an error, as a negative number.
			if len(body) >= 4 {
				if code := int32(machine.Uint32(body)); code < 0 {
					s.broken = false // there is no more to come
					return false, changed, os.NewSyscallError("sock_diag", unix.Errno(-code))
				}
			}
			return true, changed, nil
		case unix.SOCK_DIAG_BY_FAMILY:
			if len(body) < replySize {
				return false, changed, errMalformed
			}
			s.add(body, ports)
		}
	}
	return false, changed, nil
}

var errMalformed = errors.New("malformed netlink message")

// add appends the connection that a message describes.
func (s *Socket) add(body []byte, ports []uint16) {
	id := body[idOffset:]
	port := binary.BigEndian.Uint16(id[2:])
	if len(ports) > maxFilter && !slices.Contains(ports, port) {
		return
	}
	var address netip.Addr
	if remote := id[20:36]; body[0] == unix.AF_INET {
		address = netip.AddrFrom4([4]byte(remote))
	} else {
		address = netip.AddrFrom16([16]byte(remote)).Unmap()
	}
	s.found = append(s.found, Connection{
		Remote: netip.AddrPortFrom(address, port),
		Cookie: uint64(machine.Uint32(id[44:]))<<32 | uint64(machine.Uint32(id[40:])),
	})
}
