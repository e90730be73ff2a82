// SPDX-License-Identifier: EPL-2.0

package server

import (
	"time"

	"scache/internal/cache"
	"scache/internal/histogram"
	"scache/internal/stats"
)

// values returns what was counted so far, over all processes, given the totals of the
// cache. Its gauges are zero. The caller holds mu.
func (s *Server) values(totals cache.Totals) stats.Values {
	v := stats.Values{
		LostLines: int64(s.Log.Lost()),

		PeakSessions:     int64(totals.Peak.Sessions),
		PeakEndpoints:    int64(totals.Peak.Endpoints),
		PeakDestinations: int64(totals.Peak.Destinations),

		DestinationHits:   totals.Destination.Hits,
		DestinationMisses: totals.Destination.Misses,
		EndpointHits:      totals.Endpoint.Hits,
		EndpointMisses:    totals.Endpoint.Misses,

		Saved:           totals.Saved,
		TakenOver:       totals.TakenOver,
		Expired:         totals.Dropped[cache.Expired],
		Dead:            totals.Dropped[cache.Dead],
		Evicted:         totals.Dropped[cache.Evicted],
		Flushed:         totals.Dropped[cache.Flushed],
		EvictedBindings: totals.EvictedBindings,

		EvictedForMemory: totals.EvictedForMemory,

		Waited: totals.Waited,
		Took:   s.took(),
	}
	v.Add(&s.counts)
	return v
}

// took returns how long requests took, in all loops of this process.
func (s *Server) took() (all histogram.Values) {
	for _, w := range s.workers {
		all.Add(w.took.Values())
	}
	return all
}

// continueCounts adds the counts of a previous process. age is the time since they began.
func (s *Server) continueCounts(v *stats.Values, age time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Add(v)
	s.since = time.Now().Add(-max(age, s.counted()))
}

// uncountConnection takes one connection out of the counts: the previous process had made it to
// hand over its state, and is not a client.
func (s *Server) uncountConnection() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Connections--
}

// Statistics logs statistics every interval, and once more when stop is called. stop
// returns when that is done.
func (s *Server) Statistics(interval time.Duration) (stop func()) {
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer s.Log.ExitOnPanic()
		defer close(stopped)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for since := time.Now(); ; {
			select {
			case now := <-tick.C:
				s.logStatistics(since)
				since = now
			case <-stopping:
				s.logStatistics(since)
				return
			}
		}
	}()
	return func() {
		close(stopping)
		<-stopped
	}
}

// logStatistics logs the statistics since the given moment, with the texts of the stock
// server, and begins a new interval. It omits lines whose counts are all zero.
func (s *Server) logStatistics(since time.Time) {
	stats := s.Cache.ResetStats()
	if stats == (cache.Stats{}) {
		return
	}
	s.Log.Info("statistics: start interval %s", since.Format(time.Stamp))
	s.logLookups("domain", stats.Destination)
	s.logLookups("address", stats.Endpoint)
	if stats.Destinations > 0 || stats.Endpoints > 0 || stats.Sessions > 0 {
		s.Log.Info("statistics: max simultaneous domains=%d addresses=%d connection=%d",
			stats.Destinations, stats.Endpoints, stats.Sessions)
	}
}

func (s *Server) logLookups(kind string, l cache.Lookups) {
	if total := l.Hits + l.Misses; total > 0 {
		s.Log.Info("statistics: %s lookup hits=%d miss=%d success=%d%%",
			kind, l.Hits, l.Misses, l.Hits*100/total)
	}
}
