// SPDX-License-Identifier: EPL-2.0

package cache

import (
	"fmt"
	"testing"
	"time"
)

func BenchmarkMiss(b *testing.B) {
	w := newWorld(0)
	label := []byte("smtp\n127.0.0.1\n25\n0\n")
	b.ReportAllocs()
	for b.Loop() {
		w.FindDestination(label)
		w.FindEndpoint(label)
	}
}

func BenchmarkSaveFind(b *testing.B) {
	for _, n := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprint(n, " cached"), func(b *testing.B) {
			w := newWorld(0)
			for i := range n {
				w.session(time.Hour+time.Duration(i)*time.Millisecond, fmt.Sprint(i))
			}
			label, property := []byte("smtp\n127.0.0.1\n25\n0\n"), []byte("tls_level=0\nreuse_count=12\n")
			b.ReportAllocs()
			for b.Loop() {
				w.SaveSession(2*time.Second, label, property, 1)
				w.FindEndpoint(label)
			}
		})
	}
}

func BenchmarkSaveBindingOfManyOfOneDestination(b *testing.B) {
	w := newWorld(0)
	for i := range 20_000 {
		w.binding(time.Hour, "d", "p", fmt.Sprint("e", i))
	}
	b.ReportAllocs()
	for b.Loop() {
		w.binding(time.Hour, "d", "p", "e19999")
	}
}

// BenchmarkFindDestination has one binding that leads to a session, behind many that
// do not.
func BenchmarkFindDestination(b *testing.B) {
	for _, n := range []int{0, 100_000} {
		b.Run(fmt.Sprint(n, " bindings without sessions"), func(b *testing.B) {
			w := newWorld(0)
			for i := range n {
				w.binding(time.Hour, "d", "p", fmt.Sprint("e", i))
			}
			label, endpoint, property := []byte("d"), []byte("e"), []byte("p")
			w.SaveBinding(time.Hour, label, property, endpoint)
			b.ReportAllocs()
			for b.Loop() {
				w.SaveSession(2*time.Second, endpoint, property, 1)
				if s, _ := w.FindDestination(label); s.FD != 1 {
					b.Fatalf("got %+v", s)
				}
			}
		})
	}
}

// BenchmarkFindDestinationMiss finds nothing by many bindings.
func BenchmarkFindDestinationMiss(b *testing.B) {
	w := newWorld(0)
	for i := range 100_000 {
		w.binding(time.Hour, "d", "p", fmt.Sprint("e", i))
	}
	label := []byte("d")
	b.ReportAllocs()
	for b.Loop() {
		w.FindDestination(label)
	}
}
