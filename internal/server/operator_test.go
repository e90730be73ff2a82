// SPDX-License-Identifier: EPL-2.0

package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/cache"
	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/fdpass"
	"scache/internal/histogram"
	"scache/internal/stats"
	"scache/internal/testenv"
)

func (w *world) operator(t *testing.T) *client.Client {
	t.Helper()
	return client.Detect(w.connect(t).Conn)
}

// save saves a binding d → e and a session of e: a connection over TCP.
func (w *world) save(t *testing.T, c *client.Client) (remote string) {
	t.Helper()
	conn, remote := testenv.TCPConn(t)
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if status, err := c.SaveEndpoint(100, "smtp\ne\n", "ep\n", int(fd)); status != client.OK ||
			err != nil {
			t.Errorf("status %d, %v", status, err)
		}
	})
	if status, err := c.SaveDestination(100, "smtp\nd\n", "dp\n", "smtp\ne\n"); status != client.OK ||
		err != nil {
		t.Errorf("status %d, %v", status, err)
	}
	return remote
}

func TestStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Version, w.Started = "1.2", time.Now().Add(-time.Hour)
	c := w.operator(t)
	w.save(t, c)
	c.FindEndpoint("none")
	if f, err := c.FindDestination("smtp\nd\n"); err != nil || unix.Close(f.FD) != nil {
		t.Error(err)
	}
	got, err := c.Status()
	if err != nil {
		t.Fatal(err)
	}
	if time.Duration(got.Uptime) < time.Hour || got.Counted < got.Uptime || got.PID == 0 ||
		got.SessionLimit == 0 || got.Memory < 200 || got.Memory > 2000 {
		t.Errorf("%+v", got)
	}
	if got.Waited.Count() != 1 || got.Took.Count() != 4 {
		t.Errorf("%d waited, %d took", got.Waited.Count(), got.Took.Count())
	}
	got.Uptime, got.Counted, got.PID, got.SessionLimit, got.Memory = 0, 0, 0, 0, 0
	got.Waited, got.Took = histogram.Values{}, histogram.Values{}
	want := control.Status{
		Version: "1.2",
		Values: stats.Values{
			Clients: 1, Connections: 1,
			Destinations: 1, PeakSessions: 1, PeakEndpoints: 1, PeakDestinations: 1,
			DestinationHits: 1, EndpointMisses: 1, Saved: 1,
		},
		ClientTimeout: control.Seconds(time.Minute),
	}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestStatus_memory has a cache whose memory is enough for one entry.
func TestStatus_memory(t *testing.T) {
	t.Parallel()
	const limit = 1
	w := newWorldWith(t, func(w *world) {
		w.Started = time.Now()
		w.Cache = cache.New(cache.Config{
			MemoryLimit: limit,
			Now:         func() time.Duration { return 0 },
			Alarm:       func(time.Duration) {},
			Release:     func([]cache.Dropped) {},
		})
	})
	c := w.operator(t)
	for i := range 3 {
		if status, err := c.SaveDestination(100, fmt.Sprint("d", i), "p", "e"); status != client.OK {
			t.Errorf("got status %d, %v", status, err)
		}
	}
	got, err := c.Status()
	if err != nil || got.EvictedForMemory != 2 || got.EvictedBindings != 2 || got.Evicted != 0 ||
		got.Memory < limit || got.MemoryLimit != limit {
		t.Errorf("got %+v, %v, want 2 bindings evicted", got, err)
	}
}

func TestList_andFlush(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.operator(t)
	remotes := []string{w.save(t, c), w.save(t, c)}
	bindings, sessions, err := c.List()
	if err != nil || len(bindings) != 1 || len(sessions) != 2 {
		t.Fatalf("%+v, %+v, %v", bindings, sessions, err)
	}
	if got, want := bindings[0], (control.Binding{Destination: `smtp\nd\n`, Endpoint: `smtp\ne\n`,
		Property: `dp\n`, Remaining: control.Seconds(100 * time.Second)}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := sessions[0], (control.Session{Endpoint: `smtp\ne\n`, Property: `ep\n`,
		Remote: remotes[0], Remaining: control.Seconds(100 * time.Second)}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, step := range []struct {
		flush func() (control.Flushed, error)
		want  control.Flushed
	}{
		{func() (control.Flushed, error) { return c.Flush("nothing") }, control.Flushed{}},
		{func() (control.Flushed, error) { return c.Flush("smtp\ne\n") }, control.Flushed{Sessions: 2}},
		{c.FlushAll, control.Flushed{Bindings: 1}},
		{c.FlushAll, control.Flushed{}},
	} {
		if got, err := step.flush(); got != step.want || err != nil {
			t.Errorf("got %+v, %v, want %+v", got, err, step.want)
		}
	}
	if got := w.logged(); !slices.Contains(got, "flush: sessions=2 bindings=0") {
		t.Errorf("%q", got)
	}
}

// TestFlush_manyLabels is one request, and one line in the log.
func TestFlush_manyLabels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.operator(t)
	for range 3 {
		w.save(t, c)
	}
	if got, err := c.Flush("nothing", "smtp\nd\n", "smtp\ne\n",
		"smtp\nd\n"); got != (control.Flushed{Sessions: 3, Bindings: 1}) || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	long := make([]string, 3)
	for i := range long {
		long[i] = strings.Repeat("x", 30_000)
	}
	if got, err := c.Flush(long...); got != (control.Flushed{}) || err != nil {
		t.Errorf("more than one request holds: %+v, %v", got, err)
	}
	if got, err := c.Flush(); got != (control.Flushed{}) || err != nil {
		t.Errorf("no label at all: %+v, %v", got, err)
	}
	w.save(t, c)
	if _, sessions, err := c.List(); len(sessions) != 1 || err != nil {
		t.Errorf("%v, %v", sessions, err)
	}
	if got := w.logged(); !slices.Contains(got, "flush: sessions=3 bindings=1") {
		t.Errorf("%q", got)
	}
}

func TestHits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.operator(t)
	for range 2 {
		w.save(t, c)
	}
	for range 3 {
		if f, err := c.FindDestination("smtp\nd\n"); err != nil {
			t.Fatal(err)
		} else if f.Code == client.OK {
			unix.Close(f.FD)
		}
		if _, err := c.FindEndpoint("smtp\nx\n"); err != nil {
			t.Fatal(err)
		}
	}
	w.save(t, c)
	w.now.Store(int64(time.Hour))
	w.Cache.Expire()
	w.save(t, c)
	if _, err := c.Flush("smtp\nd\n"); err != nil {
		t.Fatal(err)
	}
	for level, want := range map[string][]control.LabelCounts{
		control.LevelDestination: {{Label: `smtp\nd\n`, Hits: 2, Misses: 1, Saves: 4, Expired: 1,
			Flushed: 1, Counted: control.Seconds(time.Hour)}},
		control.LevelEndpoint: {{Label: `smtp\ne\n`, Hits: 2, Saves: 4, Expired: 1, Flushed: 1,
			Counted: control.Seconds(time.Hour)},
			{Label: `smtp\nx\n`, Misses: 3, Counted: control.Seconds(time.Hour)}},
	} {
		if got, err := c.LabelCounts(level); !slices.Equal(got, want) || err != nil {
			t.Errorf("%s: %+v, %v, want %+v", level, got, err, want)
		}
	}
	if _, err := c.LabelCounts("odd"); err != client.ErrStock {
		t.Errorf("an odd level: %v", err)
	}
}

// TestHits_evictedAndFlushedAreApart drops sessions and bindings for the one reason and for
// the other.
func TestHits_evictedAndFlushedAreApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.operator(t)
	for range 3 {
		w.save(t, c)
	}
	w.Cache.SetLimit(func() int { return 1 })
	w.Labels.dropped(cache.Dropped{FD: fdpass.None, Why: cache.Evicted, Destination: "smtp\nd\n"})
	if _, err := c.FlushAll(); err != nil {
		t.Fatal(err)
	}
	for level, want := range map[string]control.LabelCounts{
		control.LevelDestination: {Label: `smtp\nd\n`, Saves: 3, Evicted: 1, Flushed: 1},
		control.LevelEndpoint:    {Label: `smtp\ne\n`, Saves: 3, Evicted: 2, Flushed: 1},
	} {
		if got, err := c.LabelCounts(level); len(got) != 1 || got[0] != want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", level, got, err, want)
		}
	}
	if s := w.status(); s.Evicted != 2 || s.Flushed != 1 {
		t.Errorf("status: got %d evicted, %d flushed, want 2 and 1", s.Evicted, s.Flushed)
	}
}

// TestHits_many are more than one step of a listing has.
func TestHits_many(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.operator(t)
	for i := range labelsSize + 200 {
		w.Labels.endpoints.CountString(fmt.Sprint(i), 0)
	}
	if got, err := c.LabelCounts(control.LevelEndpoint); len(got) != labelsSize || err != nil {
		t.Errorf("%d, %v", len(got), err)
	}
}

// TestOperators_doNotCount has one who stays, and one who does what agents do.
func TestOperators_doNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, test := range map[string]struct {
		do    func(*client.Client)
		agent bool
	}{
		"operator":  {func(c *client.Client) { c.Status() }, false},
		"agent":     {func(c *client.Client) { c.FindEndpoint("x") }, true},
		"no client": {func(*client.Client) {}, true},
		"both": {func(c *client.Client) {
			c.FindEndpoint("x")
			c.Status()
			c.FindEndpoint("x")
			c.Status()
		}, false},
	} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		gone := make(chan bool, 2)
		w.Accept(pair[0], func(agent bool) { gone <- agent })
		c := client.Detect(fdpass.New(testenv.UnixConn(t, pair[1])))
		test.do(c)
		if !test.agent && len(gone) != 1 {
			t.Errorf("%s: counts while it is there", name)
		}
		c.Close()
		if agent := <-gone; agent != test.agent {
			t.Errorf("%s: got an agent: %v, want %v", name, agent, test.agent)
		}
	}
}

// TestOperators_stayInStep has requests that are refused, and a descriptor where
// none belongs.
func TestOperators_stayInStep(t *testing.T) {
	t.Parallel()
	for _, request := range []string{`status\0label\0x\0\0`, `list\0x\0y\0\0`,
		`flush\0label\0x\0y\0z\0\0`, `flush\0x\0y\0\0`, `hits\0\0`} {
		w := newWorld(t)
		p := w.connect(t)
		p.say(`request\0` + request)
		p.hear(`status\01\0\0`)
		p.wantInStep()
		name, _, _ := strings.Cut(request, `\0`)
		w.wantWarning(t, "warning: "+name+": bad or missing request parameter")
	}
}
