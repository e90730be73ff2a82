// SPDX-License-Identifier: EPL-2.0

package metrics

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"scache/attr"
	"scache/internal/control"
	"scache/internal/stats"
)

// serve answers like a server, or a false one, with this status and these hits, and returns
// its socket.
func serve(t *testing.T, status control.Status, hits ...control.LabelCounts) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { answer(conn, status, hits) })
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return path
}

// hasReceivers is the version of a server with a receiver.
const hasReceivers = "with receivers"

func answer(conn net.Conn, status control.Status, hits []control.LabelCounts) {
	defer conn.Close()
	in, out := attr.NewDecoder(conn), attr.NewEncoder(conn)
	for {
		list, err := in.Decode()
		if err != nil {
			return
		}
		request, _ := list.Lookup("request")
		out.Int("status", 0)
		if string(request.Value) == control.RequestStatus {
			control.Encode(out, status)
			out.End()
			continue
		}
		out.End()
		switch string(request.Value) {
		case control.RequestHits:
			for _, h := range hits {
				control.EncodeEntry(out, h)
				out.End()
			}
		case control.RequestReceivers:
			if status.Version == hasReceivers {
				control.EncodeEntry(out, control.Receiver{Name: "bigmail", Limit: 20, Open: 3})
				out.End()
			}
		}
		control.EncodeEntry(out, control.End{})
		out.End()
	}
}

// gather returns all metrics as text.
func gather(t *testing.T, c *Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Error(err)
	}
	var b bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&b, family); err != nil {
			t.Error(err)
		}
	}
	return b.String()
}

// want looks for texts that occur n times.
func want(t *testing.T, got string, n int, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if found := strings.Count(got, text); found != n {
			t.Errorf("got %d times %q, want %d, in:\n%s", found, text, n, got)
		}
	}
}

// TestCollect_allNumbers has each number of the status, and more than 32 bits of it.
func TestCollect_allNumbers(t *testing.T) {
	t.Parallel()
	s := control.Status{Version: "1.2"}
	for i := range stats.Numbers {
		*stats.Numbers[i].Field(&s.Values) = 1<<33 + int64(i)
	}
	s.EndpointMisses = 1<<33 + 5
	s.Took.Counts[2], s.Waited.Counts[3] = 5, 6
	socket := serve(t, s)
	got := gather(t, &Collector{timeout: time.Minute, Sources: func() []Source {
		return []Source{{Instance: "one", Socket: socket}}
	}})
	want(t, got, 1,
		`scache_lookups_total{level="endpoint",postfix_instance="one",result="miss"} 8.589934597e+09`,
		`scache_sessions_closed_total{postfix_instance="one",reason="evicted"} `,
		`scache_bindings_evicted_total{postfix_instance="one"} `,
		`scache_sessions_limit{postfix_instance="one"} `,
		`scache_build_info{postfix_instance="one",version="1.2"} 1`,
		`scache_request_duration_seconds_count{postfix_instance="one"} 5`,
		`scache_session_wait_seconds_count{postfix_instance="one"} 6`)
	n := 0
	for i := range stats.Numbers {
		if stats.Numbers[i].Metric != "" {
			n++
		}
	}
	own := 4 // up, build, started, duration
	plain := 0
	for line := range strings.Lines(got) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "_bucket{") &&
			!strings.Contains(line, "_sum{") && !strings.Contains(line, "_count{") {
			plain++
		}
	}
	if plain != n+own {
		t.Errorf("got %d numbers, want %d, in:\n%s", plain, n+own, got)
	}
}

// TestCollect_manualExplainsEachMetric once, in the words of its help.
func TestCollect_manualExplainsEachMetric(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../cmd/scache_exporter/scache_exporter.8")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(data), ".Sh METRICS\n")
	section, _, _ = strings.Cut(section, ".Sh ")
	socket := serve(t, control.Status{Version: hasReceivers}, control.LabelCounts{Label: "x"})
	got := gather(t, &Collector{timeout: time.Minute, Hits: true, Sources: func() []Source {
		return []Source{{Socket: socket, Installed: func() string { return "1" }}}
	}})
	n := 0
	for line := range strings.Lines(got) {
		help, isHelp := strings.CutPrefix(line, "# HELP ")
		if !isHelp {
			continue
		}
		n++
		name, help, _ := strings.Cut(help, " ")
		if want := ".It Va " + name + "\n" + help; !strings.Contains(section, want) {
			t.Errorf("METRICS of scache_exporter.8 lacks:\n%s", want)
		}
	}
	if found := strings.Count(section, ".It Va "); found != n {
		t.Errorf("METRICS of scache_exporter.8: got %d metrics, want %d", found, n)
	}
	lookups, closed := numbers["lookups_total"], numbers["sessions_closed_total"]
	for _, m := range []*metric{events, build, lookups, closed} {
		for _, label := range m.Labels {
			if label != "version" && label != "label" && !strings.Contains(section, ".Va "+label+"\n") {
				t.Errorf("METRICS of scache_exporter.8 does not explain the label %s", label)
			}
		}
	}
}

// TestCollect_falseServer says what metrics cannot have. The metrics of another server are
// there all the same, and so is what can be understood of its own.
func TestCollect_falseServer(t *testing.T) {
	t.Parallel()
	good := serve(t, control.Status{Version: "good"},
		control.LabelCounts{Label: "smtp\nx\n", Hits: 1, Evicted: 2, Flushed: 3})
	status := control.Status{Version: "\xff\x1b[31m\n"}
	status.Saved, status.Took.Sum = -1, 1
	hits := []control.LabelCounts{
		{Label: "a", Hits: 2}, {Label: "a", Hits: 1}, {Label: "\xfe", Hits: -1},
	}
	for range 2 * top {
		hits = append(hits, control.LabelCounts{Label: "b", Error: 1})
	}
	bad := serve(t, status, hits...)
	c := &Collector{timeout: time.Minute, Hits: true, Sources: func() []Source {
		version := func() string { return "\xff" }
		return []Source{
			{Instance: "good", Socket: good},
			{Instance: "postfix-\xff", Socket: bad, Installed: version},
			{Instance: `postfix-\xff`, Socket: good}, // cannot be told from the other one
		}
	}}
	got := gather(t, c)
	if !utf8.ValidString(got) {
		t.Errorf("got no UTF-8: %q", got)
	}
	const prefix = `postfix_instance="postfix-\\xff"`
	const good1 = `level="endpoint",postfix_instance="good"`
	want(t, got, 1, `scache_up{postfix_instance="good"} 1`, `scache_up{`+prefix+`} 1`,
		`scache_build_info{`+prefix+`,version="\\xff\\x1b[31m\\n"} 1`,
		`scache_installed_info{`+prefix+`,version="\\xff"} 1`,
		`scache_label_events_total{event="hit",label="a",level="endpoint",`+prefix+`} 2`,
		`scache_label_events_total{event="evicted",label="smtp\\nx\\n",`+good1+`} 2`,
		`scache_label_events_total{event="flushed",label="smtp\\nx\\n",`+good1+`} 3`)
}

// TestCollect_oneScrapeAtATime has many scrapes at once.
func TestCollect_oneScrapeAtATime(t *testing.T) {
	t.Parallel()
	socket := serve(t, control.Status{Version: "1"})
	var listing, running [3]atomic.Int32
	once := func(n *atomic.Int32, what string) func() {
		if n.Add(1) > 1 {
			t.Errorf("two calls of %s at a time", what)
		}
		return func() { n.Add(-1) }
	}
	c := &Collector{timeout: time.Minute, Sources: func() (all []Source) {
		defer once(&listing[0], "Sources")()
		for i, name := range []string{"a", "b"} {
			all = append(all, Source{Instance: name, Socket: socket, Installed: func() string {
				defer once(&running[i], "Installed")()
				return "1"
			}})
		}
		return all
	}}
	var done sync.WaitGroup
	for range 100 {
		done.Go(func() {
			got := gather(t, c)
			want(t, got, 1, `scache_up{postfix_instance="a"} 1`,
				`scache_installed_info{postfix_instance="b",version="1"} 1`)
		})
	}
	done.Wait()
}

func TestFlights_shareOneCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var f flights[int]
		var calls atomic.Int32
		var done sync.WaitGroup
		release := make(chan struct{})
		call := func() int {
			n := calls.Add(1)
			<-release
			return int(n)
		}
		for range 300 {
			done.Go(func() {
				if got := f.do("a", call); got != 1 {
					t.Errorf("got the result of call %d, want that of the first", got)
				}
			})
		}
		synctest.Wait()
		done.Go(func() {
			if got := f.do("b", call); got != 2 {
				t.Errorf("another key: got the result of call %d, want its own", got)
			}
		})
		synctest.Wait()
		close(release)
		done.Wait()
		if got := f.do("a", call); got != 3 || len(f.byName) > 0 {
			t.Errorf("after the first call: got the result of call %d, and %d calls that run",
				got, len(f.byName))
		}
	})
}
