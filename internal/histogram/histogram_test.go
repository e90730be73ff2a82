// SPDX-License-Identifier: EPL-2.0

package histogram

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

func TestObserve_belowTheBound(t *testing.T) {
	t.Parallel()
	for d, bucket := range map[time.Duration]int{
		-time.Second: 0, 0: 0, 999: 0, time.Microsecond: 1, 1999: 1, 2 * time.Microsecond: 2,
		time.Millisecond: 10, time.Second: 20, time.Hour: 32, 1000 * time.Hour: buckets - 1,
	} {
		var h Histogram
		h.Observe(d)
		v := h.Values()
		if v.Counts[bucket] != 1 || v.Count() != 1 {
			t.Errorf("%v: got %v, want 1 in bucket %d", d, v, bucket)
		}
		if bucket < buckets-1 && d >= bound(bucket) || bucket > 0 && d < bound(bucket-1) {
			t.Errorf("%v: bucket %d is not for it", d, bucket)
		}
		if v.Sum != max(d, 0) {
			t.Errorf("%v: got sum %v, want the same", d, v.Sum)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	var h Histogram
	for range 98 {
		h.Observe(3 * time.Microsecond)
	}
	h.Observe(time.Second)
	h.Add(h.Values())
	v := h.Values()
	if v.Count() != 198 || v.Quantile(0.5) != 4*time.Microsecond || v.Quantile(1) != bound(20) {
		t.Errorf("got %d times, quantiles %v and %v, want 198, 4µs and %v",
			v.Count(), v.Quantile(0.5), v.Quantile(1), bound(20))
	}
	if got := (Values{}).Quantile(0.5); got != 0 {
		t.Errorf("no times: got quantile %v, want 0", got)
	}
	below := v.Cumulative()
	if below[2e-6] != 0 || below[4e-6] != 196 || below[bound(20).Seconds()] != 198 ||
		len(below) != buckets-1 {
		t.Errorf("got %v, want 196 below 4 µs, and 198 below %v", below, bound(20))
	}
	var j map[string]float64
	w := v
	w.Add(v)
	if w.Count() != 2*v.Count() || w.Sum != 2*v.Sum {
		t.Errorf("got %v, want %v twice", w, v)
	}
	text, err := json.Marshal(v)
	if err != nil || json.Unmarshal(text, &j) != nil || j["count"] != 198 ||
		j["half_below_seconds"] != 4e-6 {
		t.Errorf("got %s, %v, want a count of 198, half of them below 4 µs", text, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0")
	f.Add("5000 0 1 2")
	f.Add("-1")
	f.Add("1 9223372036854775807")
	f.Add("0" + strings.Repeat(" 9223372036854775807", buckets+1))
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(v.String()); again != v || err != nil {
			t.Errorf("%q is %v, and then %v, %v", text, v, again, err)
		}
	})
}

// TestAdd_sumStaysAtItsMaximum and does not become negative.
func TestAdd_sumStaysAtItsMaximum(t *testing.T) {
	t.Parallel()
	var h Histogram
	for range 3 {
		h.Observe(math.MaxInt64 - 1)
		h.Add(h.Values())
	}
	if got := h.Values(); got.Sum != math.MaxInt64 || got.Count() != 14 {
		t.Errorf("got %v in %d times, want %v in 14", got.Sum, got.Count(), time.Duration(math.MaxInt64))
	}
}

func TestObserve_doesNotAllocate(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Second) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
