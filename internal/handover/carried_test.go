// SPDX-License-Identifier: EPL-2.0

package handover

// What administrators and clients would miss if a state did not carry it.

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/histogram"
	"scache/internal/receivers"
	"scache/internal/stats"
)

// TestReceive_timeoutOfAClient has the rest of the timeout arrive, also when it is over by
// then: without one, the client would be waited for without limit.
func TestReceive_timeoutOfAClient(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ timeout, passes, want time.Duration }{
		{time.Minute, time.Second, 59 * time.Second},
		{time.Second, time.Minute, -59 * time.Second},
		{time.Second, time.Second, -1},
		{1, 1, -1},
		{0, time.Second, 0}, // there is none
	} {
		p := newPlace(t)
		s, _ := newState(t, 1, 0)
		s.Clients[0].Timeout = test.timeout
		p.send(t, s)
		got, _, err := receiver(time.Hour + test.passes).receive(p.message(t))
		if err != nil || len(got.Clients) != 1 {
			t.Fatalf("got %+v, %v", got, err)
		}
		got.close()
		if got := got.Clients[0].Timeout; got != test.want {
			t.Errorf("%v, %v later: got %v, want %v", test.timeout, test.passes, got, test.want)
		}
	}
}

// TestReceive_countsOfAState has every number arrive, lost log lines among them.
func TestReceive_countsOfAState(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	s, _ := newState(t, 0, 0)
	const saved = 1000 // no other number may be above it
	s.Counts.Values = stats.Values{Saved: saved}
	n, want := int64(0), map[string]int64{}
	for name, value := range s.Counts.Continued() {
		if *value == 0 {
			n++
			*value = n
		}
		want[name] = *value
	}
	if want["lost_lines"] == 0 {
		t.Errorf("got %v, want lost log lines among them", want)
	}
	p.send(t, s)
	got, _, err := receiver(time.Hour).receive(p.message(t))
	if err != nil {
		t.Fatal(err)
	}
	got.close()
	for name, value := range got.Counts.Continued() {
		if *value != want[name] {
			t.Errorf("%s: got %d, want %d", name, *value, want[name])
		}
	}
}

// TestReceive_stopsInTime has a process that is about to end: it reads on until its overtime
// is over.
func TestReceive_stopsInTime(t *testing.T) {
	t.Parallel()
	for _, want := range []int{10, 6} { // of 10 sessions
		p := newPlace(t)
		s, _ := newState(t, 0, 10)
		p.send(t, s)
		stop, overtime := make(chan struct{}), make(chan struct{})
		r := Receiver{Now: zero, Stop: stop, Overtime: overtime}.Receive(p.message(t))
		sessions := 0
		for e := range r.Entries() {
			switch e := e.(type) {
			case *cache.SavedSession:
				sessions++
				if sessions == 1 {
					close(stop)
				}
				if sessions == want && want < 10 {
					close(overtime)
				}
				unix.Close(e.FD)
			case *Claim:
				unix.Close(e.FD)
			}
		}
		if sessions != want || (r.Err == nil) != (want == 10) {
			t.Errorf("got %d sessions, %v, want %d", sessions, r.Err, want)
		}
	}
}

// TestReceive_refusesLongTexts has entries whose strings are too long together, not each alone.
func TestReceive_refusesLongTexts(t *testing.T) {
	t.Parallel()
	third, half := strings.Repeat("x", maxText/3), strings.Repeat("x", maxText/2)
	rest := strings.Repeat("x", maxText-2*len(third))
	for _, test := range []struct {
		more string
		want Received
	}{{"", Received{Sessions: 1, Bindings: 1}}, {"x", Received{Lost: 1}}} {
		p := newPlace(t)
		s, _ := newState(t, 0, 1)
		b, session := &s.Bindings[0], &s.Sessions[0]
		b.Label, b.Property, b.Endpoint = third, third, rest+test.more
		session.Label, session.Property = half, half+test.more
		p.send(t, s)
		got, received, err := receiver(time.Hour).receive(p.message(t))
		got.close()
		if received != test.want || err != nil {
			t.Errorf("%d bytes more: got %+v, %v, want %+v", len(test.more), received, err, test.want)
		}
	}
}

// TestReceive_receivers has all that is known of receivers arrive, and of clients that wait for
// a connection to one.
func TestReceive_receivers(t *testing.T) {
	t.Parallel()
	address := netip.MustParseAddr("2001:db8::1")
	waited := histogram.Values{Sum: time.Minute}
	waited.Counts[3] = 5
	want := receivers.State{
		Names: []receivers.KnownName{
			{Address: address, Name: "mx1.example", Remaining: time.Minute},
			{Address: netip.MustParseAddr("192.0.2.1"), Name: "mx2.example", Remaining: time.Hour},
		},
		Destinations: []receivers.KnownDestination{
			{Label: "d\n", Endpoint: "e", Remaining: time.Minute, Binding: time.Second},
			{Label: "d2", Endpoint: "e2", Remaining: time.Hour, Binding: -time.Second},
		},
		Begun: []receivers.KnownBegun{
			{Receiver: "one", Age: time.Second}, {Receiver: "any", Address: address, Age: time.Minute},
		},
		Holds: []receivers.KnownHold{
			{Receiver: "one", PID: 7}, {Receiver: "any", Address: address, PID: 8},
		},
		Totals: []receivers.RuleTotals{{Receiver: "one", Counts: receivers.Totals{
			New: 1, Given: 2, Overflows: 3, Refused: 4, Closed: 5}, Waited: waited}},
	}
	wantWaits := []*Wait{
		nil,
		{Pending: true, ClientState: receivers.ClientState{
			Destination: "d", Label: "e", Waiting: true, Place: 7,
			Waited: time.Second, Remaining: time.Minute, Asked: []string{"a", "b"},
		}},
		{ClientState: receivers.ClientState{
			Settled: true, Promised: "e", PromiseAge: time.Minute, Waited: maxWait, Remaining: maxWait,
		}},
	}
	p := newPlace(t)
	s, _ := newState(t, len(wantWaits), 1)
	s.Receivers = want
	for i, w := range wantWaits {
		if s.Clients[i].Wait = w; w != nil && w.Settled { // longer than is believed
			longer := *w
			longer.Waited, longer.Remaining = 2*w.Waited, 2*w.Remaining
			s.Clients[i].Wait = &longer
		}
	}
	p.send(t, s)
	got, r, err := receiver(time.Hour).receive(p.message(t))
	if r.Clients != len(wantWaits) || r.Sessions != 1 || err != nil {
		t.Fatalf("got %+v, %v", r, err)
	}
	got.close()
	if !reflect.DeepEqual(got.Receivers, want) {
		t.Errorf("got  %+v\nwant %+v", got.Receivers, want)
	}
	for i, c := range got.Clients {
		if !reflect.DeepEqual(c.Wait, wantWaits[i]) {
			t.Errorf("client %d: got %+v, want %+v", i, c.Wait, wantWaits[i])
		}
	}
}
