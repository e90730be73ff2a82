// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A model is the cache as its documentation has it: lists that are searched.
type model struct {
	sessions []modelSession // in the order in which they were saved
	bindings []modelBinding
}

type modelSession struct {
	endpoint string
	fd       int
	end      time.Duration
}

type modelBinding struct {
	destination, property, endpoint string
	end                             time.Duration
}

// expire forgets what has ended.
func (m *model) expire(now time.Duration) {
	m.sessions = slices.DeleteFunc(m.sessions, func(s modelSession) bool { return s.end <= now })
	m.bindings = slices.DeleteFunc(m.bindings, func(b modelBinding) bool { return b.end <= now })
}

func (m *model) save(destination, property, endpoint string, end time.Duration) {
	for i, b := range m.bindings {
		if b.destination == destination && b.property == property && b.endpoint == endpoint {
			m.bindings[i].end = end
			return
		}
	}
	m.bindings = append(m.bindings, modelBinding{destination, property, endpoint, end})
}

// take returns the oldest session of an endpoint, or 0.
func (m *model) take(endpoint string) int {
	for i, s := range m.sessions {
		if s.endpoint == endpoint {
			m.sessions = slices.Delete(m.sessions, i, i+1)
			return s.fd
		}
	}
	return 0
}

func (m *model) takeByDestination(destination string) (fd int, property string) {
	for _, b := range m.bindings {
		if b.destination == destination {
			if fd := m.take(b.endpoint); fd != 0 {
				return fd, b.property
			}
		}
	}
	return 0, ""
}

func (m *model) drop(label string) {
	dropped := map[string]bool{label: true}
	m.bindings = slices.DeleteFunc(m.bindings, func(b modelBinding) bool {
		if b.destination == label {
			dropped[b.endpoint] = true
		}
		return b.destination == label
	})
	m.sessions = slices.DeleteFunc(m.sessions, func(s modelSession) bool { return dropped[s.endpoint] })
}

// TestCacheAsLists has any sequence of calls, and compares.
func TestCacheAsLists(t *testing.T) {
	t.Parallel()
	label := rapid.SampledFrom([]string{"a", "b", "c"})
	rapid.Check(t, func(r *rapid.T) {
		w, m := newWorld(0), &model{}
		held := map[int]bool{} // descriptors that were given away
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			l := label.Draw(r, "label")
			ttl := time.Duration(rapid.IntRange(1, 5).Draw(r, "ttl")) * time.Second
			switch rapid.IntRange(0, 6).Draw(r, "step") {
			case 0, 1:
				fd := w.session(ttl, l)
				m.sessions = append(m.sessions, modelSession{l, fd, w.now + ttl})
			case 2:
				property, endpoint := label.Draw(r, "property"), label.Draw(r, "endpoint")
				w.SaveBinding(ttl, []byte(l), []byte(property), []byte(endpoint))
				m.save(l, property, endpoint, w.now+ttl)
			case 3:
				got, _ := w.FindEndpoint([]byte(l))
				if want := m.take(l); got.FD != want {
					r.Fatalf("endpoint %s: %d, want %d", l, got.FD, want)
				}
				held[got.FD] = true
			case 4:
				got, _ := w.FindDestination([]byte(l))
				if want, property := m.takeByDestination(l); got.FD != want || got.DestinationProperty != property {
					r.Fatalf("destination %s: %d by %q, want %d by %q", l, got.FD, got.DestinationProperty, want, property)
				}
				held[got.FD] = true
			case 5:
				w.Flush([]string{l})
				m.drop(l)
			default:
				w.sleep(ttl / 2)
				m.expire(w.now)
			}
			// All that was saved is in the cache, given away, or closed, once.
			w.Expire()
			if got, want := w.Size().Sessions, len(m.sessions); got < want || got > want && !late(w, m) {
				r.Fatalf("%d sessions, want %d", got, want)
			}
			for _, fd := range w.closed {
				if held[fd] || slices.ContainsFunc(m.sessions, func(s modelSession) bool { return s.fd == fd }) {
					r.Fatalf("%d was closed", fd)
				}
			}
		}
	})
}

// late tells whether sessions may be in the cache whose time is over: not longer than its
// precision.
func late(w *world, m *model) bool {
	w.sleep(2 * precision)
	m.expire(w.now)
	w.Expire()
	return w.Size().Sessions == len(m.sessions)
}
