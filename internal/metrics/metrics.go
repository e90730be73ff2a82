// SPDX-License-Identifier: EPL-2.0

// Package metrics tells Prometheus what connection cache servers tell their operator.
package metrics

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/histogram"
)

// A Source is one server.
type Source struct {
	Instance string // of Postfix, for the label
	Socket   string

	// Installed returns the version of the binary that is installed for it, or nothing
	// if that is not ours. It may be nil.
	Installed func() string
}

// Limit is how long a server may take to answer. One that does not is down.
const Limit = time.Second

// top is how many destinations and endpoints are told of.
const top = 20

// A Collector asks servers, all at the same time, whenever it is asked itself.
type Collector struct {
	Sources func() []Source // asked for each time, as instances come and go
	Hits    bool            // tell of the busiest destinations and endpoints, too
}

// label is that of the instance: "instance" is Prometheus' own.
const label = "postfix_instance"

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("scache_"+name, help, append([]string{label}, labels...), nil)
}

var (
	up        = desc("up", "Whether the server answers: 1 or 0. The stock server does not.")
	duration  = desc("scrape_duration_seconds", "How long the server took to answer.")
	build     = desc("build_info", "The version of the server that runs; the value is always 1.", "version")
	installed = desc("installed_info", "The version of the binary that is installed, unknown if it does not run; the value is always 1. Absent where another server is in use.", "version")
	started   = desc("start_time_seconds", "When the server was started, in seconds since the epoch.")

	clients     = desc("clients", "Clients that are connected: delivery agents, and whoever asks for metrics.")
	connections = desc("client_connections_total", "Connections of clients.")
	refused     = desc("clients_refused_total", "Clients that were refused for being another user's.")

	sessions     = desc("sessions", "Connections in the cache.")
	endpoints    = desc("endpoints", "Endpoints with connections in the cache.")
	destinations = desc("destinations", "Destinations that are bound to endpoints.")
	limit        = desc("sessions_limit", "How many connections the cache takes at present.")

	lookups   = desc("lookups_total", "Lookups by level and result.", "level", "result")
	saved     = desc("sessions_saved_total", "Connections that delivery agents have saved.")
	takenOver = desc("sessions_taken_over_total", "Connections that previous processes have left.")
	closed    = desc("sessions_closed_total", "Connections that the cache has closed, by reason.", "reason")
	evicted   = desc("bindings_evicted_total", "Bindings that had to make room for others.")
	lost      = desc("takeover_lost_total", "Connections and clients that were left to the next process, and did not arrive.")
	lostLines = desc("log_lines_lost_total", "Log lines that were lost because the log receiver was too slow.")

	waited = desc("session_wait_seconds", "How long connections were in the cache that were given away.")
	took   = desc("request_duration_seconds", "How long requests took, from when the server noticed them until they were answered.")

	topEvents = desc("label_events_total", "What happened to the busiest destinations and endpoints; labels come and go.", "level", "label", "event")
)

// Describe is for the registry. It tells nothing, as what is told depends on who
// answers.
func (c *Collector) Describe(chan<- *prometheus.Desc) {}

// Collect asks all servers.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	var asked sync.WaitGroup
	for _, s := range c.Sources() {
		asked.Go(func() { c.collect(s, ch) })
	}
	asked.Wait()
}

func (c *Collector) collect(s Source, ch chan<- prometheus.Metric) {
	var status control.Status
	hits := map[string][]control.Hits{}
	start := time.Now()
	err := client.Ask(s.Socket, Limit, func(cl *client.Client) (err error) {
		if status, err = cl.Status(); err != nil || !c.Hits {
			return err
		}
		for _, level := range []string{control.LevelDestination, control.LevelEndpoint} {
			if hits[level], err = cl.Hits(level); err != nil {
				return err
			}
		}
		return nil
	})
	m := writer{s.Instance, ch}
	m.gauge(duration, time.Since(start).Seconds())
	if s.Installed != nil {
		if version := s.Installed(); version != "" {
			m.gauge(installed, 1, version)
		}
	}
	if err != nil {
		m.gauge(up, 0)
		return
	}
	m.gauge(up, 1)
	m.status(status, start)
	for level, all := range hits {
		m.hits(level, all)
	}
}

// A writer writes the metrics of one instance.
type writer struct {
	instance string
	ch       chan<- prometheus.Metric
}

func (w writer) gauge(d *prometheus.Desc, value float64, labels ...string) {
	w.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{w.instance}, labels...)...)
}

func (w writer) counter(d *prometheus.Desc, value int64, labels ...string) {
	w.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), append([]string{w.instance}, labels...)...)
}

func (w writer) histogram(d *prometheus.Desc, v histogram.Values) {
	w.ch <- prometheus.MustNewConstHistogram(d, uint64(v.Count()), v.Sum.Seconds(), v.Cumulative(), w.instance)
}

func (w writer) status(s control.Status, now time.Time) {
	w.gauge(build, 1, s.Version)
	w.gauge(started, float64(now.Add(-time.Duration(s.Uptime)).UnixMilli())/1000)
	for d, value := range map[*prometheus.Desc]int64{
		clients: s.Clients, sessions: s.Sessions, endpoints: s.Endpoints, destinations: s.Destinations, limit: s.SessionLimit,
	} {
		w.gauge(d, float64(value))
	}
	for d, value := range map[*prometheus.Desc]int64{
		connections: s.Connections, refused: s.Refused, saved: s.Saved, takenOver: s.TakenOver, evicted: s.EvictedBindings,
		lost: s.Lost, lostLines: s.LostLines,
	} {
		w.counter(d, value)
	}
	w.counter(lookups, s.DestinationHits, "destination", "hit")
	w.counter(lookups, s.DestinationMisses, "destination", "miss")
	w.counter(lookups, s.EndpointHits, "endpoint", "hit")
	w.counter(lookups, s.EndpointMisses, "endpoint", "miss")
	for reason, value := range map[string]int64{"expired": s.Expired, "dead": s.Dead, "evicted": s.Evicted, "flushed": s.Flushed} {
		w.counter(closed, value, reason)
	}
	w.histogram(waited, s.Waited)
	w.histogram(took, s.Took)
}

// hits tells of those with the most lookups.
func (w writer) hits(level string, all []control.Hits) {
	slices.SortStableFunc(all, func(a, b control.Hits) int { return cmp.Compare(b.Hits+b.Misses, a.Hits+a.Misses) })
	for _, h := range all[:min(top, len(all))] {
		for event, n := range map[string]int64{"hit": h.Hits, "miss": h.Misses, "save": h.Saves, "expired": h.Expired, "dead": h.Dead, "flushed": h.Flushed} {
			w.counter(topEvents, n, level, control.Escape(h.Label), event)
		}
	}
}
