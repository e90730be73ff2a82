// SPDX-License-Identifier: EPL-2.0

package server

import (
	"time"

	"scache/internal/cache"
)

// Statistics logs statistics every interval, and once more when it is stopped.
// The returned function does that, and returns when it is done.
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

// logStatistics logs what happened since the given moment, in the words of the
// stock server, and begins anew. It logs nothing about what did not happen.
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
		s.Log.Info("statistics: %s lookup hits=%d miss=%d success=%d%%", kind, l.Hits, l.Misses, l.Hits*100/total)
	}
}
