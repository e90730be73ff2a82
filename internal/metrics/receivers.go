// SPDX-License-Identifier: EPL-2.0

package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"scache/internal/control"
	"scache/internal/histogram"
	"scache/internal/stats"
)

// The metrics of receivers, by their names in connection_cache_receivers.
var (
	receiverOpen = gauge("receiver_open_connections",
		"Connections of this machine to a receiver, in use or idle.", "receiver")

	receiverIdle = gauge("receiver_idle_connections",
		"Connections to a receiver that are in the cache.", "receiver")

	receiverLimit = gauge("receiver_limit_connections",
		"How many connections a receiver allows, if that is limited.", "receiver")

	receiverWaiting = gauge("receiver_waiting_clients",
		"Clients that wait for a connection to a receiver.", "receiver")

	receiverEvents = newMetric(stats.Family{
		Name: "receiver_events_total", Kind: stats.Counter, Labels: []string{"receiver", "event"},
		Help: "What happened to clients of a receiver: new is a connection that begins, given a " +
			"session after a wait, closed an idle session that made room, overflow a client whose " +
			"time was over, refused a client that was told to connect and did not.",
	})

	receiverWait = newMetric(stats.Family{
		Name: "receiver_wait_seconds", Labels: []string{"receiver"},
		Help: "How long clients have waited for a connection to a receiver.",
	})
)

// receivers adds the metrics of receivers.
func (w *writer) receivers(all []control.Receiver) {
	for _, r := range all {
		w.number(receiverOpen, float64(r.Open), r.Name)
		w.number(receiverIdle, float64(r.Idle), r.Name)
		if r.Limit > 0 {
			w.number(receiverLimit, float64(r.Limit), r.Name)
		}
		w.number(receiverWaiting, float64(r.Waiting), r.Name)
		for _, event := range []struct {
			name string
			n    int64
		}{
			{"new", r.New}, {"given", r.Given}, {"closed", r.Closed}, {"overflow", r.Overflows},
			{"refused", r.Refused},
		} {
			w.number(receiverEvents, float64(event.n), r.Name, event.name)
		}
		v, err := histogram.Parse(r.Waited)
		if err != nil || w.seen["wait\x00"+r.Name] {
			continue
		}
		w.seen["wait\x00"+r.Name] = true
		one, err := prometheus.NewConstHistogram(receiverWait.desc,
			uint64(v.Count()), v.Sum.Seconds(), v.Cumulative(), w.instance, printable(r.Name))
		if err == nil {
			w.all = append(w.all, one)
		}
	}
}
