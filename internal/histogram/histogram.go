// SPDX-License-Identifier: EPL-2.0

// Package histogram counts how long things take, by powers of two: cheap enough for
// each request, and exact enough to see where the time goes.
package histogram

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// buckets is their number. Bucket i is for less than Bound(i), and the last one is
// for the rest.
const buckets = 34

// Bound returns the upper bound of a bucket: 1 µs, 2 µs, and so on up to more than
// an hour.
func Bound(i int) time.Duration { return time.Microsecond << i }

// A Histogram counts. Its methods are safe for concurrent use.
type Histogram struct {
	counts [buckets]atomic.Int64
	sum    atomic.Int64
}

// Observe counts a time.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[min(bits.Len64(uint64(d/time.Microsecond)), buckets-1)].Add(1)
	h.sum.Add(int64(d))
}

// Add counts what another one has counted.
func (h *Histogram) Add(v Values) {
	for i, n := range v.Counts {
		h.counts[i].Add(n)
	}
	h.sum.Add(int64(v.Sum))
}

// Values returns what was counted so far.
func (h *Histogram) Values() (v Values) {
	for i := range h.counts {
		v.Counts[i] = h.counts[i].Load()
	}
	v.Sum = time.Duration(h.sum.Load())
	return v
}

// Values are what a histogram has counted.
type Values struct {
	Counts [buckets]int64
	Sum    time.Duration
}

// Count returns how many times were counted.
func (v Values) Count() (n int64) {
	for _, c := range v.Counts {
		n += c
	}
	return n
}

// Cumulative returns how many times were below each bound, in seconds.
func (v Values) Cumulative() map[float64]uint64 {
	all, below := uint64(0), map[float64]uint64{}
	for i, n := range v.Counts[:buckets-1] {
		all += uint64(n)
		below[Bound(i).Seconds()] = all
	}
	return below
}

// Quantile returns a bound below which at least this share of all times is, or 0 if
// there are none.
func (v Values) Quantile(share float64) time.Duration {
	below, all := int64(0), v.Count()
	for i, n := range v.Counts {
		if below += n; all > 0 && float64(below) >= share*float64(all) {
			return Bound(i)
		}
	}
	return 0
}

// String writes the values as numbers: the sum in nanoseconds, and the counts up to
// the last one that is not zero. Parse reads them.
func (v Values) String() string {
	last := len(v.Counts)
	for last > 0 && v.Counts[last-1] == 0 {
		last--
	}
	text := strconv.FormatInt(int64(v.Sum), 10)
	for _, n := range v.Counts[:last] {
		text += " " + strconv.FormatInt(n, 10)
	}
	return text
}

// Parse reads what String has written. Counts that are too many are those of the last
// bucket.
func Parse(text string) (v Values, err error) {
	for i, field := range strings.Fields(text) {
		n, err := strconv.ParseInt(field, 10, 64)
		switch {
		case err != nil || n < 0:
			return Values{}, fmt.Errorf("malformed histogram: %.100q", text)
		case i == 0:
			v.Sum = time.Duration(n)
		default:
			v.Counts[min(i-1, buckets-1)] += n
		}
	}
	return v, nil
}

// MarshalJSON writes the number of times, their sum, and two quantiles, in seconds.
func (v Values) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"count": v.Count(), "sum_seconds": v.Sum.Seconds(),
		"half_below_seconds": v.Quantile(0.5).Seconds(), "99_percent_below_seconds": v.Quantile(0.99).Seconds(),
	})
}
