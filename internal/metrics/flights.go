// SPDX-License-Identifier: EPL-2.0

package metrics

import "sync"

// flights let callers who want the same thing at the same time share one call.
type flights[T any] struct {
	mu     sync.Mutex
	byName map[string]*flight[T]
}

// A flight is a call that runs.
type flight[T any] struct {
	done   chan struct{} // closed when there is a result
	result T
}

// do calls f and returns its result, unless a call with this key runs already: then it
// waits for that call and returns its result.
func (s *flights[T]) do(key string, f func() T) T {
	s.mu.Lock()
	if running := s.byName[key]; running != nil {
		s.mu.Unlock()
		<-running.done
		return running.result
	}
	own := &flight[T]{done: make(chan struct{})}
	if s.byName == nil {
		s.byName = map[string]*flight[T]{}
	}
	s.byName[key] = own
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.byName, key)
		s.mu.Unlock()
		close(own.done)
	}()
	own.result = f()
	return own.result
}
