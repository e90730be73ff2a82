// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
	"scache/internal/testenv"
)

// TestReceive_statesOfOtherVersions reads them, in the order in which their
// descriptors come.
func TestReceive_statesOfOtherVersions(t *testing.T) {
	for _, g := range golden {
		text, err := os.ReadFile("../../testdata/descriptions/" + g.file)
		if err != nil {
			t.Fatal(err)
		}
		h, r, err := receiver(g.now).receive(craft(t, text, g.file == "version1", g.descriptors))
		if r != g.want || err != nil {
			t.Fatalf("%s: %+v, %v", g.file, r, err)
		}
		if b := h.Bindings[0]; b.Label != "smtp\nexample.test\n" || b.Property != "dest property\n" ||
			b.Endpoint != "smtp\n192.0.2.1\n25\n" || b.TTL < 999*time.Second || b.TTL > 1000*time.Second {
			t.Errorf("%s: %+v", g.file, b)
		}
		last := h.Sessions[len(h.Sessions)-1]
		if last.Label != "smtp\n192.0.2.1\n25\n" || last.Property != "reuse_count=2\n" ||
			last.TTL < 999*time.Second || last.TTL > 1000*time.Second {
			t.Errorf("%s: %+v", g.file, last)
		}
		if !slices.ContainsFunc(h.Clients, func(c Client) bool { return c.AckDue }) {
			t.Errorf("%s: no client owes an acknowledgement", g.file)
		}
		h.close()
	}
}

// craft returns the end of a message with this description and this many descriptors.
func craft(t testing.TB, description []byte, old bool, descriptors int) int {
	t.Helper()
	f, _ := file(t)
	defer unix.Close(f)
	unix.Write(f, description)
	fds := make([]int, descriptors)
	for i := range fds {
		fds[i], _ = stream(t)
	}
	defer closeAll(fds)
	ours, theirs := pair(t)
	defer ours.Close()
	self, other := pair(t)
	defer self.Close()
	defer other.Close()
	if !old {
		queue, end := pair(t)
		defer queue.Close()
		defer end.Close()
		ours.SendBatch([]int{f, self.FD(), end.FD()})
		if descriptors > 0 {
			queue.SendBatch(fds)
		}
		return theirs.FD()
	}
	ours.SendBatch([]int{f, self.FD()})
	sessions := descriptors / 2 // as many as clients
	for _, group := range [][]int{fds[:sessions], fds[sessions:]} {
		if len(group) > 0 {
			unix.SendmsgN(ours.FD(), []byte{0}, unix.UnixRights(group...), nil, 0)
		}
	}
	return theirs.FD()
}

func pair(t testing.TB) (a, b *fdpass.Socket) {
	t.Helper()
	a, b, err := fdpass.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func list(fields ...string) string { return strings.Join(fields, "\x00") + "\x00\x00" }

// TestReceive_statesInBadOrder: what is lost is counted, and nothing stays open.
func TestReceive_statesInBadOrder(t *testing.T) {
	header := list("version", "3", "bindings", "1", "sessions", "2", "clients", "1", "news", "x")
	aSession := list("entry", "session", "descriptors", "1", "label", "e", "property", "p", "deadline",
		"9000000000", "colour", "red")
	aClient := list("entry", "client", "descriptors", "1")
	for name, test := range map[string]struct {
		description string
		descriptors int
		want        Received
		fails       bool
	}{
		"attributes, entries and versions that are not known": {header +
			list("entry", "song", "descriptors", "2", "title", "x") + aClient + list("entry", "binding") +
			aSession + aSession, 5, Received{2, 1, 1, 0}, false},
		"nothing":    {"", 0, Received{}, true},
		"no version": {list("bindings", "1"), 0, Received{}, true},
		"a version that is no number": {list("version", "new", "sessions", "1"), 0, Received{0, 0, 0, 1},
			true},
		"the end comes too early": {header + aClient + aSession, 4, Received{1, 0, 1, 1}, false},
		"the end in an entry":     {header + aClient + aSession[:20], 4, Received{0, 0, 1, 2}, true},
		"more descriptors in an entry than are known": {list("version", "3", "sessions", "1", "clients",
			"1") + list("entry", "client", "descriptors", "4") +
			list("entry", "session", "descriptors", "3", "deadline", "9000000000"), 7, Received{1, 0, 1, 0},
			false},
		"too few descriptors": {header + aClient + aSession + aSession, 2,
			Received{1, 0, 1, 1}, true},
		"too many descriptors": {header + aClient + aSession + aSession, 9,
			Received{2, 0, 1, 0}, false},
		"a session without one": {header + aClient +
			list("entry", "session", "label", "e") + aSession, 2, Received{1, 0, 1, 1}, false},
		"a number that is none": {header + aClient +
			list("entry", "session", "descriptors", "x") + aSession, 3, Received{0, 0, 1, 2}, true},
		"a deadline that is none": {header + aClient +
			list("entry", "session", "descriptors", "1", "deadline", "x") + aSession, 3,
			Received{0, 0, 1, 2}, true},
		"a client that was not announced": {list("version", "3", "sessions", "2") + aClient +
			aClient + aSession, 3, Received{1, 0, 2, 1}, false},
		"an entry of a million": {header +
			list("entry", "x", "descriptors", "1000000"), 3, Received{0, 0, 0, 3}, true},
	} {
		before := testenv.OpenDescriptors(t)
		h, r, err := receiver(time.Second).receive(craft(t, []byte(test.description), false,
			test.descriptors))
		if r != test.want || (err != nil) != test.fails {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		h.close()
		before.WantSame(t, name)
	}
}

// TestReceive_refusesCountsThatCannotBe, and receives all that follows them.
func TestReceive_refusesCountsThatCannotBe(t *testing.T) {
	session := list("entry", "session", "descriptors", "1", "label", "e", "deadline", "9000000000")
	for name, test := range map[string]struct {
		entry string
		fails bool
	}{
		"true counts": {list("entry", "counts", "saved", "5000000000", "endpoint_hits",
			"4000000000", "later", "-1"), false},
		"a negative count": {list("entry", "counts", "saved", "5", "endpoint_misses", "-1"),
			true},
		"more hits than sessions": {list("entry", "counts", "saved", "5", "endpoint_hits", "3",
			"destination_hits", "3"), true},
		"more than 64 bits":       {list("entry", "counts", "saved", "9223372036854775808"), true},
		"near the end of 64 bits": {list("entry", "counts", "saved", "9223372036854775807"), true},
		"no number":               {list("entry", "counts", "saved", "x"), true},
		"a moment to come":        {list("entry", "counts", "saved", "5", "since", "-9000000000"), true},
		"negative times":          {list("entry", "counts", "took", "5 -1"), true},
		"hits of a label": {list("entry", "hits", "level", "endpoint", "label", "e", "counts",
			"1 0 0 0 0 0 5 -1"), false},
		"negative hits of a label": {list("entry", "hits", "level", "endpoint", "label", "e", "counts",
			"1 2 -1"), true},
		"a negative error": {list("entry", "hits", "level", "endpoint", "label", "e", "counts",
			"1", "error", "-1"), true},
	} {
		description := list("version", "2", "sessions", "1") + test.entry + session
		h, r, err := receiver(time.Second).receive(craft(t, []byte(description), false, 1))
		if want := (Received{Sessions: 1}); r != want || (err != nil) != test.fails {
			t.Errorf("%s: got %+v, %v, want %+v", name, r, err, want)
		}
		if got := h.Counts != (Counts{}) || len(h.Labels) > 0; got == test.fails {
			t.Errorf("%s: got %+v, %+v", name, h.Counts, h.Labels)
		}
		h.close()
	}
}

// TestReceive_doesNotWaitForLong has a sender that sends nothing.
func TestReceive_doesNotWaitForLong(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		ours, theirs := pair(t)
		stop := make(chan struct{})
		if stopped {
			close(stop)
		}
		start := time.Now()
		_, _, err := Receiver{Now: zero, Stop: stop}.receive(theirs.FD())
		if took := time.Since(start); err == nil || stopped && took > maxWaitForData/2 ||
			took > 20*maxWaitForData {
			t.Errorf("stopped: %v: got %v after %v", stopped, err, took)
		}
		ours.Close()
	}
}

// TestReceive_waitsForRoom has a receiver that cannot have as many descriptors as arrive. It
// takes what it can have, waits until there are more, and gives up when it has to.
func TestReceive_waitsForRoom(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t)
	sent, _ := newState(t, 10, 300)
	p.send(t, sent)
	fd := p.message(t)
	low := limit
	low.Cur = uint64(len(testenv.OpenDescriptors(t)) + 101)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() { close(stop) })
	got, r, err := Receiver{Now: zero, Stop: stop}.receive(fd)
	unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	got.close()
	if r.Clients != 10 || r.Sessions == 300 || r.Sessions+r.Lost != 300 || err != nil {
		t.Errorf("got %+v, %v", r, err)
	}

	sent, _ = newState(t, 10, 300)
	p.send(t, sent)
	fd = p.message(t)
	low.Cur = uint64(len(testenv.OpenDescriptors(t)) + 1) // not even for the description
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) })
	got, r, err = receiver(0).receive(fd)
	got.close()
	if r.Clients != 10 || r.Sessions != 300 || r.Lost != 0 || err != nil {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestReceive_makesRoomForClients has a receiver without a descriptor for what arrives. It
// gives up others for claims and for clients, but not for sessions.
func TestReceive_makesRoomForClients(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	for _, test := range []struct {
		clients, sessions int
		want              Received
	}{
		{10, 0, Received{Clients: 10, Bindings: 1}},
		{0, 10, Received{Lost: 10, Bindings: 1}},
	} {
		p := newPlace(t)
		sent, _ := newState(t, test.clients, test.sessions)
		p.send(t, sent)
		fd := p.message(t)
		room := 4 // for the description, its socket and queues
		if test.clients == 0 {
			room += len(sent.Claims)
		}
		low := limit
		low.Cur = uint64(len(testenv.OpenDescriptors(t)) + room)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
			t.Fatal(err)
		}
		stop, calls := make(chan struct{}), 0
		r := Receiver{Now: zero, Stop: stop, MakeRoom: func() {
			calls++
			unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		}}
		if test.clients == 0 {
			close(stop) // it does not wait for room that comes by itself
		}
		got, received, err := r.receive(fd)
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		got.close()
		if received != test.want || err != nil || (calls > 0) != (test.clients > 0) {
			t.Errorf("got %+v, %v, %d calls, want %+v", received, err, calls, test.want)
		}
	}
}

// TestReceive_timePasses has a clock that advances by a second with each look.
func TestReceive_timePasses(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	sent, _ := newState(t, 0, 3)
	p.send(t, sent)
	now := time.Hour
	r := receiver(0)
	r.Now = func() time.Duration { now += time.Second; return now }
	got, _, err := r.receive(p.message(t))
	defer got.close()
	if err != nil || len(got.Sessions) != 3 {
		t.Fatalf("got %+v, %v", got.Sessions, err)
	}
	if first, last := got.Sessions[0].TTL, got.Sessions[2].TTL; first >= time.Minute || last >= first {
		t.Errorf("got times to live %v, and %v for the last one", first, last)
	}
}

// FuzzDescription reads any description: it neither crashes nor leaks.
func FuzzDescription(f *testing.F) {
	for _, g := range golden {
		text, err := os.ReadFile("../../testdata/descriptions/" + g.file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, g.file == "version1", uint8(g.descriptors))
	}
	f.Add([]byte(list("version", "2", "sessions", "2147483647")), false, uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, old bool, descriptors uint8) {
		before := testenv.OpenDescriptors(t)
		h, r, _ := receiver(time.Hour).receive(craft(t, text, old, int(descriptors%50)))
		h.close()
		if r.Sessions != len(h.Sessions) || r.Clients != len(h.Clients) || r.Lost < 0 {
			t.Errorf("%+v", r)
		}
		before.WantSame(t, "at the end")
	})
}

// TestEntryReader_bounds has numbers of entries at their limit, and one above.
func TestEntryReader_bounds(t *testing.T) {
	t.Parallel()
	for more := range 2 {
		want := more == 0
		header := list("version", "2", "sessions", strconv.Itoa(maxEntries+more))
		if _, err := newEntryReader(strings.NewReader(header), zero); (err == nil) != want {
			t.Errorf("%d announced: got %v", maxEntries+more, err)
		}
		e, err := newEntryReader(strings.NewReader(list("version", "2")+list("entry", "new")), zero)
		if err != nil {
			t.Fatal(err)
		}
		e.read = maxEntries - 1 + more
		if _, _, _, err := e.next(); (err == nil) != want {
			t.Errorf("entry %d: got %v", e.read, err)
		}
		entry := list("entry", "new", "descriptors", strconv.Itoa(maxDescriptors+more))
		e, err = newEntryReader(strings.NewReader(list("version", "2")+entry), zero)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := e.next(); (err == nil) != want {
			t.Errorf("%d descriptors: got %v", maxDescriptors+more, err)
		}
		f, _ := file(t)
		if err := unix.Ftruncate(f, maxSize+int64(more)); err != nil {
			t.Fatal(err)
		}
		if _, err := memorySize(f); (err == nil) != want {
			t.Errorf("%d bytes: got %v", maxSize+more, err)
		}
		unix.Close(f)
	}
}
