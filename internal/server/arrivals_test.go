// SPDX-License-Identifier: EPL-2.0

package server

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/handover"
	"scache/internal/testenv"
	"scache/internal/topk"
)

const notFound = `status\02\0property\0\0\0`

// TestLookup_duringArrival waits only if a session that has not arrived may be the answer. An
// operator waits.
func TestLookup_duringArrival(t *testing.T) {
	t.Parallel()
	const byEndpoint, byDestination = `request\0find_endp\0label\0`, `request\0find_dest\0label\0`
	for text, test := range map[string]struct {
		more, waits bool
	}{
		`request\0status`:         {false, true},
		byEndpoint + "coming":     {false, true},
		byEndpoint + "here":       {false, false},
		byEndpoint + "other":      {false, false},
		byEndpoint + "unknown":    {true, true},
		byDestination + "bound":   {false, true},
		byDestination + "coming":  {false, false},
		byDestination + "unknown": {true, true},
	} {
		w := newWorld(t)
		w.Cache.SaveBinding(time.Minute, []byte("bound"), nil, []byte("coming"))
		c, p := still(t, w)
		c.coming = newArrivals([]string{"coming"}, test.more)
		p.say(text + `\0\0`)
		c.Ready()
		if got := c.phase == waitsForSessions; got != test.waits {
			t.Errorf("%s: got %v, want %v", text, got, test.waits)
		}
		bound := question{label: []byte("bound"), byDestination: true}
		if newArrivals(nil, false).concern(bound, w.Cache) {
			t.Error("a lookup waits for no sessions at all")
		}
	}
}

// TestLookup_answeredAfterArrival has a second request that comes during the wait.
func TestLookup_answeredAfterArrival(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := still(t, w)
	c.coming = newArrivals([]string{"e"}, false)
	p.say(`request\0find_endp\0label\0e\0\0`)
	c.Ready()
	p.say(`dummy\0\0\0`)
	c.Ready()
	if saved := c.export(); saved.Phase != handover.BetweenRequests || saved.Timeout != 0 ||
		string(saved.Unread) != wire(`request\0find_endp\0label\0e\0\0dummy\0\0\0`) {
		t.Errorf("exported while it waits: got %+v", saved)
	}
	_, fd := testenv.Pipe(t)
	w.Cache.SaveSession(time.Minute, []byte("e"), []byte("p"), fd)
	c.endArrivals(nil)
	p.hear(`status\00\0property\0p\0\0\0`)
	got, err := p.Take()
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(got)
	p.say(`dummy\0\0\0request\0find_endp\0label\0e\0\0`)
	c.Ready()
	p.hear(notFound)
	if hits := w.Cache.Totals().Endpoint; hits.Hits != 1 || hits.Misses != 1 {
		t.Errorf("got %+v, want one hit and one miss", hits)
	}
}

// TestLookup_clientLeavesDuringArrival leaves no trace.
func TestLookup_clientLeavesDuringArrival(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := still(t, w)
	c.coming = newArrivals(nil, true)
	p.say(`request\0find_endp\0label\0e\0\0`)
	c.Ready()
	p.Close()
	c.Ready()
	<-p.gone
	if lines := w.logged(); len(lines) > 0 {
		t.Errorf("got %q in the log, want nothing", lines)
	}
}

// TestOperator_waitsForCounts although all sessions have arrived: what was counted comes last.
func TestOperator_waitsForCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := still(t, w)
	c.coming = newArrivals([]string{"e"}, false)
	p.say(`request\0hits\0level\0endpoint\0\0`)
	c.Ready()
	c.endArrivals(newArrivals(nil, false))
	if c.phase != waitsForSessions {
		t.Fatalf("got phase %q, want that the operator waits on", c.phase)
	}
	w.Labels.endpoints.CountString("e", topk.Save)
	c.endArrivals(nil)
	p.hear(`status\00\0\0entry\0hits\0label\0e\0`)
}
