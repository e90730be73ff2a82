// SPDX-License-Identifier: EPL-2.0

package server

// What a reload must not change: for how long a client is waited for, what it hears first,
// and what was counted. And two reloads in a row.

import (
	"io"
	"testing"
	"time"

	"scache/internal/cache"
	"scache/internal/fdpass"
	"scache/internal/handover"
	"scache/internal/maillog"
	"scache/internal/testenv"
)

// TestHandOver_timeoutContinues has a client that is stuck. The timeout of the first process
// ends the wait in the third one, whose own timeout is far away.
func TestHandOver_timeoutContinues(t *testing.T) {
	t.Parallel()
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			worlds := []*world{newWorld(t), newWorld(t), newWorld(t)}
			for i, timeout := range []time.Duration{time.Second, time.Hour, time.Hour} {
				worlds[i].Timeout = timeout
			}
			p := worlds[0].stopped(t, stop)
			handOver(t, worlds[0], worlds[1])
			handOver(t, worlds[1], worlds[2])
			if _, err := p.UnixConn.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("got %v, want the end of the connection after %v", err, worlds[0].Timeout)
			}
		})
	}
}

// TestHandOver_queuedClientsHearTheAnnouncement takes a client out of the accept queue.
func TestHandOver_queuedClientsHearTheAnnouncement(t *testing.T) {
	t.Parallel()
	from, to := newWorld(t), newWorld(t)
	from.Announce = func() bool { return true }
	to.Announce = from.Announce
	r := newRelay(t)
	queued, theirs := newPeer(t)
	defer queued.Close()
	waiting := []int{theirs}
	r.AcceptQueued = func() (handover.Client, error) {
		if len(waiting) == 0 {
			return handover.Client{}, fdpass.ErrAgain
		}
		fd := waiting[0]
		waiting = nil
		c, _ := from.Greet(fd)
		return c, nil
	}
	r.handOver(t, from, to)
	queued.hear(`protocol\0connection_cache_protocol\0\0`)
	queued.miss()
	if got := to.status(); got.Clients != 1 || got.Connections != 1 {
		t.Errorf("got %d clients of %d connections, want 1 of 1", got.Clients, got.Connections)
	}
}

// handOver hands over from one server to the next.
func (r relay) handOver(t *testing.T, from, to *world) {
	t.Helper()
	if result, err := from.HandOver(r.Sender, false); err != nil || result.Err != nil {
		t.Fatalf("got %+v, %v", result, err)
	}
	<-r.give(t, to)
	to.receptions.running.Wait()
}

// give gives a server the client at the head of the accept queue. The channel is closed when
// the server is done with it.
func (r relay) give(t *testing.T, to *world) (gone chan struct{}) {
	t.Helper()
	fd, err := fdpass.Accept(int(r.listener.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	takesOver(to)
	gone = make(chan struct{})
	to.Accept(fd, func(bool) { close(gone) })
	return gone
}

// TestHandOver_stateThatHasJustArrived has a process that must hand over as soon as it has
// accepted the process before it: that has sent its state, and the loops have not read it yet.
func TestHandOver_stateThatHasJustArrived(t *testing.T) {
	t.Parallel()
	first, second, third := newWorld(t), newWorld(t), newWorld(t)
	_, fd := testenv.Pipe(t)
	first.Cache.SaveSession(time.Minute, []byte("e"), nil, fd)
	p := first.connect(t)
	p.miss()

	// The state is sent when the clock was read for its description. By then, the second
	// process has accepted the connection, and its loops are busy.
	toSecond, busy := newRelay(t), make(chan struct{})
	now := toSecond.Now
	var gone chan struct{}
	toSecond.Now = func() time.Duration {
		if gone == nil {
			gone = toSecond.give(t, second)
			second.all(func(*worker) {})
			for _, w := range second.workers {
				w.loop.Post(func() { <-busy })
			}
		}
		return now()
	}
	if result, err := first.HandOver(toSecond.Sender, false); err != nil || result.Err != nil {
		t.Fatalf("got %+v, %v", result, err)
	}
	toThird, done := newRelay(t), make(chan struct{})
	go func() {
		defer close(done)
		if result, err := second.HandOver(toThird.Sender, false); err != nil || result.Err != nil {
			t.Errorf("got %+v, %v", result, err)
		}
	}()
	// A process that does not listen first would refuse states before the loops come round.
	for start := time.Now(); time.Since(start) < 50*time.Millisecond && !second.refusesStates(); {
		time.Sleep(time.Millisecond)
	}
	close(busy)
	<-done
	<-gone
	<-toThird.give(t, third)
	third.receptions.running.Wait()
	if got := third.Cache.Size(); got != (cache.Size{Endpoints: 1, Sessions: 1}) {
		t.Errorf("got %+v, want 1 session; the second server logged %q", got, second.logged())
	}
	p.miss()
}

func (w *world) refusesStates() bool {
	w.receptions.mu.Lock()
	defer w.receptions.mu.Unlock()
	return w.receptions.closed
}

// A stuckLog is a receiver of log lines that is stuck.
type stuckLog chan struct{}

func (s stuckLog) Write(maillog.Level, string) error {
	<-s
	return nil
}

// TestHandOver_countsLostLines loses log lines in two processes.
func TestHandOver_countsLostLines(t *testing.T) {
	t.Parallel()
	from, to := newWorld(t), newWorld(t)
	lost := 0
	for _, w := range []*world{from, to} {
		stuck := make(stuckLog)
		w.Log.SetSinks(stuck)
		w.Log.SetVerbose(1)
		for w.Log.Lost() < 10 {
			w.Log.Debug("a line")
		}
		lost += w.Log.Lost()
		defer close(stuck)
	}
	handOver(t, from, to)
	// What the servers log about the handover may be lost, too.
	if got := to.status().LostLines; got < int64(lost) || got >= int64(lost)+10 {
		t.Errorf("got %d lost lines, want %d", got, lost)
	}
}

// TestHandOver_waitsForAStateOnItsWay has a process hand over while it still receives the
// state of the one before it.
func TestHandOver_waitsForAStateOnItsWay(t *testing.T) {
	t.Parallel()
	first, second, third := newWorld(t), newWorld(t), newWorld(t)
	_, fd := testenv.Pipe(t)
	first.Cache.SaveSession(time.Minute, []byte("e"), nil, fd)
	toSecond, toThird := newRelay(t), newRelay(t)
	if result, err := first.HandOver(toSecond.Sender, false); err != nil || result.Err != nil {
		t.Fatalf("got %+v, %v", result, err)
	}
	second.receptions.active.Lock() // as if another state came before this one
	<-toSecond.give(t, second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if result, err := second.HandOver(toThird.Sender, false); err != nil || result.Err != nil {
			t.Errorf("got %+v, %v", result, err)
		}
	}()
	select {
	case <-done:
		t.Error("the server has handed over without the state on its way")
	case <-time.After(50 * time.Millisecond):
	}
	second.receptions.active.Unlock()
	<-done
	<-toThird.give(t, third)
	third.receptions.running.Wait()
	if got := third.Cache.Size(); got != (cache.Size{Endpoints: 1, Sessions: 1}) {
		t.Errorf("got %+v, want 1 session", got)
	}
}
