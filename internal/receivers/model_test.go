// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A world has agents, a cache and a kernel, and a Set whose decisions it carries out.
type world struct {
	t        rapid.TB
	set      *Set
	now      time.Duration
	wake     time.Duration
	agents   []*agent
	cache    map[string][]uint64 // sessions by label: cookies, the oldest first
	kernel   map[uint64]*socket
	cookie   uint64
	pending  []Decisions
	counting *Snapshot
	estimate bool
	limit    int
	begun    []time.Duration // when connections began, without those after overflows

	destinations [][]string
}

type socket struct {
	remote netip.AddrPort
	label  string
	closed time.Duration // when it was closed at this end, if not 0
	extra  bool          // opened after an overflow
}

// An agent delivers: it asks by destination, then by endpoint, and then it connects.
type agent struct {
	Client
	destination int
	order       []int // of the addresses of its destination
	asked       int
	phase       phase
	since       time.Duration
	session     uint64
	label       string
	extra       bool
}

type phase int

const (
	resting phase = iota
	asking
	waitingForAnswer
	connecting
	delivering
)

// common are destinations with addresses of the receiver, some of which they share.
// distinct ones share none: a session is of use for one of them only.
var (
	common   = [][]string{{"1", "2"}, {"2", "3"}, {"1"}, {"3", "2", "1"}}
	distinct = [][]string{{"1"}, {"2"}, {"3"}, {"4"}, {"5"}, {"6"}, {"7"}}
)

func endpointOf(last string) string { return "smtp\n192.0.2." + last + "\n25\n0\n" }

func (w *world) destinationLabel(a *agent) []byte {
	return fmt.Appendf(nil, "smtp\nd%d.example\n", a.destination)
}

func (w *world) open() (n int) { return len(w.kernel) }

func (w *world) add(d Decisions) {
	w.pending = append(w.pending, d)
	w.wake = d.Wake
	for _, answer := range d.Answers {
		if answer.Give != "" {
			w.checkPassedOver(answer.Client)
		}
	}
}

// checkPassedOver tests that a session goes past no client that has waited for more than
// half of its time, unless one was closed for that client.
func (w *world) checkPassedOver(c *Client) {
	r, overdue := c.given, 0
	if r == nil {
		return
	}
	for _, o := range r.waiters {
		if o.place < c.place && w.now-o.since > (o.until-o.since)/2 {
			overdue++
		}
	}
	room, isKnown := w.set.room(r, w.now)
	if isKnown && room <= 0 && r.tokens() > 0 && overdue > len(r.closes) {
		w.t.Fatalf("%d clients were passed over for more than half of their time", overdue)
	}
}

// carryOut does what a server does with decisions.
func (w *world) carryOut() {
	for len(w.pending) > 0 {
		d := w.pending[0]
		w.pending = w.pending[1:]
		if d.Count {
			if w.counting != nil {
				w.t.Fatal("got two counts at the same time")
			}
			w.counting = w.set.NewSnapshot(w.now)
			for cookie, s := range w.kernel {
				w.counting.Add(s.remote, cookie)
			}
		}
		for _, label := range d.Close {
			w.t.Logf("%v close %q", w.now, label)
			if cookie, found := w.take(label); found {
				w.shut(cookie)
				w.add(w.set.Dropped(w.now, label))
			} else {
				w.add(w.set.NotClosed(w.now, label))
			}
		}
		for _, answer := range d.Answers {
			w.answer(answer.Client.Owner.(*agent), answer.Give)
		}
	}
}

// log has rapid show what happens in a run that fails.
func (w *world) log(a *agent, format string, arguments ...any) {
	w.t.Logf("%v agent %d, phase %d: %s", w.now, slices.Index(w.agents, a), a.phase,
		fmt.Sprintf(format, arguments...))
}

func (w *world) answer(a *agent, give string) {
	w.log(a, "answer %q", give)
	if a.phase != waitingForAnswer {
		w.t.Fatalf("got an answer for an agent in phase %d", a.phase)
	}
	if give == "" {
		w.notFound(a)
		return
	}
	w.serve(a, give)
}

// serve looks into the cache for a session that was given to the agent.
func (w *world) serve(a *agent, label string) {
	cookie, found := w.take(label)
	if found {
		w.got(a, cookie, label)
	}
	verdict, d := w.set.Served(&a.Client, w.now, found)
	w.add(d)
	if !found {
		w.obey(a, verdict)
	}
}

func (w *world) got(a *agent, cookie uint64, label string) {
	a.phase, a.session, a.label = delivering, cookie, label
}

func (w *world) obey(a *agent, v Verdict) {
	switch v {
	case NotFound:
		w.notFound(a)
	case Wait:
		a.phase = waitingForAnswer
	case Take:
		w.serve(a, a.Client.givenLabel)
	}
}

// notFound has the agent ask for its next address, or connect.
func (w *world) notFound(a *agent) {
	a.extra = a.extra || a.started && w.now >= a.until // it had to go without room
	a.phase, a.since = asking, w.now
	if a.asked++; a.asked > len(a.order) {
		a.phase = connecting
	}
}

func (w *world) take(label string) (cookie uint64, found bool) {
	if len(w.cache[label]) == 0 {
		return 0, false
	}
	cookie = w.cache[label][0]
	w.cache[label] = w.cache[label][1:]
	return cookie, true
}

// shut closes a connection at this end. The kernel still counts it.
func (w *world) shut(cookie uint64) { w.kernel[cookie].closed = w.now }

func (w *world) begin(a *agent, destination int, order []int) {
	*a = agent{Client: a.Client, destination: destination, order: order, phase: asking}
	a.Client.Owner, a.Client.PID = a, 100+slices.Index(w.agents, a)
	w.add(w.set.Begin(&a.Client, w.now))
	w.question(a)
}

// question asks the next question of an agent.
func (w *world) question(a *agent) {
	addresses := w.destinations[a.destination]
	labels := []string{}
	if a.asked == 0 {
		for _, last := range addresses {
			labels = append(labels, endpointOf(last))
		}
	} else {
		labels = append(labels, endpointOf(addresses[a.order[a.asked-1]]))
	}
	for _, label := range labels {
		if cookie, found := w.take(label); found {
			w.got(a, cookie, label)
			w.log(a, "question %d: found %q", a.asked, label)
			w.add(w.set.Found(&a.Client, w.now, label))
			return
		}
	}
	var v Verdict
	var d Decisions
	if a.asked == 0 {
		v, d = w.set.FindDestination(&a.Client, w.now, w.destinationLabel(a))
	} else {
		v, d = w.set.FindEndpoint(&a.Client, w.now, []byte(labels[0]))
	}
	w.log(a, "question %d about %q: %d", a.asked, labels, v)
	w.obey(a, v)
	w.add(d)
}

func (w *world) connect(a *agent) {
	w.cookie++
	label := endpointOf(w.destinations[a.destination][a.order[0]])
	remote, _ := endpointAddress([]byte(label))
	if !a.extra {
		w.begun = append(w.begun, w.now)
	}
	w.kernel[w.cookie] = &socket{remote: remote, label: label, extra: a.extra}
	w.log(a, "connect to %q", label)
	w.got(a, w.cookie, label)
}

// finish ends a delivery: the session is saved or closed.
func (w *world) finish(a *agent, save bool) {
	w.log(a, "save %t", save)
	a.phase = resting
	if save {
		to, ttl := w.destinationLabel(a), 2*time.Second
		w.set.SaveDestination(&a.Client, w.now, ttl, to, nil, []byte(a.label))
		keep, _, d := w.set.Save(&a.Client, w.now, []byte(a.label), []byte("reuse_count=0\n"))
		w.add(d)
		if keep {
			w.cache[a.label] = append(w.cache[a.label], a.session)
			w.add(w.set.Saved(&a.Client, w.now, a.label))
			return
		}
	}
	w.shut(a.session)
	if w.estimate { // an agent that does not save is seen when it begins or ends
		w.add(w.set.ProcessEnded(w.now, a.PID))
	}
}

// pass lets time pass in steps of a millisecond at most, so that nothing is late.
func (w *world) pass(d time.Duration) {
	for end := w.now + d; w.now < end; {
		w.now += min(time.Millisecond, end-w.now)
		for cookie, s := range w.kernel {
			if s.closed > 0 && w.now-s.closed > 3*time.Millisecond {
				delete(w.kernel, cookie)
			}
		}
		if w.counting != nil {
			n := w.counting
			w.counting = nil
			w.t.Logf("%v apply %d", w.now, len(n.found))
			w.add(w.set.Apply(n, w.now))
		}
		if w.wake != 0 && w.now >= w.wake {
			w.wake = 0
			w.add(w.set.Tick(w.now))
		}
		w.carryOut()
		for _, a := range w.agents {
			for a.phase == asking && w.now-a.since >= 3*time.Millisecond {
				w.question(a)
				w.carryOut()
			}
			if a.phase == connecting && w.now-a.since >= 500*time.Millisecond {
				w.connect(a)
			}
		}
		w.check()
	}
}

// check tests what must hold at each moment.
func (w *world) check() {
	extra := 0
	for _, s := range w.kernel {
		if s.extra {
			extra++
		}
	}
	open := w.open()
	if w.estimate {
		open = 0
		for _, s := range w.kernel {
			if s.closed == 0 {
				open++
			}
		}
	}
	if open > w.limit+extra {
		w.t.Fatalf("got %d connections, want at most %d, and %d more after overflows",
			open, w.limit, extra)
	}
	for _, r := range w.set.receivers {
		n := r.limits.New
		if last := len(w.begun) - 1; n > 0 && last >= n && !w.estimate &&
			w.begun[last]-w.begun[last-n] < r.limits.NewTime {
			w.t.Fatalf("%d connections have begun within %v, want at most %d",
				n+1, w.begun[last]-w.begun[last-n], n)
		}
		for i, c := range r.waiters {
			if w.now > c.until+time.Millisecond {
				w.t.Fatalf("a client has waited for %v, want at most %v",
					w.now-c.since, c.until-c.since)
			}
			if i > 0 && r.waiters[i-1].place >= c.place {
				w.t.Fatal("clients are not in the order of their places")
			}
		}
		for _, e := range r.endpoints {
			if got := len(w.cache[e.label]); len(w.pending) == 0 && e.idle != got {
				w.t.Fatalf("got %d idle sessions of %q, want %d", e.idle, e.label, got)
			}
		}
	}
}

// checkRoom lets time pass for a count. Then, no client may wait while there is room.
func (w *world) checkRoom() {
	w.pass(3 * time.Millisecond)
	for _, r := range w.set.receivers {
		room, isKnown := w.set.room(r, w.now)
		r.prune(w.now)
		if len(r.waiters) > 0 && room > 0 && r.tokens() > 0 {
			w.t.Fatalf("%d clients wait, although there is room for %d", len(r.waiters), room)
		}
		idle, need := r.available(), min(len(r.waiters), r.tokens())
		if isKnown && idle > 0 && need > len(r.closes) {
			w.t.Fatalf("%d clients wait, although %d sessions are idle", len(r.waiters), idle)
		}
	}
}

// TestSet_model has agents do anything. The limit must hold, each of them must get an answer in
// time and in order, and none may wait while there is room.
func TestSet_model(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		w := &world{
			t: r, now: time.Second, cache: map[string][]uint64{}, kernel: map[uint64]*socket{},
			limit: rapid.IntRange(1, 3).Draw(r, "limit"), estimate: rapid.Bool().Draw(r, "estimate"),
			destinations: common,
		}
		text := fmt.Sprintf("{ a, 192.0.2.0/24, connections=%d", w.limit)
		if rapid.Bool().Draw(r, "has new") {
			text += ", new=2/1s"
		}
		if rapid.Bool().Draw(r, "has idle") {
			text += ", idle=1"
		}
		rules, err := Parse(text + " }")
		if err != nil {
			r.Fatal(err)
		}
		w.set = New(Config{Rules: rules, Wait: 2 * time.Second, Estimate: w.estimate})
		for range rapid.IntRange(1, 6).Draw(r, "agents") {
			w.agents = append(w.agents, &agent{})
		}
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			w.step(r, w.agents[rapid.IntRange(0, len(w.agents)-1).Draw(r, "agent")])
			w.carryOut()
			w.check()
		}
		w.end()
	})
}

func (w *world) step(r *rapid.T, a *agent) {
	switch rapid.IntRange(0, 10).Draw(r, "what") {
	case 0, 1:
		w.pass(time.Duration(rapid.IntRange(1, 300).Draw(r, "ms")) * time.Millisecond)
		w.checkRoom()
		return
	case 2: // the time to live of a session ends
		label := endpointOf(rapid.SampledFrom([]string{"1", "2", "3"}).Draw(r, "address"))
		if cookie, found := w.take(label); found {
			w.shut(cookie)
			w.add(w.set.Dropped(w.now, label))
		}
		return
	}
	switch a.phase {
	case resting:
		n := rapid.IntRange(0, len(w.destinations)-1).Draw(r, "destination")
		order := []int{}
		for i := range w.destinations[n] {
			order = append(order, i)
		}
		w.begin(a, n, rapid.Permutation(order).Draw(r, "order"))
	case asking:
		w.question(a)
	case waitingForAnswer:
		if rapid.IntRange(0, 5).Draw(r, "hang up") == 0 {
			w.carryOut()
			if a.phase == waitingForAnswer {
				a.phase = resting
				w.add(w.set.Gone(&a.Client, w.now))
			}
		}
	case connecting:
		w.connect(a)
	case delivering:
		w.finish(a, rapid.IntRange(0, 3).Draw(r, "save") > 0)
	}
}

// end lets all deliveries end. Nothing must be left.
func (w *world) end() {
	for range 100 {
		busy := false
		for _, a := range w.agents {
			if a.phase == delivering {
				w.finish(a, false)
				w.carryOut()
			}
			busy = busy || a.phase != resting
		}
		w.pass(100 * time.Millisecond)
		if !busy {
			break
		}
	}
	for _, a := range w.agents {
		if a.phase != resting {
			w.t.Fatalf("an agent is still in phase %d", a.phase)
		}
		w.add(w.set.Gone(&a.Client, w.now))
		w.add(w.set.ProcessEnded(w.now, a.PID))
	}
	for label := range w.cache {
		for {
			cookie, found := w.take(label)
			if !found {
				break
			}
			w.shut(cookie)
			w.add(w.set.Dropped(w.now, label))
		}
	}
	w.pass(1100 * time.Millisecond)
	n := w.set.NewSnapshot(w.now)
	w.add(w.set.Apply(n, w.now))
	for _, r := range w.set.receivers {
		if w.set.pruneDone(r); !r.isUnused(w.now) {
			w.t.Fatalf("state is left: %+v", r)
		}
	}
	if len(w.set.waiting)+len(w.set.prompts)+len(w.set.holds) > 0 {
		w.t.Fatalf("state is left: %+v", w.set)
	}
}

// TestSet_throughput has many agents deliver to a receiver with few connections. It must
// not take much longer than these connections need, and no client may have to go without
// room.
func TestSet_throughput(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name                  string
		destinations          [][]string
		estimate, save, close bool
	}{
		{name: "common addresses", destinations: common, save: true},
		{name: "distinct addresses", destinations: distinct, save: true, close: true},
		{name: "no saves", destinations: common, close: true},
		{name: "common, estimate", destinations: common, save: true, estimate: true},
		{name: "distinct, estimate", destinations: distinct, save: true, close: true, estimate: true},
		{name: "no saves, estimate", destinations: common, close: true, estimate: true},
	} {
		const messages, connections, each = 400, 4, 70 * time.Millisecond
		w := &world{
			t: t, now: time.Second, cache: map[string][]uint64{}, kernel: map[uint64]*socket{},
			limit: connections, estimate: test.estimate, destinations: test.destinations,
		}
		w.set = New(Config{
			Rules: Rules{{
				Name: "a", Networks: []Prefix{netip.MustParsePrefix("192.0.2.0/24")},
				Limits: Limits{Connections: connections, Idle: -1},
			}},
			Wait: wait, Estimate: test.estimate,
		})
		for range 100 {
			w.agents = append(w.agents, &agent{})
		}
		took := w.deliverAll(messages, each, test.save)
		limit := messages * each / connections * 11 / 10
		if test.close {
			limit += messages * 15 * time.Millisecond / connections // to close, and count
		}
		counts := w.set.Stats(w.now)[0].Totals
		t.Logf("%s: %v, %+v", test.name, took, counts)
		if took > limit || counts.Overflows > 0 {
			t.Errorf("%s: got %v and %d overflows, want at most %v and none",
				test.name, took, counts.Overflows, limit)
		}
	}
}

// deliverAll has all agents deliver messages, and returns the time that it took.
func (w *world) deliverAll(messages int, each time.Duration, save bool) time.Duration {
	begun, done := 0, 0
	start, ends := w.now, map[*agent]time.Duration{}
	for done < messages && w.now < start+time.Minute {
		for i, a := range w.agents {
			switch {
			case a.phase == resting && begun < messages:
				begun++
				n := i % len(w.destinations)
				w.begin(a, n, []int{0, 1, 2}[:len(w.destinations[n])])
			case a.phase == connecting:
				w.connect(a)
			case a.phase == delivering && ends[a] == 0:
				ends[a] = w.now + each
			case a.phase == delivering && ends[a] <= w.now:
				ends[a] = 0
				done++
				w.finish(a, save)
			}
			w.carryOut()
		}
		w.pass(time.Millisecond)
	}
	return w.now - start
}
