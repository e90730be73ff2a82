// SPDX-License-Identifier: EPL-2.0

package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// FuzzState sends any state, with any descriptors, to a process that serves: it neither
// crashes nor leaks, and serves a client on. The text is sent as it is if seed is 0, and
// otherwise a random state comes first.
func FuzzState(f *testing.F) {
	testenv.SkipShort(f)
	for _, name := range []string{"version1", "version2"} {
		text, err := os.ReadFile("../../testdata/descriptions/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint64(0), text)
	}
	for seed := range uint64(20) {
		f.Add(seed+1, []byte{})
	}
	m, err := postfixtest.StartMaster(binary,
		"connection_cache_ttl_limit=1h\nmax_idle=1h\nipc_timeout=5s")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { m.Close() })
	good, err := postfixtest.Dial(m.Socket)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { good.Close() })
	base := -1
	f.Fuzz(func(t *testing.T, seed uint64, text []byte) {
		good.Conn.(*fdpass.Conn).SetDeadline(time.Now().Add(2 * longWait)) // after a panic, none answers
		if err := miss(good); err != nil {
			t.Fatalf("before: %v\n%q", err, m.Log())
		}
		if base < 0 {
			base = stableDescriptors(t, m)
		}
		s := &randomState{Rand: rand.New(rand.NewPCG(seed, 0)), t: t}
		defer s.close()
		if seed != 0 {
			s.write()
		}
		s.text.Write(text)
		s.send(m.Socket)
		status, got := "", 0
		for end := time.Now().Add(longWait); ; time.Sleep(time.Millisecond) {
			if _, err := good.FlushAll(); err != nil {
				t.Fatalf("%v\n%q", err, m.Log())
			}
			now, err := good.Status()
			if err != nil {
				t.Fatalf("%v\n%q", err, m.Log())
			}
			if got = descriptors(t, m); got == base && now.Clients == 1 && now.Sessions == 0 {
				return
			}
			status = fmt.Sprintf("%+v", now)
			if time.Now().After(end) {
				t.Fatalf("%d descriptors are open, want %d; %s", got, base, status)
			}
		}
	})
}

// A randomState is a description that is in good order for the most part, and descriptors.
type randomState struct {
	*rand.Rand
	t       *testing.T
	text    strings.Builder
	fds     []int   // for the queues
	ours    []int   // other ends of them, and the like
	batches [][]int // of fds
}

func (s *randomState) close() {
	for _, fds := range [][]int{s.fds, s.ours} {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// oneOf returns the usual value, most of the time, or any of the others.
func (s *randomState) oneOf(usual string, others ...string) string {
	if s.IntN(4) > 0 {
		return usual
	}
	return others[s.IntN(len(others))]
}

var strangeNumbers = []string{
	"0", "1", "-1", "x", "", "16", "17", "2147483647", "4294967295", "9223372036854775807",
	"9223372036854775808", "18446744073709551615", "99999999999999999999",
}

var strangeTexts = []string{
	"", "e", "\n", "{", "}", "request", strings.Repeat("x", 1000), strings.Repeat("x", 70_000),
}

func (s *randomState) number(usual int) string {
	return s.oneOf(fmt.Sprint(usual), strangeNumbers...)
}

func (s *randomState) words(usual string) string {
	return s.oneOf(usual, strangeTexts...)
}

// write writes a header and entries, and makes their descriptors.
func (s *randomState) write() {
	const never = "9000000000000000000"
	version := s.oneOf("2", "1", "3", "0", "x")
	s.text.WriteString(list("version", version, "bindings", s.number(s.IntN(5)),
		"sessions", s.number(s.IntN(5)), "clients", s.number(s.IntN(5))))
	for range s.IntN(12) {
		kinds := []string{"client", "session", "binding", "hits", "counts"}
		kind := s.oneOf(kinds[s.IntN(len(kinds))], "song", "", "x")
		number := 0
		switch {
		case kind == "session", kind == "client":
			number = 1 + s.IntN(3)/2
		case s.IntN(8) == 0:
			number = s.IntN(20)
		}
		fields := []string{"entry", kind, "descriptors", s.number(number)}
		add := func(name, value string) {
			if s.IntN(5) > 0 {
				fields = append(fields, name, value)
			}
		}
		switch kind {
		case "client":
			requests := []string{
				list("request", "find_endp", "label", "e"),
				list("request", "find_dest", "label", "d"),
				list("dummy", ""),
				list("request", "save_endp", "ttl", "60", "label", "e", "property", "p"),
				"request\x00fi",
				"\x00",
				list("request", "status"),
				list("request", "list"),
				list("request", "take_over"),
				list("request", "hits", "level", "endpoint"),
			}
			unread := requests[s.IntN(len(requests))] + s.oneOf("", requests...)
			phases := []string{"between_requests", "descriptor_due", "dummy_due", "descriptor_going"}
			add("state", s.oneOf(phases[s.IntN(len(phases))], "x", ""))
			add("ack_due", s.oneOf("1", "0", "x"))
			add("unread", s.oneOf(base64.StdEncoding.EncodeToString([]byte(unread)), "", "x", "===="))
			unwritten := make([]byte, s.IntN(300_000))
			add("unwritten", s.oneOf("", base64.StdEncoding.EncodeToString(unwritten), "x"))
			add("deadline", s.number(s.IntN(1<<30)))
		case "session", "binding":
			add("label", s.words([]string{"e", "d"}[s.IntN(2)]))
			add("property", s.words("p"))
			add("endpoint", s.words("e"))
			add("saved", s.number(s.IntN(1<<30)))
			add("deadline", s.oneOf(never, strangeNumbers...))
		case "hits":
			add("level", s.oneOf("endpoint", "destination", "x"))
			add("label", s.words("e"))
			add("counts", s.words("1 2 3 4 5 6"))
			add("error", s.number(1))
		case "counts":
			add("since", s.number(s.IntN(1<<30)))
			add("saved", s.number(7))
			add("took", s.words("5 1 2 3"))
			add("waited", s.words("5 1 2 3"))
		}
		s.text.WriteString(list(fields...))
		for range number {
			s.fds = append(s.fds, s.descriptor())
		}
	}
	for rest := s.fds; len(rest) > 0; {
		n := min(1+s.IntN(8), len(rest))
		s.batches = append(s.batches, rest[:n])
		rest = rest[n:]
	}
}

// descriptor returns one of any kind.
func (s *randomState) descriptor() int {
	pair := func(kind int) (a, b int) {
		fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		return fds[0], fds[1]
	}
	var fd, other int
	var err error
	switch s.IntN(9) {
	case 0:
		fd, err = unix.Eventfd(1, unix.EFD_CLOEXEC)
	case 1:
		fd, err = unix.MemfdCreate("hostile", unix.MFD_CLOEXEC)
	case 2:
		fd = testenv.NewDescriptor(s.t)
	case 3:
		fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	case 4:
		fd, other = pair(unix.SOCK_DGRAM)
		s.ours = append(s.ours, other)
	default:
		fd, other = pair(unix.SOCK_STREAM)
		s.ours = append(s.ours, other)
		setOptions([]int{fd, other}[:s.IntN(3)])
		io.WriteString(fdWriter(other), s.oneOf("", "\x00", list("dummy", ""), list("request", "status")))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return fd
}

// An fdWriter writes to a bare descriptor, as far as there is room.
type fdWriter int

func (w fdWriter) Write(p []byte) (int, error) {
	return unix.SendmsgN(int(w), p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// send sends the state, closes what is ours, and waits until the process has read it.
func (s *randomState) send(path string) {
	pair := func() (a, b *fdpass.Socket) {
		a, b, err := fdpass.SocketPair()
		if err != nil {
			s.t.Fatal(err)
		}
		return a, b
	}
	control, first := pair()
	defer control.Close()
	queue, end := pair()
	conn, err := fdpass.NewStream()
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	testenv.Eventually(s.t, "the accept queue has room", func() bool {
		return conn.Connect(path) == nil
	})
	description := descriptionOf(s.t, 0, s.text.String())
	for _, b := range s.batches {
		queue.SendBatch(b)
	}
	message := []int{int(description.Fd()), conn.FD(), end.FD()}
	control.SendBatch(message[:len(message)-s.IntN(10)/9])
	if err := conn.SendWith([]byte(list("request", "take_over")), first.FD()); err != nil {
		s.t.Fatal(err)
	}
	setOptions([]int{first.FD(), end.FD()}[:s.IntN(3)])
	queue.Close()
	end.Close()
	first.Close()
	s.close()
	s.fds, s.ours = nil, nil
	unix.SetNonblock(control.FD(), false)
	unix.SetsockoptTimeval(control.FD(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60})
	// Until the other end is closed.
	n, err := testenv.Read(control.FD(), make([]byte, 1))
	if n > 0 || err == unix.EAGAIN {
		s.t.Fatalf("the process does not end reading: %d, %v", n, err)
	}
}
