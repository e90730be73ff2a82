// SPDX-License-Identifier: EPL-2.0

package server

// Clients that speak badly, or send descriptors that were not asked for. The
// administrator reads what was wrong, and no other request suffers.

import (
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/testenv"
)

func TestRequest_malformed(t *testing.T) {
	t.Parallel()
	const (
		noReply        = ""
		bad            = `status\01\0\0`
		badEndpoint    = `status\01\0property\0\0\0`
		badDestination = `status\01\0property\0\0property\0\0\0`
	)
	for _, test := range []struct{ say, hear, warning string }{
		{`\0`, noReply, "missing attribute request"},
		{`label\0x\0\0`, noReply, `unexpected attribute "label"`},
		{`label\0x\0request\0find_endp\0\0`, noReply, `unexpected attribute "label"`},
		{`{\0request\0find_endp\0}\0label\0x\0\0`, noReply, `unexpected attribute "{"`},
		{`dummy\0\0\0`, noReply, `unexpected attribute "dummy"`},
		{`request\0nonsense\0label\0x\0\0`, bad, `warning: unrecognized request: "nonsense", ignored`},
		{`request\0a\nb\0\0`, bad, `warning: unrecognized request: "a?b", ignored`},
		{`request\0\0\0`, bad, `warning: unrecognized request: "", ignored`},

		{`request\0save_endp\0\0`, bad, "missing attribute ttl"},
		{`request\0save_endp\0ttl\09\0label\0e\0\0`, bad, "missing attribute property"},
		{`request\0save_endp\0label\0e\0property\0p\0\0`, bad,
			`unexpected attribute "label" (expecting: ttl)`},
		{`request\0save_endp\0ttl\09\0property\0p\0label\0e\0\0`, bad,
			`unexpected attribute "property" (expecting: label)`},
		{`request\0save_endp\0ttl\09\0label\0e\0property\0p\0label\0f\0\0`, bad,
			`unexpected attribute "label" (expecting: end of list)`},

		{`request\0save_dest\0\0`, bad, "missing attribute ttl"},
		{`request\0save_dest\0ttl\09\0label\0d\0property\0p\0\0`, bad, "missing attribute label"},
		{`request\0save_dest\0ttl\09\0label\0d\0label\0e\0property\0p\0\0`, bad,
			`unexpected attribute "label" (expecting: property)`},
		{`request\0save_dest\0ttl\09\0label\0d\0property\0p\0label\0e\0x\0\0\0`, bad,
			`unexpected attribute "x" (expecting: end of list)`},

		{`request\0find_endp\0\0`, badEndpoint, "missing attribute label"},
		{`request\0find_endp\0property\0e\0\0`, badEndpoint,
			`unexpected attribute "property" (expecting: label)`},
		{`request\0find_endp\0label\0e\0label\0f\0\0`, badEndpoint,
			`unexpected attribute "label" (expecting: end of list)`},
		{`request\0find_dest\0\0`, badDestination, "missing attribute label"},
		{`request\0find_dest\0{\0label\0d\0}\0\0`, badDestination,
			`unexpected attribute "{" (expecting: label)`},
		{`request\0find_dest\0label\0d\0ttl\01\0\0`, badDestination,
			`unexpected attribute "ttl" (expecting: end of list)`},
	} {
		testMalformed(t, test.say, test.hear, test.warning)
	}
	for _, ttl := range []string{
		"0", "2147483648", "4294967295", "4294967296", "99999999999999999999",
		"9x", "x", "", "+", "+1", " 1", "1.5", "0x1",
	} {
		testMalformed(t, `request\0save_endp\0ttl\0`+ttl+`\0label\0e\0property\0p\0\0`, bad,
			"of attribute ttl")
		testMalformed(t, `request\0save_dest\0ttl\0`+ttl+`\0label\0d\0property\0p\0label\0e\0\0`, bad,
			"of attribute ttl")
	}
}

// testMalformed says something that must be refused, with a reply and a
// warning, and otherwise without a trace.
func testMalformed(t *testing.T, say, hear, warning string) {
	t.Run(say, func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		p := w.connect(t)
		p.say(say)
		p.hear(hear)
		p.wantInStep()
		w.wantWarning(t, warning)
		if stats := w.Cache.ResetStats(); stats != (cache.Stats{Endpoint: cache.Lookups{Misses: 1}}) {
			t.Errorf("counted as %+v", stats)
		}
		for _, request := range []string{"save_endp", "save_dest", "find_endp", "find_dest"} {
			if strings.HasPrefix(say, `request\0`+request) { // what log analysers look for
				w.wantWarning(t, "warning: scache_"+request+"_service: bad or missing request parameter")
			}
		}
	})
}

// TestRequest_tooLong is refused, and the conversation continues, in another process too.
func TestRequest_tooLong(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	long := strings.Repeat("x", 4<<20)
	for name, list := range map[string]string{
		"in a value":          `request\0save_dest\0ttl\09\0label\0` + long + `\0\0`,
		"in a name":           long + `\0\0\0`,
		"in many attributes":  strings.Repeat(`a\0b\0`, 1<<19) + `\0`,
		"in a table":          `{\0` + strings.Repeat(`a\0\0`, 1<<19) + `}\0\0`,
		"beyond the size":     `label\0` + strings.Repeat("x", maxRequest) + `\0\0`,
		"a brace in a value":  `label\0{` + strings.Repeat("x", maxRequest+1<<16) + `\0{\0a\0b\0}\0\0`,
		"an empty list after": strings.Repeat(`a\0b\0`, 1<<19) + `\0`,
	} {
		text := wire(list)
		from, to := newWorld(t), newWorld(t)
		p := from.connect(t)
		for _, cut := range []int{len(text), len(text) - 1, len(text) / 2} {
			p.say(text[:cut])
			p.playUntil(nil, 0, 0) // until all of it is read
			handOver(t, from, to)
			if cut < len(text) {
				p.say(text[cut:])
			}
			p.hear(`status\01\0\0`)
			p.miss()
			from, to = to, newWorld(t)
		}
		if after := from.pending.Load(); after > bufferSize {
			t.Errorf("%s: got %d bytes of memory in use, want at most %d", name, after, bufferSize)
		}
	}
}

// TestRequest_longProperty has properties that the stock server takes.
func TestRequest_longProperty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect(t)
	long := strings.Repeat("x", 1<<20)
	p.say(`request\0save_dest\0ttl\09\0label\0d\0property\0` + long + `\0label\0e\0\0`)
	p.hear(`status\00\0\0`)
	_, fd := testenv.Pipe(t)
	w.Cache.SaveSession(time.Minute, []byte("e"), []byte(long), fd)
	p.say(`request\0find_dest\0label\0d\0\0`)
	p.hear(`status\00\0property\0` + long + `\0property\0` + long + `\0\0`)
}

func TestReply_longProperties(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect(t)
	_, fd := testenv.Pipe(t)
	long := strings.Repeat("x", 65_000)
	w.Cache.SaveBinding(1, []byte("d"), []byte(long), []byte("e"))
	w.Cache.SaveSession(1, []byte("e"), []byte(long), fd)
	p.say(`request\0find_dest\0label\0d\0\0`)
	p.hear(`status\00\0property\0` + long + `\0property\0` + long + `\0\0`)
}

func TestFind_closesASessionThatIsNotAskedFor(t *testing.T) {
	t.Parallel()
	for _, instead := range []string{`\0`, `request\0find_endp\0label\0e\0\0`, `dummy\0\0x\0\0\0`} {
		w := newWorld(t)
		r, fd := testenv.Pipe(t)
		w.Cache.SaveSession(1, []byte("e"), nil, fd)
		p := w.connect(t)
		p.say(`request\0find_endp\0label\0e\0\0`)
		p.hear(`status\00\0property\0\0\0`)
		p.say(instead)
		p.wantEnd()
		testenv.WantClosed(t, r)
		w.wantWarning(t, "connection closed")
	}
}

func TestDescriptors_unexpectedOnesAreClosed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ say, hear string }{
		{`request\0find_endp\0label\0e\0\0`, `status\02\0property\0\0\0`},
		{`request\0find_dest\0label\0d\0\0`, `status\02\0property\0\0property\0\0\0`},
		{`request\0save_dest\0ttl\09\0label\0d\0property\0\0label\0e\0\0`, `status\00\0\0`},
		{`request\0save_endp\0ttl\00\0label\0e\0property\0\0\0`, `status\01\0\0`},
		{`request\0find_endp\0\0`, `status\01\0property\0\0\0`},
		{`request\0nonsense\0\0`, `status\01\0\0`},
		{`label\0x\0\0`, ""},
		{`\0`, ""},
	} {
		for count := 1; count <= 3; count++ {
			w := newWorld(t)
			p := w.connect(t)
			r, fd := testenv.Pipe(t)
			p.say(test.say, []int{fd, fd, fd}[:count]...)
			unix.Close(fd)
			p.hear(test.hear)
			_, other := testenv.Pipe(t)
			p.save("other", other) // it does not become company
			unix.Close(other)
			testenv.WantClosed(t, r)
			p.wantInStep()
			w.wantWarning(t, "file descriptor")
		}
	}
}

func TestDescriptors_besideDummiesAreClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect(t)
	_, saved := testenv.Pipe(t)
	want := testenv.Inode(t, saved)
	w.Cache.SaveSession(1, []byte("e"), nil, saved)
	r1, fd1 := testenv.Pipe(t)
	r2, fd2 := testenv.Pipe(t)
	p.say(`request\0find_endp\0label\0e\0\0`)
	p.hear(`status\00\0property\0\0\0`)
	p.say(`dummy\0\0\0`, fd1)
	unix.Close(fd1)
	p.hear(`\0`)
	testenv.WantClosed(t, r1)
	if found, err := p.Take(); err != nil || testenv.Inode(t, found) != want {
		t.Errorf("found descriptor %d, %v", found, err)
	} else {
		unix.Close(found)
	}
	p.say(`dummy\0\0\0`, fd2)
	unix.Close(fd2)
	_, other := testenv.Pipe(t)
	p.save("other", other) // the one before is no company
	unix.Close(other)
	testenv.WantClosed(t, r2)
	w.wantWarning(t, "file descriptor")
	p.say(`dummy\0\0\0`) // one too many
	p.wantInStep()
	w.wantWarning(t, `unexpected attribute "dummy"`)
}

func TestSaveEndpoint_wantsOneDescriptor(t *testing.T) {
	t.Parallel()
	for _, beside := range []struct{ request, byte int }{
		{0, 0}, {0, 2}, {0, 3}, {1, 1}, {2, 0}, {2, 1},
	} {
		w := newWorld(t)
		p := w.connect(t)
		r, fd := testenv.Pipe(t)
		fds := []int{fd, fd, fd}
		p.say(`request\0save_endp\0ttl\09\0label\0e\0property\0\0\0`, fds[:beside.request]...)
		p.hear(`dummy\0\0\0`)
		p.say(`\0`, fds[:beside.byte]...)
		unix.Close(fd)
		p.hear(`status\02\0\0`)
		testenv.WantClosed(t, r)
		p.wantInStep()
		w.wantWarning(t, "file descriptor")
		if size := w.Cache.Size(); size != (cache.Size{}) {
			t.Errorf("%+v: the cache holds %+v", beside, size)
		}
	}
}

// TestRequest_manyHalfRequests has more of them than the server keeps. Those that do not fit
// are refused when they are complete; others are answered meanwhile.
func TestRequest_manyHalfRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	w := newWorld(t)
	const size = 1 << 20
	half := `request\0save_dest\0ttl\09\0label\0d\0property\0` + strings.Repeat("x", size)
	var peers []*peer
	for range maxPending/size + 20 {
		p := w.connect(t)
		p.say(half)
		p.playUntil(nil, 0, 0) // until all of it is read
		peers = append(peers, p)
	}
	// The memory of a conversation grows by more than what it needs.
	if got := w.pending.Load(); got > 2*maxPending {
		t.Errorf("got %d bytes of pending input, want about %d", got, maxPending)
	}
	w.connect(t).miss()
	statuses := map[string]int{}
	for _, p := range peers {
		p.say(`\0label\0e\0\0`)
		reply := make([]byte, len("status\x00?\x00\x00"))
		if _, err := io.ReadFull(p, reply); err != nil {
			t.Fatal(err)
		}
		statuses[string(reply)]++
	}
	if statuses["status\x000\x00\x00"] < maxPending/size/3 || statuses["status\x001\x00\x00"] == 0 ||
		len(statuses) != 2 {
		t.Errorf("got replies %v, want some requests refused", statuses)
	}
	if got := w.pending.Load(); got > int64(len(peers)*bufferSize) {
		t.Errorf("got %d bytes of pending input at the end", got)
	}
}

// TestReply_thatCannotBeEncoded has properties that do not fit into a reply, or hold a NUL:
// the client is told that there is no session, which is closed.
func TestReply_thatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	for name, property := range map[string]string{
		"4 MB": strings.Repeat("x", 4<<20),
		"NUL":  "a\x00b",
	} {
		w := newWorld(t)
		r, fd := testenv.Pipe(t)
		p := w.connect(t)
		w.Cache.SaveSession(time.Minute, []byte("e"), []byte(property), fd)
		p.say(`request\0find_endp\0label\0e\0\0`)
		p.hear(`status\02\0property\0\0\0`)
		testenv.WantClosed(t, r)
		r, fd = testenv.Pipe(t)
		w.Cache.SaveSession(time.Minute, []byte("e"), nil, fd)
		w.Cache.SaveBinding(time.Minute, []byte("d"), []byte(property), []byte("e"))
		p.say(`request\0find_dest\0label\0d\0\0`)
		p.hear(`status\02\0property\0\0property\0\0\0`)
		testenv.WantClosed(t, r)
		p.miss()
		if lines := w.logged(); len(lines) != 2 || !strings.Contains(lines[0], "cannot be encoded") {
			t.Errorf("%s: got %q", name, lines)
		}
		w.Stop()
	}
}
