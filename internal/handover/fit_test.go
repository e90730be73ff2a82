// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"scache/internal/cache"
	"scache/internal/receivers"
	"scache/internal/topk"
)

// TestState_fits has a description that is longer than it may be: sessions are left out only if
// all bindings are, and no more than necessary.
func TestState_fits(t *testing.T) {
	t.Parallel()
	const n, text = 50, 10_000
	all := func() *State {
		s := &State{}
		long := strings.Repeat("x", text)
		for i := range n {
			s.Clients = append(s.Clients, Client{Phase: BetweenRequests, Session: -1,
				Unread: bytes.Repeat([]byte{255}, text), Unwritten: make([]byte, 7), Timeout: time.Hour,
				Wait: &Wait{ClientState: receivers.ClientState{Label: long, Asked: []string{long, "e"}}}})
			s.Sessions = append(s.Sessions,
				cache.SavedSession{Label: long, Property: fmt.Sprint(i), TTL: time.Hour})
			s.Bindings = append(s.Bindings,
				cache.SavedBinding{Label: long, Property: long, Endpoint: long, TTL: time.Hour})
		}
		return s
	}
	length := func(s *State) int {
		t.Helper()
		var out bytes.Buffer
		if err := writeState(&out, s, nil, 1<<60); err != nil {
			t.Fatal(err)
		}
		return out.Len()
	}
	empty := all()
	empty.Sessions, empty.Bindings = nil, nil
	least := length(empty)
	for name, test := range map[string]struct{ bytes, entries, sessions, bindings int }{
		"all":               {1 << 30, 1000, n, n},
		"too long":          {least + n*(text+1000) + 10*3*text, 1000, n, 8},
		"much too long":     {least + 40*text, 1000, 33, 0},
		"no room":           {least, 1000, 0, 0},
		"too many entries":  {1 << 30, 2*n + 7, n, 7},
		"far too many":      {1 << 30, n + 7, 7, 0},
		"more than no room": {100, 1, 0, 0},
	} {
		s := all()
		unsent := s.fit(test.bytes, test.entries)
		got := length(s)
		if got > test.bytes && len(s.Sessions) > 0 {
			t.Errorf("%s: got %d bytes, want at most %d", name, got, test.bytes)
		}
		if len(s.Sessions)+len(unsent) != n || len(s.Clients) != n ||
			len(s.Sessions) < test.sessions || len(s.Bindings) < test.bindings ||
			len(s.Sessions)+len(s.Bindings)+n > max(test.entries, n) ||
			len(unsent) > 0 && (len(s.Bindings) > 0 || unsent[0].Property != fmt.Sprint(len(s.Sessions))) {
			t.Errorf("%s: got %d sessions, %d unsent, %d bindings, want %+v",
				name, len(s.Sessions), len(unsent), len(s.Bindings), test)
		}
	}
}

// TestState_fitsBesideOthers has three entries of each other kind, and room for ten sessions.
func TestState_fitsBesideOthers(t *testing.T) {
	t.Parallel()
	text := func(n int) string { return strings.Repeat("x", n) }
	wait := &Wait{ClientState: receivers.ClientState{Destination: text(1000), Label: text(100),
		Promised: text(10), Asked: []string{text(50), text(5)}}}
	const asked = len("wait_asked") + 2
	for name, test := range map[string]struct {
		add   func(*State)
		texts int
	}{
		"client": {func(s *State) {
			s.Clients = append(s.Clients,
				Client{Unread: make([]byte, 3000), Unwritten: make([]byte, 300), Wait: wait})
		}, 4400 + 1110 + 55 + 2*asked},
		"idle client": {func(s *State) { s.Clients = append(s.Clients, Client{}) }, 0},
		"claim":       {func(s *State) { s.Claims = append(s.Claims, Claim{}) }, 0},
		"label": {func(s *State) {
			s.Labels = append(s.Labels, LabelCounts{Entry: topk.Entry{Label: text(1000)}})
		}, 1000},
		"destination": {func(s *State) {
			s.Receivers.Destinations = append(s.Receivers.Destinations,
				receivers.KnownDestination{Label: text(1000), Endpoint: text(100)})
		}, 1100},
		"name": {func(s *State) {
			s.Receivers.Names = append(s.Receivers.Names, receivers.KnownName{})
		}, 0},
		"begun": {func(s *State) {
			s.Receivers.Begun = append(s.Receivers.Begun, receivers.KnownBegun{})
		}, 0},
		"hold": {func(s *State) {
			s.Receivers.Holds = append(s.Receivers.Holds, receivers.KnownHold{})
		}, 0},
		"total": {func(s *State) {
			s.Receivers.Totals = append(s.Receivers.Totals, receivers.RuleTotals{})
		}, 0},
	} {
		const session = maxEntryCost + len("label") + len("prop")
		needed := 3*(maxEntryCost+test.texts) + 10*session
		for _, room := range []struct{ bytes, entries, want int }{
			{needed, 100, 10}, {needed - 1, 100, 9}, {needed, 3 + 4, 4}, {needed, 3, 0},
		} {
			s := &State{}
			for range 3 {
				test.add(s)
			}
			for range 20 {
				s.Sessions = append(s.Sessions, cache.SavedSession{Label: "label", Property: "prop"})
			}
			unsent := s.fit(room.bytes, room.entries)
			if len(s.Sessions) != room.want || len(unsent) != 20-room.want {
				t.Errorf("%s, %+v: got %d sessions", name, room, len(s.Sessions))
			}
		}
	}
}
