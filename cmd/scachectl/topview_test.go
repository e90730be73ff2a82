// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"

	"scache/internal/control"
)

func topOf(bindings []control.Binding, sessions []control.Session) *watcher {
	return &watcher{order: "sessions",
		now: view{contents: contents{Bindings: bindings, Sessions: sessions}}}
}

const (
	firstEndpoint = `smtp\n192.0.2.1\n25\n0\n`
	otherEndpoint = `smtp\n2001:db8::1\n587\n0\n`
)

func TestTop_namesDestinations(t *testing.T) {
	t.Parallel()
	w := topOf([]control.Binding{
		{Destination: `smtp\nexample.org\n0\n`, Endpoint: firstEndpoint},
		{Destination: `smtp\nexample.com\n0\n`, Endpoint: firstEndpoint},
		{Destination: `smtp\nexample.net\n0\n`, Endpoint: `smtp\n192.0.2.99\n25\n0\n`},
	}, []control.Session{
		{Endpoint: firstEndpoint, Remote: "192.0.2.1:25"},
		{Endpoint: firstEndpoint, Remote: "192.0.2.1:25"},
		{Endpoint: otherEndpoint, Remote: "[2001:db8::1]:587"},
	})
	want := []string{
		"SESSIONS     AGE    LEFT  DESTINATION          ENDPOINT",
		"       2      0s      0s  smtp example.com +1  smtp 192.0.2.1",
		"       1      0s      0s  -                    smtp [2001:db8::1]:587",
	}
	if got := w.endpointTable().lines(); !equalTrimmed(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// One label without the remote address, and all rows have that column.
	w.now.contents.Sessions[2].Remote = "[2001:db8::2]:587"
	if got := w.endpointTable().lines(); !strings.HasSuffix(got[0], "REMOTE") ||
		!strings.HasSuffix(got[1], "  192.0.2.1:25") ||
		!strings.HasSuffix(got[2], "  [2001:db8::2]:587") {
		t.Errorf("got\n%s\nwant a column of remote addresses", strings.Join(got, "\n"))
	}
}

func equalTrimmed(got, want []string) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if strings.TrimRight(got[i], " ") != want[i] {
			return false
		}
	}
	return true
}

// TestTop_columns: values stand below each other, as long as they have a usual size.
func TestTop_columns(t *testing.T) {
	t.Parallel()
	w := topOf(nil, nil)
	w.now.status.Sessions, w.now.status.SessionLimit = 123456, 1000000
	for _, l := range w.numbers() {
		if got := len(l.String()); got != 72 {
			t.Errorf("%q: got %d columns, want 72", l, got)
		}
	}
	w.now.status.Sessions = 1234567890123 // too long: a space is left
	if got := w.numbers()[0].String(); !strings.HasPrefix(got, "sessions 1234567890123   peak ") {
		t.Errorf("got %q", got)
	}
}

// TestTop_emphasis: what is lost stands out, and nothing else does.
func TestTop_emphasis(t *testing.T) {
	t.Parallel()
	w := topOf(nil, nil)
	w.now.at = time.Now()
	w.last.at = w.now.at.Add(-time.Second)
	emphasisOf := func(name string) emphasis {
		for _, l := range w.numbers() {
			for i, p := range l {
				if p.text == name {
					return l[i+2].as
				}
			}
		}
		t.Fatalf("no %s", name)
		return plain
	}
	for _, name := range []string{"dead", "evicted", "hit rate"} {
		if got := emphasisOf(name); got != number {
			t.Errorf("%s of an idle server: got %v, want %v", name, got, number)
		}
	}
	s := &w.now.status
	s.Dead, s.Evicted, s.Expired, s.DestinationHits = 1, 1, 1, 1
	for name, want := range map[string]emphasis{
		"dead": warning, "evicted": warning, "expired": number, "hit rate": good,
	} {
		if got := emphasisOf(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// TestTop_draws looks at the cells of a screen.
func TestTop_draws(t *testing.T) {
	t.Parallel()
	screen := tcell.NewSimulationScreen("UTF-8")
	if err := screen.Init(); err != nil {
		t.Fatal(err)
	}
	defer screen.Fini()
	screen.SetSize(40, 9)
	w := topOf(nil, []control.Session{{Endpoint: `smtp\n東京\n25\n`}})
	w.now.status.Version = "1.2.3"
	w.show(screen, nil)
	text, style, _ := screen.Get(0, 0)
	if text != "s" || style != styles[title] {
		t.Errorf("first cell: got %q with %v, want the title", text, style)
	}
	for _, x := range []int{0, 39} { // a heading takes the whole width
		if _, style, _ := screen.Get(x, headerLines-1); style != styles[heading] {
			t.Errorf("heading, column %d: got %v, want %v", x, style, styles[heading])
		}
	}
	if _, style, _ := screen.Get(39, headerLines); style != tcell.StyleDefault {
		t.Errorf("end of a row: got %v, want no style", style)
	}
	w.show(screen, errors.New("no answer"))
	if _, style, _ := screen.Get(0, 0); style != styles[warning] {
		t.Errorf("without an answer: got %v, want a warning", style)
	}
	if text, _, _ := screen.Get(0, 2); text != "n" {
		t.Errorf("without an answer: got %q, want the reason", text)
	}
}

func TestTop_toggle(t *testing.T) {
	t.Parallel()
	w := topOf(nil, nil)
	for _, want := range []tableKind{ofMisses, ofEndpoints} {
		if w.press(tcell.NewEventKey(tcell.KeyRune, 'h', 0)); w.kind != want {
			t.Errorf("key h: got table %v, want %v", w.kind, want)
		}
	}
	for _, want := range []tableKind{ofReceivers, ofEndpoints} {
		if w.press(tcell.NewEventKey(tcell.KeyRune, 'r', 0)); w.kind != want {
			t.Errorf("key r: got table %v, want %v", w.kind, want)
		}
	}
}

func TestTop_receivers(t *testing.T) {
	t.Parallel()
	w := topOf(nil, nil)
	w.kind = ofReceivers
	text := func() (all string) {
		for _, l := range w.lines(10) {
			all += strings.TrimRight(l.String(), " ") + "\n"
		}
		return all
	}
	if got := text(); !strings.Contains(got, "connection_cache_receivers is empty") {
		t.Errorf("without receivers: got\n%s", got)
	}
	w.now.receivers = []shownReceiver{{Receiver: control.Receiver{
		Name: "far", Limits: "connections=4", Open: 4, Idle: 1, Limit: 4, Waiting: 7, NewPerMinute: 9,
	}}}
	const want = `
RECEIVER  OPEN  IDLE  LIMIT  WAITING  HALF  99%  NEW/MIN  OVERFLOWS  REFUSED  LIMITS
far          4     1      4        7     -    -        9          0        0  connections=4
`
	if got := text(); !strings.Contains(got, want) || strings.Contains(got, "is empty") {
		t.Errorf("got\n%s\nwant%s", got, want)
	}
}
