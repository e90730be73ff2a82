// SPDX-License-Identifier: EPL-2.0

package receivers

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func newSet(t testing.TB, text string) *Set {
	t.Helper()
	rules, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return New(Config{Rules: rules, Wait: 4 * time.Second})
}

// networks has many members, and others are asked for.
func networks() string {
	text := "{ a, "
	for i := range 100 {
		text += fmt.Sprintf("10.%d.0.0/16 2001:db8:%x::/48 ", i, i)
	}
	return text + "connections=5 }"
}

// TestFindEndpoint_allocs has endpoints that belong to no receiver.
func TestFindEndpoint_allocs(t *testing.T) {
	for name, set := range map[string]*Set{
		"no receivers": nil,
		"networks":     newSet(t, networks()),
		"names":        newSet(t, "{ a, .mx.example, idle=1 }"),
	} {
		c := &Client{}
		for _, l := range []string{label("192.0.2.1"), label("2001:db9::1"), "lmtp\n/private/lmtp\n0\n"} {
			l, destination := []byte(l), []byte("smtp\nexample.com\n")
			got := testing.AllocsPerRun(100, func() {
				set.Begin(c, 1)
				set.FindDestination(c, 1, destination)
				set.FindEndpoint(c, 1, l)
				set.Save(c, 1, l, nil)
			})
			if got > 0 {
				t.Errorf("%s, %q: got %v allocations, want none", name, l, got)
			}
		}
	}
}

// BenchmarkFindEndpoint is about endpoints that belong to no receiver.
func BenchmarkFindEndpoint(b *testing.B) {
	for _, bench := range []struct{ name, rules, address string }{
		{"none", "", "192.0.2.1"},
		{"one", "{ a, 198.51.100.1, connections=5 }", "192.0.2.1"},
		{"networks", networks(), "192.0.2.1"},
		{"networks-v6", networks(), "2001:db9::1"},
		{"names", "{ a, .mx.example, connections=5 }", "192.0.2.1"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			set, c, l := newSet(b, bench.rules), &Client{}, []byte(label(bench.address))
			b.ReportAllocs()
			for b.Loop() {
				set.FindEndpoint(c, 1, l)
			}
		})
	}
}

// BenchmarkSaved hands one session from agent to agent, while others wait.
func BenchmarkSaved(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			set, now := newSet(b, "{ a, 192.0.2.0/24, connections=1 }"), time.Hour
			l := []byte(label("192.0.2.1"))
			holder, count := &Client{}, func() Decisions {
				s := set.NewSnapshot(now)
				s.Add(netip.MustParseAddrPort("192.0.2.1:25"), 1)
				return set.Apply(s, now)
			}
			set.FindEndpoint(holder, now, l)
			set.Gone(holder, now)
			count()
			for range n {
				set.FindEndpoint(&Client{PID: 1}, now, l)
			}
			b.ReportAllocs()
			for b.Loop() {
				d := set.Saved(holder, now, string(l))
				if len(d.Answers) != 1 {
					b.Fatalf("got %+v, want one answer", d)
				}
				next := d.Answers[0].Client
				set.Served(next, now, true)
				if v, _ := set.FindEndpoint(holder, now, l); v != Wait {
					b.Fatalf("got verdict %d, want %d", v, Wait)
				}
				holder = next
			}
		})
	}
}

// BenchmarkApply takes a snapshot of many connections into account, of which some belong
// to a receiver.
func BenchmarkApply(b *testing.B) {
	set := newSet(b, "{ a, 10.0.0.0/24, connections=1000 }")
	set.FindEndpoint(&Client{}, 0, []byte(label("10.0.0.1")))
	b.ReportAllocs()
	for b.Loop() {
		s := set.NewSnapshot(1)
		for i := range 9000 {
			s.Add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 256), byte(i)}), 25), uint64(i))
		}
		set.Apply(s, 1)
	}
}
