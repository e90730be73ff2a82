// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestReceive_announcesSessions when all entries without descriptors have been received, but
// counts of labels.
func TestReceive_announcesSessions(t *testing.T) {
	p := newPlace(t)
	want, _ := newState(t, 3, 20)
	p.send(t, want)
	got, announced := &State{}, false
	for e := range receiver(time.Hour).Receive(p.message(t)).Entries() {
		got.add(e)
		switch e := e.(type) {
		case *LabelCounts:
			if len(got.Sessions) < len(want.Sessions) {
				t.Error("got counts of a label before all sessions")
			}
		case *Announced:
			announced = true
			if len(got.Bindings) != len(want.Bindings) || len(got.Clients)+len(got.Sessions) > 0 {
				t.Errorf("got %d bindings, %d clients, %d sessions before the announcement",
					len(got.Bindings), len(got.Clients), len(got.Sessions))
			}
			if len(e.Labels) != len(want.Sessions) || e.Labels[1] != want.Sessions[1].Label || e.More {
				t.Errorf("got %d labels, %v, want those of %d sessions", len(e.Labels), e.More,
					len(want.Sessions))
			}
		}
	}
	if !announced || len(got.Sessions) != len(want.Sessions) ||
		len(got.Labels) != len(want.Labels) {
		t.Errorf("announced: %v, got %d sessions, %d labels, want %d, %d", announced,
			len(got.Sessions), len(got.Labels), len(want.Sessions), len(want.Labels))
	}
	got.close()
}

// TestReceive_announcesNotAll of more sessions than are read ahead. None of them arrives.
func TestReceive_announcesNotAll(t *testing.T) {
	const sessions = maxAhead + 1
	text := list("version", "2", "sessions", strconv.Itoa(sessions)) +
		strings.Repeat(list("entry", "session", "descriptors", "1", "label", "e", "property", "p"),
			sessions)
	r := receiver(time.Hour).Receive(craft(t, []byte(text), false, 0))
	announced := &Announced{}
	for e := range r.Entries() {
		announced = e.(*Announced)
	}
	if len(announced.Labels) != maxAhead || !announced.More || r.Lost != sessions {
		t.Errorf("got %d labels, more: %v, %d lost; want %d, true, %d",
			len(announced.Labels), announced.More, r.Lost, maxAhead, sessions)
	}
}

// TestReceive_announcesWhatIsMissing at the end of the description.
func TestReceive_announcesWhatIsMissing(t *testing.T) {
	for _, test := range []struct {
		bindings, sessions string
		want               bool
	}{{"0", "0", false}, {"1", "0", true}, {"0", "1", true}, {"1", "1", true}} {
		text := list("version", "2", "bindings", test.bindings, "sessions", test.sessions)
		for e := range receiver(time.Hour).Receive(craft(t, []byte(text), false, 0)).Entries() {
			if got := e.(*Announced).More; got != test.want {
				t.Errorf("%+v: got %v", test, got)
			}
		}
	}
}

// TestReceive_announcesLongTexts until they are too long together.
func TestReceive_announcesLongTexts(t *testing.T) {
	const each = 2 << 20
	text := list("version", "2") + strings.Repeat(list("entry", "session", "descriptors", "1",
		"label", "e", "property", strings.Repeat("x", each-1)), maxAheadText/each+3)
	for e := range receiver(time.Hour).Receive(craft(t, []byte(text), false, 0)).Entries() {
		got := e.(*Announced)
		if len(got.Labels) != maxAheadText/each || !got.More {
			t.Errorf("got %d labels, more: %v, want %d, true", len(got.Labels), got.More,
				maxAheadText/each)
		}
	}
}
