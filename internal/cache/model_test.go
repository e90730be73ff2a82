// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var modelLabels = []string{"a", "bb", "ccc", "dddd"}

// A model is a cache that searches lists.
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

// expire removes what has ended.
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
	m.sessions = slices.DeleteFunc(m.sessions, func(s modelSession) bool {
		return dropped[s.endpoint]
	})
}

// counted returns the size and the memory of what the model holds.
func (m *model) counted() (size Size, memory int64) {
	destinations, endpoints, connected := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, s := range m.sessions {
		endpoints[s.endpoint], connected[s.endpoint] = true, true
		memory += sessionCost(len(fmt.Sprint("property ", s.fd)))
	}
	for _, b := range m.bindings {
		destinations[b.destination], endpoints[b.endpoint] = true, true
		memory += bindingCost(len(b.property))
	}
	for label := range destinations {
		memory += destinationCost(len(label))
	}
	for label := range endpoints {
		memory += endpointCost(len(label))
	}
	return Size{len(destinations), len(connected), len(m.sessions)}, memory
}

// TestCache_asLists makes random calls of a cache and a model and compares them.
func TestCache_asLists(t *testing.T) {
	t.Parallel()
	label := rapid.SampledFrom(modelLabels)
	rapid.Check(t, func(r *rapid.T) {
		w, m := newWorld(0), &model{}
		given := map[int]int{} // how often a descriptor left the cache
		for range rapid.IntRange(1, 80).Draw(r, "steps") {
			l := label.Draw(r, "label")
			ttl := time.Duration(rapid.IntRange(1, 5).Draw(r, "ttl")) * time.Second
			switch rapid.IntRange(0, 9).Draw(r, "step") {
			case 0, 1:
				fd := w.session(ttl, l)
				m.sessions = append(m.sessions, modelSession{l, fd, w.now + ttl})
			case 2, 3:
				property, endpoint := label.Draw(r, "property"), label.Draw(r, "endpoint")
				w.SaveBinding(ttl, []byte(l), []byte(property), []byte(endpoint))
				m.save(l, property, endpoint, w.now+ttl)
			case 4:
				got, _ := w.FindEndpoint([]byte(l))
				if want := m.take(l); got.FD != want {
					r.Fatalf("endpoint %s: got %d, want %d", l, got.FD, want)
				}
				given[got.FD]++
			case 5, 6:
				got, _ := w.FindDestination([]byte(l))
				want, property := m.takeByDestination(l)
				if got.FD != want || got.DestinationProperty != property {
					r.Fatalf("destination %s: got %d by %q, want %d by %q",
						l, got.FD, got.DestinationProperty, want, property)
				}
				given[got.FD]++
			case 7:
				w.Flush([]string{l})
				m.drop(l)
			default:
				w.now += ttl / 2
				m.expire(w.now)
				if rapid.Bool().Draw(r, "alarm") { // else between two ticks of the wheel
					w.now += 2 * precision
					w.Expire()
					m.expire(w.now)
				}
			}
			compare(r, w, m)
		}
		w.Clear()
		for _, fd := range w.closed {
			given[fd]++
		}
		for fd := 1; fd <= w.fd; fd++ {
			if given[fd] != 1 {
				r.Fatalf("descriptor %d: got out of the cache %d times, want once", fd, given[fd])
			}
		}
	})
}

// late reports whether the cache still holds an entry that has ended, as it may for its
// precision.
func late(r *rapid.T, w *world) (late bool) {
	for _, label := range modelLabels {
		for _, b := range w.bindings(label) {
			late = late || b.Remaining <= 0
			if b.Remaining < -precision {
				r.Fatalf("got %+v, want it to have expired", b)
			}
		}
		for _, s := range w.sessions(label) {
			late = late || s.Remaining <= 0
			if s.Remaining < -precision {
				r.Fatalf("got %+v, want it to have expired", s)
			}
		}
	}
	return late
}

// compare compares sizes and lists.
func compare(r *rapid.T, w *world, m *model) {
	if late(r, w) {
		return
	}
	size, memory := m.counted()
	if got := w.Size(); got != size {
		r.Fatalf("got size %+v, want %+v", got, size)
	}
	for _, l := range modelLabels {
		var bindings, wantBindings, sessions, wantSessions []string
		for _, b := range w.bindings(l) {
			bindings = append(bindings, b.Property+" "+b.Endpoint+" "+b.Remaining.String())
		}
		for _, b := range m.bindings {
			if b.destination == l {
				left := (b.end - w.now).String()
				wantBindings = append(wantBindings, b.property+" "+b.endpoint+" "+left)
			}
		}
		for _, s := range w.sessions(l) {
			sessions = append(sessions, s.Description+" "+s.Remaining.String())
		}
		for _, s := range m.sessions {
			if s.endpoint == l {
				wantSessions = append(wantSessions, fmt.Sprint("fd ", s.fd, " ", s.end-w.now))
			}
		}
		if !slices.Equal(bindings, wantBindings) || !slices.Equal(sessions, wantSessions) {
			r.Fatalf("%s: got %q, %q, want %q, %q",
				l, bindings, sessions, wantBindings, wantSessions)
		}
	}
	if got := w.Memory().Used; got != memory {
		r.Fatalf("got %d bytes, want %d", got, memory)
	}
}
