// SPDX-License-Identifier: EPL-2.0

package sockdiag

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const childVariable = "SOCKDIAG_TEST_PORT"

// TestMain is the test, or the process that TestDump_unprivilegedInChroot starts.
func TestMain(m *testing.M) {
	if port := os.Getenv(childVariable); port != "" {
		os.Exit(child(port))
	}
	os.Exit(m.Run())
}

func open(t testing.TB) *Socket {
	t.Helper()
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// dump returns the connections by remote address, and their cookies.
func dump(t testing.TB, s *Socket, ports ...uint16) map[netip.AddrPort][]uint64 {
	t.Helper()
	found := map[netip.AddrPort][]uint64{}
	err := s.Dump(ports, func(c Connection) {
		found[c.Remote] = append(found[c.Remote], c.Cookie)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// listen returns a listener that accepts and keeps connections until the test ends.
func listen(t testing.TB, network, address string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func connect(t testing.TB, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDump_bothFamilies(t *testing.T) {
	t.Parallel()
	v4, v6 := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp6", "[::1]:0")
	connect(t, "tcp4", v4)
	connect(t, "tcp4", v4)
	connect(t, "tcp6", v6)
	mapped := connectMapped(t, v4)
	defer unix.Close(mapped)

	found := dump(t, open(t), v4.Port(), v6.Port())
	if got := len(found[v4]); got != 3 {
		t.Errorf("got %d connections to %v, want 3, one of them IPv4-mapped", got, v4)
	}
	if got := len(found[v6]); got != 1 {
		t.Errorf("got %d connections to %v, want 1", got, v6)
	}
	if len(found) != 2 {
		t.Errorf("got %v, want connections to two addresses", found)
	}
}

// connectMapped connects a socket of IPv6 to an address of IPv4.
func connectMapped(t *testing.T, to netip.AddrPort) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.AddrFrom16(to.Addr().As16())
	err = unix.Connect(fd, &unix.SockaddrInet6{Addr: address.As16(), Port: int(to.Port())})
	if err != nil {
		unix.Close(fd)
		t.Fatal(err)
	}
	return fd
}

func TestDump_cookiesStay(t *testing.T) {
	t.Parallel()
	to, s := listen(t, "tcp4", "127.0.0.1:0"), open(t)
	connect(t, "tcp4", to)
	before := dump(t, s, to.Port())[to]
	connect(t, "tcp4", to)
	after := dump(t, s, to.Port())[to]
	if len(before) != 1 || len(after) != 2 {
		t.Fatalf("got %d and then %d connections, want 1 and 2", len(before), len(after))
	}
	if after[0] != before[0] && after[1] != before[0] || after[0] == after[1] {
		t.Errorf("got cookies %v and then %v, want the first one again, and another one", before, after)
	}
}

// TestDump_manyPorts has filters longer than what one byte can skip, at each end of the list.
// One list is too long for the kernel's filter.
func TestDump_manyPorts(t *testing.T) {
	t.Parallel()
	to, s := listen(t, "tcp4", "127.0.0.1:0"), open(t)
	connect(t, "tcp4", to)
	for _, n := range []int{0, 1, 2, 30, maxFilter, maxFilter + 1} {
		ports := make([]uint16, n)
		for i := range ports {
			ports[i] = uint16(1 + i)
		}
		if n > 0 {
			if found := dump(t, s, ports...); len(found[to]) != 0 {
				t.Errorf("%d other ports: got a connection to %v", n, to)
			}
			ports[0] = to.Port()
		}
		if got := len(dump(t, s, ports...)[to]); got != 1 {
			t.Errorf("%d ports, wanted first: got %d connections, want 1", n, got)
		}
		if n > 0 {
			ports[0], ports[n-1] = 1, to.Port()
			if got := len(dump(t, s, ports...)[to]); got != 1 {
				t.Errorf("%d ports, wanted last: got %d connections, want 1", n, got)
			}
		}
	}
}

// TestDump_states goes through the states of a connection that this end closes.
func TestDump_states(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	to, s := l.Addr().(*net.TCPAddr).AddrPort(), open(t)
	count := func() int { return len(dump(t, s, to.Port())[to]) }

	c := connect(t, "tcp4", to)
	remote, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got := count(); got != 1 {
		t.Errorf("established: got %d connections, want 1", got)
	}
	cookie := dump(t, s, to.Port())[to][0]
	c.Close() // FIN_WAIT2, as the remote end has not closed yet
	if found := dump(t, s, to.Port())[to]; len(found) != 1 || found[0] != cookie {
		t.Errorf("closed at this end: got %v, want %d", found, cookie)
	}
	remote.Close() // TIME_WAIT
	waitFor(t, "no connection after both ends have closed", func() bool { return count() == 0 })

	connect(t, "tcp4", to)
	if remote, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	remote.Close() // CLOSE_WAIT at our end
	if got := count(); got != 1 {
		t.Errorf("closed at the remote end: got %d connections, want 1", got)
	}
}

// TestDump_synSent has a connection that is not answered: the accept queue is full.
func TestDump_synSent(t *testing.T) {
	t.Parallel()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err := errors.Join(err, unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := name.(*unix.SockaddrInet4).Port
	const n = 6
	for range n {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(c)
		err = unix.Connect(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
		if err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
	if got := len(dump(t, open(t), uint16(port))[to]); got != n {
		t.Errorf("got %d connections, want %d, most of them unanswered", got, n)
	}
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); {
		if time.Now().After(end) {
			t.Fatalf("timeout: want %s", what)
		}
	}
}

// TestDump_unprivilegedInChroot runs a process without any privilege in an empty
// directory. It needs root; without it, the process has only its own rights.
func TestDump_unprivilegedInChroot(t *testing.T) {
	t.Parallel()
	to := listen(t, "tcp4", "127.0.0.1:0")
	connect(t, "tcp4", to)
	c := exec.Command("/proc/self/exe")
	c.Env = []string{fmt.Sprintf("%s=%d", childVariable, to.Port())}
	if os.Geteuid() == 0 {
		dir := t.TempDir()
		c.Env = append(c.Env, "SOCKDIAG_TEST_ROOT="+dir)
	}
	out, err := c.Output()
	if err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Errorf("got %q, %v, want one connection", out, err)
	}
}

// child prints how many connections there are to a port of 127.0.0.1, after it has given
// up all privileges.
func child(port string) int {
	if dir := os.Getenv("SOCKDIAG_TEST_ROOT"); dir != "" {
		err := errors.Join(syscall.Chroot(dir), syscall.Chdir("/"), syscall.Setgroups(nil),
			syscall.Setgid(65534), syscall.Setuid(65534))
		if err != nil {
			fmt.Println(err)
			return 1
		}
	}
	s, err := Open()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	var number uint16
	fmt.Sscan(port, &number)
	n := 0
	if err := s.Dump([]uint16{number}, func(Connection) { n++ }); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(n)
	return 0
}

// kernel is one whose calls fail as a test wants it.
type kernel struct {
	opened, written, closed int
	openErr                 error
	reads                   []answer
	seq                     uint32
}

// An answer is what one call of read returns for the request with this number.
type answer func(seq uint32, p []byte) (int, error)

func (k *kernel) system() system {
	return system{
		open: func() (int, error) { k.opened++; return 100 + k.opened, k.openErr },
		write: func(_ int, p []byte) (int, error) {
			k.written++
			k.seq = machine.Uint32(p[8:])
			return len(p), nil
		},
		read: func(_ int, p []byte) (int, error) {
			if len(k.reads) == 0 {
				return done(0, 0)(k.seq, p)
			}
			r := k.reads[0]
			k.reads = k.reads[1:]
			return r(k.seq, p)
		},
		closeFD: func(int) error { k.closed++; return nil },
	}
}

func fails(err error) answer {
	return func(uint32, []byte) (int, error) { return 0, err }
}

// done ends a dump with this error, or well, if it is 0.
func done(code unix.Errno, flags uint16) answer {
	return func(seq uint32, p []byte) (int, error) {
		m := machine.AppendUint32(p[:0], headerSize+4)
		m = machine.AppendUint16(m, unix.NLMSG_DONE)
		m = machine.AppendUint16(m, flags)
		m = machine.AppendUint32(m, seq)
		m = machine.AppendUint32(m, 0)
		m = machine.AppendUint32(m, uint32(-int32(code)))
		return len(m), nil
	}
}

func TestDump_failures(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		reads  []answer
		want   error // nil: success
		opened int
	}{
		{"interrupted call", []answer{fails(unix.EINTR)}, nil, 1},
		{"no buffer once", []answer{fails(unix.ENOBUFS)}, nil, 2},
		{"no buffer ever", []answer{fails(unix.ENOBUFS), fails(unix.ENOBUFS),
			fails(unix.ENOBUFS), fails(unix.ENOBUFS)}, unix.ENOBUFS, 4},
		{"tables changed", []answer{done(0, unix.NLM_F_DUMP_INTR)}, nil, 1},
		{"tables always change", []answer{done(0, unix.NLM_F_DUMP_INTR),
			done(0, unix.NLM_F_DUMP_INTR), done(0, 0), done(0, unix.NLM_F_DUMP_INTR),
			done(0, unix.NLM_F_DUMP_INTR)},
			errInterrupted, 1},
		{"timeout", []answer{fails(unix.EAGAIN)}, os.ErrDeadlineExceeded, 1},
		{"no module", []answer{done(unix.ENOENT, 0)}, ErrUnavailable, 1},
		{"refused", []answer{done(unix.EPERM, 0)}, ErrUnavailable, 1},
		{"refused by SELinux", []answer{fails(unix.EACCES)}, ErrUnavailable, 1},
		{"no IPv6", []answer{done(0, 0), done(unix.ENOENT, 0)}, nil, 1},
		{"half a header", []answer{func(uint32, []byte) (int, error) { return 7, nil }}, errMalformed, 1},
		{"stale message", []answer{func(seq uint32, p []byte) (int, error) {
			return done(unix.EPERM, 0)(seq-1, p)
		}}, nil, 1},
	} {
		k := &kernel{reads: test.reads}
		s, err := newSocket(k.system())
		if err != nil {
			t.Fatal(err)
		}
		err = s.Dump([]uint16{25}, func(Connection) {})
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
		if k.opened != test.opened {
			t.Errorf("%s: got %d sockets opened, want %d", test.name, k.opened, test.opened)
		}
		// The next one works, whatever the last one has left behind.
		k.reads = nil
		if err := s.Dump(nil, func(Connection) {}); err != nil {
			t.Errorf("%s, then nothing: got %v, want no error", test.name, err)
		}
		s.Close()
		s.Close()
		if k.opened != k.closed {
			t.Errorf("%s: got %d sockets opened and %d closed", test.name, k.opened, k.closed)
		}
		if err := s.Dump(nil, func(Connection) {}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s, closed: got %v, want %v", test.name, err, os.ErrClosed)
		}
	}
}

func TestOpen_unavailable(t *testing.T) {
	t.Parallel()
	for _, e := range []unix.Errno{unix.EPERM, unix.EACCES, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		k := &kernel{openErr: os.NewSyscallError("socket", e)}
		if _, err := newSocket(k.system()); !errors.Is(err, ErrUnavailable) || !errors.Is(err, e) {
			t.Errorf("%v: got %v, want one that is unavailable", e, err)
		}
	}
	k := &kernel{openErr: os.NewSyscallError("socket", unix.EMFILE)}
	if _, err := newSocket(k.system()); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("EMFILE: got %v, want an error that passes", err)
	}
}

// BenchmarkDump lists connections to one port: none, and thousands.
func BenchmarkDump(b *testing.B) {
	for _, n := range []int{0, 1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			raiseLimit()
			to := listen(b, "tcp4", "127.0.0.1:0")
			for range n {
				connect(b, "tcp4", to)
			}
			s, found := open(b), 0
			b.ReportAllocs()
			for b.Loop() {
				found = 0
				if err := s.Dump([]uint16{to.Port()}, func(Connection) { found++ }); err != nil {
					b.Fatal(err)
				}
			}
			if found != n {
				b.Errorf("got %d connections, want %d", found, n)
			}
		})
	}
}

func raiseLimit() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
		l.Cur = l.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
	}
}
