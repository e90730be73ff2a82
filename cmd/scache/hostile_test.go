// SPDX-License-Identifier: EPL-2.0

// Tests with a hostile process of the user that clients run as: it can connect, and can send
// any state. Beside each, the memory of the daemon and the latency of a good client are
// measured.

package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// Bounds of what the daemon may need, with the race detector and on a busy machine.
const (
	hostileMemory  = 1 << 30
	hostileLatency = 8 * time.Second
)

// A victim is a daemon with one client, one session and one binding.
type victim struct {
	*postfixtest.Master
	t     *testing.T
	good  *client.Client
	saved saved
	base  int // descriptors
	limit int64
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	v := &victim{Master: startMaster(t, binary, "connection_cache_ttl_limit=1h\nmax_idle=1h\n"), t: t}
	v.good = dial(t, v.Master)
	v.saved = saveSession(t, v.good, 3600, "good", "p")
	status, err := v.good.SaveDestination(3600, "d", "", "good")
	if err != nil || status != client.OK {
		t.Fatal(status, err)
	}
	v.base = stableDescriptors(t, v.Master)
	v.limit = v.status().SessionLimit
	return v
}

func (v *victim) status() control.Status {
	v.t.Helper()
	s, err := v.good.Status()
	if err != nil {
		v.t.Fatalf("%v\n%q", err, v.Log())
	}
	return s
}

// measure has a good client ask for something again and again while f runs.
func (v *victim) measure(f func()) {
	v.t.Helper()
	stop, worst := make(chan struct{}), make(chan time.Duration, 1)
	c := dial(v.t, v.Master)
	go func() {
		var slowest time.Duration
		for {
			start := time.Now()
			if err := miss(c); err != nil {
				v.t.Errorf("a good client: %v", err)
				worst <- slowest
				return
			}
			slowest = max(slowest, time.Since(start))
			select {
			case <-stop:
				worst <- slowest
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	f()
	close(stop)
	latency := <-worst
	c.Close()
	memory := peakMemory(v.t, v.Master)
	v.t.Logf("a good client waited for %v at the most; the daemon had %d MB",
		latency.Round(time.Millisecond), memory>>20)
	if latency > hostileLatency {
		v.t.Errorf("a good client waited for %v, want at most %v", latency, hostileLatency)
	}
	if memory > hostileMemory {
		v.t.Errorf("the daemon had %d MB, want at most %d", memory>>20, hostileMemory>>20)
	}
}

// peakMemory returns the most memory that the daemon has had.
func peakMemory(t *testing.T, m *postfixtest.Master) (bytes int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "VmHWM:")
	fmt.Sscan(line, &bytes)
	return bytes << 10
}

// wantUnharmed looks at the daemon, reloads it, and looks at the next one.
func (v *victim) wantUnharmed() {
	v.t.Helper()
	v.wantSame()
	v.wantReload()
}

// wantSame waits until the daemon has the same limit, and as many descriptors as before.
func (v *victim) wantSame() {
	v.t.Helper()
	testenv.Eventually(v.t, "the session limit is as before, with one client", func() bool {
		s := v.status()
		return s.SessionLimit == v.limit && s.Clients == 1
	})
	v.wantDescriptors()
}

// hangUp closes the status channel, and waits until the process has ended. It wants that to be
// soon, in time of the processor: how long that takes depends on what else the machine does.
func (v *victim) hangUp() {
	v.t.Helper()
	start, before := time.Now(), processorTime(v.t, v.Master)
	if err := v.HangUp(); err != nil {
		v.t.Fatal(err)
	}
	used := v.Cmd.ProcessState.UserTime() + v.Cmd.ProcessState.SystemTime() - before
	v.t.Logf("the process has ended after %v, and has used the processor for %v",
		time.Since(start).Round(time.Millisecond), used.Round(time.Millisecond))
	if used > hostileLatency {
		v.t.Errorf("the process has used the processor for %v until it has ended, want at most %v",
			used, hostileLatency)
	}
}

// wantReload reloads the daemon, and looks at the next one.
func (v *victim) wantReload() {
	v.t.Helper()
	v.hangUp()
	if err := v.StartWhenNeeded(longWait); err != nil {
		v.t.Fatalf("%v\n%q", err, v.Log())
	}
	v.saved.want(v.t, v.good)
	v.base--
	v.wantDescriptors()
	v.DrainLog()
	for _, line := range v.Texts() {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal: ") ||
			strings.HasPrefix(line, "stderr: ") {
			v.t.Errorf("log: %.300s", line)
		}
	}
}

// wantDescriptors waits until the daemon has as many descriptors as before.
func (v *victim) wantDescriptors() {
	v.t.Helper()
	wantDescriptors(v.t, v.Master, v.base)
}

// A message is what a hostile process has in its hands after it has sent a state.
type message struct {
	control *fdpass.Socket   // our end of the first socket
	queues  []*fdpass.Socket // our ends of the queues
	theirs  []int            // copies of the ends that the daemon has received
}

func (m *message) close() {
	m.control.Close()
	for _, q := range m.queues {
		q.Close()
	}
	for _, fd := range m.theirs {
		unix.Close(fd)
	}
	m.theirs = nil
}

// takeOver sends a description and queues, into which prepare may put descriptors.
func (v *victim) takeOver(description *os.File, queues int, prepare func(*message)) *message {
	v.t.Helper()
	m := &message{}
	pair := func() (ours *fdpass.Socket, theirs int) {
		a, b, err := fdpass.SocketPair()
		if err != nil {
			v.t.Fatal(err)
		}
		m.theirs = append(m.theirs, b.FD())
		return a, b.FD()
	}
	var first int
	m.control, first = pair()
	conn, err := fdpass.NewStream()
	if err != nil {
		v.t.Fatal(err)
	}
	defer conn.Close()
	fds := []int{int(description.Fd()), conn.FD()}
	for range queues {
		q, fd := pair()
		m.queues, fds = append(m.queues, q), append(fds, fd)
	}
	if prepare != nil {
		prepare(m)
	}
	if err := m.control.SendBatch(fds); err != nil {
		v.t.Fatal(err)
	}
	testenv.Eventually(v.t, "the accept queue has room", func() bool {
		return conn.Connect(v.Socket) == nil
	})
	if err := conn.SendWith([]byte(list("request", "take_over")), first); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(m.close)
	return m
}

// descriptionOf returns a file in memory with this text, of this size if that is not zero.
func descriptionOf(t *testing.T, size int64, texts ...string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("hostile", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "hostile")
	t.Cleanup(func() { f.Close() })
	for _, text := range texts {
		if _, err := io.WriteString(f, text); err != nil {
			t.Fatal(err)
		}
	}
	if size > 0 {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func entry(kind string, descriptors int, fields ...string) string {
	return list(append([]string{"entry", kind, "descriptors", fmt.Sprint(descriptors)}, fields...)...)
}

func header(version, bindings, sessions, clients int) string {
	return list("version", fmt.Sprint(version), "bindings", fmt.Sprint(bindings),
		"sessions", fmt.Sprint(sessions), "clients", fmt.Sprint(clients))
}

// TestHostile_descriptions sends descriptions that take long to read, or much memory.
func TestHostile_descriptions(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const million = 1 << 20
	words := strings.Repeat("x ", 8_000_000)
	numbers := strings.Repeat("1 ", 8_000_000)
	label := strings.Repeat("l", 16*million-200)
	binding := entry("binding", 0, "label", "l", "deadline", "9000000000000000000", "property", label)
	hits := entry("hits", 0, "level", "endpoint", "counts", "1", "label", label)
	many := header(2, 0, 0, 0)
	for _, test := range []struct {
		name  string
		size  int64
		texts []string
	}{
		{"truncated to 1 PiB", 1 << 50, []string{header(2, 0, 0, 0)}},
		{"zeros", 1 << 30, []string{header(2, 0, 0, 0)}},
		{"zeros, version 1", 1 << 30, []string{header(1, 2*million, 2*million, 2*million)}},
		{"no end of an entry", 1 << 30, []string{many, "entry"}},
		{"counts of words", 0, []string{many,
			entry("hits", 0, "level", "endpoint", "label", "l", "counts", words)}},
		{"counts of numbers", 0, []string{many,
			entry("hits", 0, "level", "endpoint", "label", "l", "counts", numbers)}},
		{"took of words", 0, []string{many, entry("counts", 0, "took", words)}},
		{"took of numbers", 0, []string{many, entry("counts", 0, "took", numbers, "waited", numbers)}},
		{"a number of 16 MB", 0, []string{many,
			entry("counts", 0, "saved", strings.Repeat("9", 16*million-200))}},
		{"20 labels of 16 MB", 0, append([]string{many}, slices.Repeat([]string{hits}, 20)...)},
		{"20 properties of 16 MB", 0,
			append([]string{header(2, 20, 0, 0)}, slices.Repeat([]string{binding}, 20)...)},
		{"attributes", 0, []string{many,
			entry("counts", 0, slices.Repeat([]string{"a", ""}, 5*million)...)}},
		{"entries that are not known", 0, []string{many, strings.Repeat(entry("song", 0), 2*million)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newVictim(t)
			description := descriptionOf(t, test.size, test.texts...)
			v.measure(func() {
				v.takeOver(description, 1, nil).close()
				if !v.WaitForText("takeover: ") {
					t.Error("it does not end")
				}
			})
			v.wantSame()
			v.takeOver(description, 1, nil).close()
			v.wantReload()
			hits, err := v.good.LabelCounts(control.LevelEndpoint)
			if err != nil {
				t.Error(err)
			}
			for _, h := range hits {
				if len(h.Label) > 1000 {
					t.Errorf("a label of %d bytes is counted", len(h.Label))
				}
			}
		})
	}
}

// TestHostile_manyStates sends long states again and again: a reload does not wait for each.
func TestHostile_manyStates(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	v := newVictim(t)
	long := descriptionOf(t, 0, header(2, 0, 0, 0), strings.Repeat(entry("song", 0), 2<<20))
	v.measure(func() {
		for range 20 {
			v.takeOver(long, 1, nil).close()
		}
	})
	testenv.Eventually(t, "all have been accepted", func() bool { return v.status().Clients == 1 })
	v.base = descriptors(t, v.Master)
	v.hangUp()
	if err := v.StartWhenNeeded(longWait); err != nil {
		t.Fatal(err)
	}
	v.saved.want(t, v.good)
}

// setOptions sets all options that make the kernel add descriptors or credentials to each
// message.
func setOptions(fds []int) {
	for _, fd := range fds {
		for _, option := range []int{unix.SO_PASSCRED, unix.SO_PASSSEC, unix.SO_PASSPIDFD} {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1) // older kernels lack some
		}
	}
}

// TestHostile_socketOptions has sockets with such options. It sets them again when the daemon
// has received its copies.
func TestHostile_socketOptions(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	v := newVictim(t)
	const rounds, perRound = 10, 240
	takeOver := func(round int) {
		text := header(2, 0, 0, perRound) + strings.Repeat(entry("client", 1), perRound)
		var ours, theirs []int
		for range perRound {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs = append(ours, fds[0]), append(theirs, fds[1])
			unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60})
		}
		m := v.takeOver(descriptionOf(t, 0, text), 1, func(m *message) {
			setOptions(theirs)
			setOptions(m.theirs)
			for group := range slices.Chunk(theirs, 10) { // in 24 messages
				if err := m.queues[0].SendBatch(group); err != nil {
					t.Fatal(err)
				}
			}
		})
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					setOptions(m.theirs)
				}
			}
		}()
		m.queues[0].Close()
		if !v.WaitForTexts("takeover: sessions=0 bindings=0 clients=240 lost=0", round) {
			t.Fatalf("got %q", v.Texts())
		}
		close(stop)
		<-stopped
		m.close()
		setOptions(theirs)
		for range 3 {
			for _, fd := range ours {
				err := unix.Sendto(fd, []byte(list("request", "find_endp", "label", "miss")), 0, nil)
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, fd := range ours {
				if n, err := testenv.Read(fd, make([]byte, 100)); n == 0 || err != nil {
					t.Fatalf("a client was not answered: %d, %v", n, err)
				}
			}
		}
		for i := range ours {
			unix.Close(ours[i])
			unix.Close(theirs[i])
		}
	}
	v.measure(func() {
		for round := range rounds {
			takeOver(round + 1)
		}
	})
	v.wantUnharmed()
}

// TestHostile_noClients hands over what is no connection of a permitted client: it is closed
// and counted, and counts for nothing else.
func TestHostile_noClients(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const number = 4000
	tcp := func(t *testing.T) int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: l.Addr().(*net.TCPAddr).Port}
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	socket := func(kind int) func(*testing.T) int {
		return func(t *testing.T) int {
			fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return fd
		}
	}
	for name, makeOne := range map[string]func(*testing.T) int{
		"eventfd": func(t *testing.T) int {
			fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC)
			if err != nil {
				t.Fatal(err)
			}
			return fd
		},
		"TCP connection":             tcp,
		"UNIX datagram socket":       socket(unix.SOCK_DGRAM),
		"stream without another end": socket(unix.SOCK_STREAM),
		"pipe":                       func(t *testing.T) int { return testenv.NewDescriptor(t) },
		"connection of another uid":  strangersConnection,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVictim(t)
			fd := makeOne(t)
			defer unix.Close(fd)
			was := v.status()
			text := header(2, 0, 0, number) + strings.Repeat(entry("client", 1), number)
			v.measure(func() {
				v.takeOver(descriptionOf(t, 0, text), 1, func(m *message) {
					for range number / 250 {
						if err := m.queues[0].SendBatch(slices.Repeat([]int{fd}, 250)); err != nil {
							t.Fatal(err)
						}
					}
				}).close()
				testenv.Eventually(t, "all are counted", func() bool {
					s := v.status()
					return s.Lost+s.Refused-was.Lost-was.Refused == number
				})
			})
			if n := len(v.Texts()); n > 10 {
				t.Errorf("got %d lines in the log", n)
			}
			v.wantUnharmed()
		})
	}
}

// strangersConnection returns one end of a connection that a process of another user has made.
func strangersConnection(t *testing.T) int {
	t.Helper()
	postfixtest.NeedPostfix(t) // that is, root
	path := t.TempDir() + "/socket"
	for dir := path; len(dir) > len(os.TempDir())+1; {
		dir = dir[:strings.LastIndexByte(dir, '/')]
		os.Chmod(dir, 0o755)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	os.Chmod(path, 0o666)
	client := connectAs(t, path, 65534)
	t.Cleanup(func() { client.Close() })
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	copied := -1
	raw.Control(func(fd uintptr) { copied, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	return copied
}

// TestHostile_slowSender announces 100,000 descriptors and sends one every 0.9 s: the next
// state does not wait for all of them.
func TestHostile_slowSender(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	v := newVictim(t)
	text := header(2, 0, 100_000, 0) +
		strings.Repeat(entry("session", 1, "label", "x", "deadline", "1"), 100_000)
	m := v.takeOver(descriptionOf(t, 0, text), 1, nil)
	testenv.Eventually(t, "the first state is being received", func() bool {
		return descriptors(t, v.Master) >= v.base+4
	})
	fd := testenv.NewDescriptor(t)
	defer unix.Close(fd)
	tick := time.NewTicker(900 * time.Millisecond)
	defer tick.Stop()
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case <-tick.C:
				m.queues[0].SendBatch([]int{fd})
			case <-stop:
				return
			}
		}
	})
	start := time.Now()
	binding := entry("binding", 0, "label", "real", "property", "", "endpoint", "good",
		"deadline", "9000000000000000000")
	v.measure(func() {
		v.takeOver(descriptionOf(t, 0, header(2, 1, 0, 0), binding), 1, nil).close()
		if !v.WaitForText("takeover: sessions=0 bindings=1 clients=0 lost=0") {
			t.Errorf("got %q", v.Texts())
		}
	})
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the next state was received after %v", took)
	}
	v.wantUnharmed()
	close(stop)
	sending.Wait()
}

// TestHostile_descriptorsInFlight has another process of the same user, with many
// descriptors in flight that about half of the sessions find no room at a reload. They are
// counted as lost, and closed with goodbye.
func TestHostile_descriptorsInFlight(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	postfixtest.NeedPostfix(t) // that is, root
	const files, sessions, inFlight = 4000, 3000, 2500
	const name = "daemon" // no server of another test, whose descriptors would count as well
	daemon, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	owner, _ := strconv.Atoi(daemon.Uid)
	m, err := postfixtest.NewMaster("/usr/bin/prlimit",
		"connection_cache_ttl_limit=1h\nconnection_cache_goodbye=QUIT\nmail_owner="+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	m.Args = append([]string{fmt.Sprintf("--nofile=%d:%d", files, files), binary},
		append(m.Args, "-u")...)
	start(t, m)
	v := &victim{Master: m, t: t, good: dial(t, m)}
	remotes := make([]int, sessions)
	for i := range remotes {
		const kind = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
		fds, err := unix.Socketpair(unix.AF_UNIX, kind, 0)
		if err != nil {
			t.Fatal(err)
		}
		remotes[i] = fds[0]
		defer unix.Close(fds[0])
		status, err := v.good.SaveEndpoint(3600, fmt.Sprint("e", i), "p", fds[1])
		if err != nil || status != client.OK {
			t.Fatal(status, err)
		}
		unix.Close(fds[1])
	}
	was := v.status()
	if was.Sessions != sessions {
		t.Fatalf("got %d sessions, want %d", was.Sessions, sessions)
	}
	ours, theirs, err := fdpass.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	asUser(owner, func() {
		fd, _ := unix.Eventfd(0, unix.EFD_CLOEXEC)
		defer unix.Close(fd)
		for range inFlight / 250 {
			if err := ours.SendBatch(slices.Repeat([]int{fd}, 250)); err != nil {
				t.Error(err)
			}
		}
	})
	v.measure(func() {
		if err := m.HangUp(); err != nil {
			t.Fatal(err)
		}
		if err := m.StartWhenNeeded(longWait); err != nil {
			t.Fatalf("%v\n%q", err, m.Log())
		}
		if !m.WaitForText("takeover: ") {
			t.Fatalf("got %q", m.Texts())
		}
	})
	s := v.status()
	const room = files - inFlight
	if s.Sessions < room-600 || s.Sessions > room+300 || s.Lost != sessions-s.Sessions {
		t.Errorf("got %d sessions, %d lost; want about %d, and the rest lost", s.Sessions, s.Lost, room)
	}
	quits, open := 0, 0
	for i, r := range remotes {
		buf := make([]byte, 100)
		switch n, err := unix.Read(r, buf); {
		case n > 0 && string(buf[:n]) == "QUIT\r\n":
			quits++
		case err == unix.EAGAIN:
			open++
		default:
			t.Errorf("the remote end %d has heard %q, %v", i, buf[:max(n, 0)], err)
		}
	}
	if int64(quits) != s.Lost || int64(open) != s.Sessions {
		t.Errorf("%d connections are open, and %d have heard QUIT; want %d and %d",
			open, quits, s.Sessions, s.Lost)
	}
	t.Logf("%d of %d sessions were handed over", s.Sessions, sessions)
}

// asUser calls a function in a thread whose real user is another one meanwhile. The thread must
// not end: that would kill the processes that it has started, as postfixtest has it.
func asUser(uid int, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid int) {
		const unchanged = ^uintptr(0)
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), unchanged, unchanged)
		if errno != 0 {
			panic(errno)
		}
	}
	become(uid)
	defer become(0)
	f()
}

// TestHostile_readersThatDoNotRead has operators who ask for the list of a large cache and do
// not read: a reload does not wait for them.
func TestHostile_readersThatDoNotRead(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const bindings = 50_000
	var without time.Duration
	for _, readers := range []int{0, 10, 50, 200} {
		t.Run(fmt.Sprint(readers), func(t *testing.T) {
			v := newVictim(t)
			fill := descriptionOf(t, 0, header(2, bindings, 0, 0))
			var text strings.Builder
			for i := range bindings {
				text.WriteString(entry("binding", 0, "label", fmt.Sprint("destination ", i), "property", "",
					"endpoint", strings.Repeat("e", 100), "deadline", "9000000000000000000"))
			}
			io.WriteString(fill, text.String())
			v.takeOver(fill, 1, nil).close()
			if !v.WaitForText(fmt.Sprintf("takeover: sessions=0 bindings=%d", bindings)) {
				t.Fatalf("got %q", v.Texts())
			}
			v.measure(func() {
				for range readers {
					conn := connect(t, v.Socket)
					if _, err := io.WriteString(conn, list("request", "list")); err != nil {
						t.Fatal(err)
					}
				}
				testenv.Eventually(t, "all are waited for", func() bool {
					return v.status().Clients == int64(readers)+2
				})
			})
			start, used := time.Now(), processorTime(t, v.Master)
			if err := v.HangUp(); err != nil {
				t.Fatal(err)
			}
			state := v.Cmd.ProcessState
			used = state.UserTime() + state.SystemTime() - used
			if err := v.StartWhenNeeded(longWait); err != nil {
				t.Fatal(err)
			}
			wantAnswer(t, v.good)
			t.Logf("the good client was answered after %v; the old process has used the processor for %v",
				time.Since(start).Round(time.Millisecond), used)
			if readers == 0 {
				without = used
			} else if used > without+time.Second { // 0.1 s without the race detector
				t.Errorf("the old process has used the processor for %v, want not much more than %v",
					used, without)
			}
			if !v.WaitForTexts("takeover: ", 2) {
				t.Fatalf("got %q", v.Texts())
			}
			v.saved.want(t, v.good)
			if got := peakMemory(t, v.Master); got > hostileMemory {
				t.Errorf("the next process had %d MB", got>>20)
			}
		})
	}
}

// processorTime returns for how long the daemon has used a processor.
func processorTime(t *testing.T, m *postfixtest.Master) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	const userTime, systemTime, ticksPerSecond = 13, 14, 100
	fields := strings.Fields(string(text))
	user, _ := strconv.Atoi(fields[userTime])
	system, _ := strconv.Atoi(fields[systemTime])
	return time.Duration(user+system) * time.Second / ticksPerSecond
}

// TestHostile_acceptQueue reloads with few open files, ten clients who are served and a
// hundred in the accept queue: the ten are served at once.
func TestHostile_acceptQueue(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	const served, queued = 10, 100
	m := startWithFiles(t, binary, 64)
	if err := m.SetBacklog(queued); err != nil {
		t.Fatal(err)
	}
	var clients []*client.Client
	for range served {
		clients = append(clients, dial(t, m))
	}
	m.Cmd.Process.Signal(unix.SIGSTOP)
	answers := make(chan error, queued)
	done := make(chan struct{})
	var conns []*net.UnixConn
	for range queued {
		conns = append(conns, connect(t, m.Socket))
	}
	for _, conn := range conns {
		go func() {
			c, err := postfixtest.NewClient(fdpass.New(conn), true)
			if err == nil {
				err = miss(c)
			}
			answers <- err
			<-done // until then, it stays
			conn.Close()
		}()
	}
	m.CloseStatus()
	m.Cmd.Process.Signal(unix.SIGCONT)
	start := time.Now()
	if err := m.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := m.StartWhenNeeded(longWait); err != nil {
		t.Fatalf("%v\n%q", err, m.Log())
	}
	for i, c := range clients {
		if err := miss(c); err != nil {
			t.Errorf("client %d, which was served before: %v", i, err)
		}
	}
	took := time.Since(start)
	t.Logf("the clients that were served before are served after %v", took.Round(time.Millisecond))
	if took > hostileLatency {
		t.Errorf("the clients that were served before are served after %v, want at most %v",
			took, hostileLatency)
	}
	close(done)
	for range queued {
		if err := <-answers; err != nil {
			t.Errorf("a client in the accept queue: %v", err)
		}
	}
}

// TestHostile_longLabels has labels and properties over the bound of requests in a state: they
// are not taken, and what is asked for is answered.
func TestHostile_longLabels(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	v := newVictim(t)
	long := strings.Repeat("x", 3<<20)
	const never = "9000000000000000000"
	fd := testenv.NewDescriptor(t)
	defer unix.Close(fd)
	v.takeOver(descriptionOf(t, 0, header(2, 2, 2, 1),
		entry("client", 1, "unread", base64.StdEncoding.EncodeToString([]byte(long))),
		entry("binding", 0, "label", "d1", "property", long, "endpoint", "e", "deadline", never),
		entry("binding", 0, "label", "d2", "property", "", "endpoint", long, "deadline", never),
		entry("session", 1, "label", "e", "property", long, "deadline", never),
		entry("session", 1, "label", long, "property", "", "deadline", never),
		entry("hits", 0, "level", "endpoint", "label", long, "counts", "1"),
	), 1, func(m *message) {
		if err := m.queues[0].SendBatch([]int{fd, fd, fd}); err != nil {
			t.Fatal(err)
		}
	}).close()
	if !v.WaitForText("takeover: ") {
		t.Fatal("no takeover")
	}
	for _, label := range []string{"d1", "d2"} {
		if f, err := v.good.FindDestination(label); err != nil || f.Code != client.NotFound {
			t.Errorf("%s: got %+v, %v", label, f, err)
		}
	}
	if f, err := v.good.FindEndpoint("e"); err != nil || f.Code != client.NotFound {
		t.Errorf("got %+v, %v", f, err)
	}
	if s := v.status(); s.Lost != 3 || s.Sessions != 1 || s.Destinations != 1 {
		t.Errorf("got %+v, want 3 lost", s)
	}
	v.wantUnharmed()
}
