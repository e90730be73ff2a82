// SPDX-License-Identifier: EPL-2.0

// Package metrics exports the status of connection cache servers to Prometheus.
//
// A [Collector] asks all servers at the same time, and each server at most once at a time:
// scrapes that arrive meanwhile wait and share the answer. Nothing that a server or a
// configuration says can make the metrics of another server fail.
package metrics

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/stats"
)

// A Source is one server.
type Source struct {
	Instance string // of Postfix: the value of the label
	Socket   string

	// Installed returns the version of the binary that is installed for this server, or ""
	// if that is another server's. It may be nil.
	Installed func() string
}

// usualTimeout is how long a server may take to answer. A server that takes longer is down.
const usualTimeout = time.Second

// top is how many destinations, and how many endpoints, have metrics of their own.
const top = 20

// A Collector asks servers when Prometheus asks. Its methods are safe for concurrent use.
type Collector struct {
	Sources func() []Source // is called for each scrape, because instances come and go
	Hits    bool            // export the busiest destinations and endpoints, too

	timeout time.Duration // if not the usual one
	sources flights[[]Source]
	scrapes flights[[]prometheus.Metric]
}

// label is the label of the instance. Prometheus itself uses "instance".
const label = "postfix_instance"

// prefix begins the names of all metrics.
const prefix = "scache_"

// A metric is a family of metrics, as the manual page explains it.
type metric struct {
	stats.Family
	desc *prometheus.Desc
}

func newMetric(f stats.Family) *metric {
	labels := append([]string{label}, f.Labels...)
	return &metric{f, prometheus.NewDesc(prefix+f.Name, f.Help, labels, nil)}
}

func gauge(name, help string, labels ...string) *metric {
	return newMetric(stats.Family{Name: name, Kind: stats.Gauge, Labels: labels, Help: help})
}

// The metrics that are no numbers of package stats.
var (
	up = gauge("up", "1 if the server answers, and 0 if it does not or is the stock server.")

	duration = gauge("scrape_duration_seconds", "How long the server took to answer.")

	build = gauge("build_info",
		"The version of the server that runs; the value is always 1.", "version")

	installed = gauge("installed_info",
		"The version of the installed binary, or unknown; the value is always 1.", "version")

	started = gauge("start_time_seconds", "When the server was started, in seconds since 1970.")

	events = newMetric(stats.Family{
		Name: "label_events_total", Kind: stats.Counter, Labels: []string{"level", "label", "event"},
		Help: "What happened to the 20 busiest destinations and endpoints.",
	})
)

// numbers and times are the metrics of the tables of package stats, by name.
var numbers, times = tables()

func tables() (numbers, times map[string]*metric) {
	numbers, times = map[string]*metric{}, map[string]*metric{}
	for i := range stats.Numbers {
		if f := stats.Numbers[i].Family(); f.Name != "" && numbers[f.Name] == nil {
			numbers[f.Name] = newMetric(f)
		}
	}
	for _, d := range stats.Times {
		times[d.Metric] = newMetric(stats.Family{Name: d.Metric, Help: d.Help})
	}
	return numbers, times
}

// Describe sends nothing, which makes the collector an unchecked one: the set of metrics
// depends on which servers answer.
func (c *Collector) Describe(chan<- *prometheus.Desc) {}

// Collect asks all servers.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	sources := c.sources.do("", func() []Source { return distinct(c.Sources(), instance) })
	var asked sync.WaitGroup
	for _, s := range sources {
		asked.Go(func() {
			key := instance(s) + "\x00" + s.Socket
			for _, m := range c.scrapes.do(key, func() []prometheus.Metric { return c.scrape(s) }) {
				ch <- m
			}
		})
	}
	asked.Wait()
}

// instance returns the value of the label of a server.
func instance(s Source) string { return printable(s.Instance) }

// printable returns a text on one line and in UTF-8, as control.Escape writes it, but leaves
// backslashes alone: what was escaped before stays as it is.
func printable(text string) string {
	parts := strings.Split(text, `\`)
	for i := range parts {
		parts[i] = control.Escape(parts[i])
	}
	return strings.Join(parts, `\`)
}

// scrape asks one server, and returns its metrics.
func (c *Collector) scrape(s Source) []prometheus.Metric {
	var status control.Status
	var receivers []control.Receiver
	labels := map[string][]control.LabelCounts{}
	start := time.Now()
	err := client.Ask(s.Socket, cmp.Or(c.timeout, usualTimeout), func(cl *client.Client) (err error) {
		if status, err = cl.Status(); err != nil {
			return err
		}
		receivers, err = cl.Receivers()
		if err != nil && !errors.Is(err, client.ErrStock) { // 1.0 has no receivers
			return err
		}
		if !c.Hits {
			return nil
		}
		for _, level := range []string{control.LevelDestination, control.LevelEndpoint} {
			if labels[level], err = cl.LabelCounts(level); err != nil {
				return err
			}
		}
		return nil
	})
	w := writer{instance: instance(s), seen: map[string]bool{}}
	w.number(duration, time.Since(start).Seconds())
	if s.Installed != nil {
		if version := s.Installed(); version != "" {
			w.number(installed, 1, version)
		}
	}
	if err != nil {
		w.number(up, 0)
		return w.all
	}
	w.number(up, 1)
	w.status(status, start)
	w.receivers(receivers)
	for level, all := range labels {
		w.labels(level, all)
	}
	return w.all
}

// A writer collects the metrics of one instance.
type writer struct {
	instance string
	all      []prometheus.Metric
	seen     map[string]bool // names and labels
}

// number adds a metric. The server may be a false one: of a metric that it has twice, the
// first counts.
func (w *writer) number(m *metric, value float64, labels ...string) {
	kind := prometheus.GaugeValue
	if m.Kind == stats.Counter {
		kind = prometheus.CounterValue
	}
	values := []string{w.instance}
	for _, text := range labels {
		values = append(values, printable(text))
	}
	key := m.Name + "\x00" + strings.Join(values, "\x00")
	one, err := prometheus.NewConstMetric(m.desc, kind, value, values...)
	if err == nil && !w.seen[key] {
		w.seen[key] = true
		w.all = append(w.all, one)
	}
}

func (w *writer) status(s control.Status, now time.Time) {
	w.number(build, 1, s.Version)
	w.number(started, float64(now.Add(-time.Duration(s.Uptime)).UnixMilli())/1000)
	for i := range stats.Numbers {
		if n := &stats.Numbers[i]; n.Metric != "" {
			w.number(numbers[n.Metric], float64(*n.Field(&s.Values)), n.Labels...)
		}
	}
	for _, d := range stats.Times {
		v := d.Field(&s.Values)
		one, err := prometheus.NewConstHistogram(times[d.Metric].desc,
			uint64(v.Count()), v.Sum.Seconds(), v.Cumulative(), w.instance)
		if err == nil {
			w.all = append(w.all, one)
		}
	}
}

// labels adds the metrics of the labels with the most lookups.
func (w *writer) labels(level string, all []control.LabelCounts) {
	slices.SortStableFunc(all, func(a, b control.LabelCounts) int {
		return cmp.Compare(b.Hits+b.Misses, a.Hits+a.Misses)
	})
	for _, h := range all[:min(top, len(all))] {
		for _, event := range []struct {
			name string
			n    int64
		}{
			{"hit", h.Hits}, {"miss", h.Misses}, {"save", h.Saves}, {"expired", h.Expired},
			{"dead", h.Dead}, {"evicted", h.Evicted}, {"flushed", h.Flushed},
		} {
			w.number(events, float64(event.n), level, h.Label, event.name)
		}
	}
}
