// SPDX-License-Identifier: EPL-2.0

// Package histogram counts how long things take, in buckets that are powers of two. That
// is cheap enough for each request, and exact enough to see where the time goes.
package histogram

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// buckets is the number of buckets. Bucket i counts times below bound(i), and the last one
// counts all that are longer.
const buckets = 34

// bound returns the upper bound of a bucket: 1 µs, 2 µs, and so on up to more than an
// hour.
func bound(i int) time.Duration { return time.Microsecond << i }

// A Histogram counts times. Its zero value is empty, and its methods are safe for
// concurrent use.
type Histogram struct {
	counts [buckets]atomic.Int64
	sum    atomic.Int64
}

// Observe counts a time.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[min(bits.Len64(uint64(d/time.Microsecond)), buckets-1)].Add(1)
	h.addSum(d)
}

// addSum adds to the sum, which stays at its maximum of 292 years.
func (h *Histogram) addSum(d time.Duration) {
	if h.sum.Add(int64(d)) < 0 {
		h.sum.Store(math.MaxInt64)
	}
}

// Add counts what another histogram has counted.
func (h *Histogram) Add(v Values) {
	for i, n := range v.Counts {
		h.counts[i].Add(n)
	}
	h.addSum(v.Sum)
}

// Values returns what was counted so far.
func (h *Histogram) Values() (v Values) {
	for i := range h.counts {
		v.Counts[i] = h.counts[i].Load()
	}
	v.Sum = max(time.Duration(h.sum.Load()), 0)
	return v
}

// Values are the counts of a histogram at one moment.
type Values struct {
	Counts [buckets]int64
	Sum    time.Duration // of all times that were counted
}

// Add adds the counts of another histogram.
func (v *Values) Add(more Values) {
	for i, n := range more.Counts {
		v.Counts[i] += n
	}
	if v.Sum += more.Sum; v.Sum < 0 {
		v.Sum = math.MaxInt64
	}
}

// Check returns an error if a count is negative, if there are more than most counts, or
// if the sum is negative.
func (v Values) Check(most int64) error {
	all := int64(0)
	for _, n := range v.Counts {
		if n < 0 || n > most-all {
			return fmt.Errorf("%d times of one length are out of range", n)
		}
		all += n
	}
	if v.Sum < 0 {
		return fmt.Errorf("the sum of the times is %v", v.Sum)
	}
	return nil
}

// Count returns the number of times that were counted.
func (v Values) Count() (n int64) {
	for _, c := range v.Counts {
		n += c
	}
	return n
}

// Cumulative returns, for each bound in seconds, the number of times below it.
func (v Values) Cumulative() map[float64]uint64 {
	all, below := uint64(0), map[float64]uint64{}
	for i, n := range v.Counts[:buckets-1] {
		all += uint64(n)
		below[bound(i).Seconds()] = all
	}
	return below
}

// Quantile returns a bound below which at least this share of all times is, or 0 if no
// time was counted.
func (v Values) Quantile(share float64) time.Duration {
	below, all := int64(0), v.Count()
	for i, n := range v.Counts {
		if below += n; all > 0 && float64(below) >= share*float64(all) {
			return bound(i)
		}
	}
	return 0
}

// String returns the values as numbers: the sum in nanoseconds, and the counts up to the
// last one that is not zero. Parse reads them.
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

// Parse returns the values that String has written. A version with more buckets may have
// written them: surplus counts are added to the last bucket.
func Parse(text string) (v Values, err error) {
	i := -1
	for field := range strings.FieldsSeq(text) {
		i++
		n, err := strconv.ParseInt(field, 10, 64)
		switch {
		case err != nil || n < 0:
			return Values{}, fmt.Errorf("malformed histogram: %.100q", text)
		case i == 0:
			v.Sum = time.Duration(n)
		case i > buckets && n > math.MaxInt64-v.Counts[buckets-1]:
			return Values{}, fmt.Errorf("histogram out of range: %.100q", text)
		default:
			v.Counts[min(i-1, buckets-1)] += n
		}
	}
	return v, nil
}

// MarshalJSON returns the number of times, their sum, and two quantiles, in seconds.
func (v Values) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"count":                    v.Count(),
		"sum_seconds":              v.Sum.Seconds(),
		"half_below_seconds":       v.Quantile(0.5).Seconds(),
		"99_percent_below_seconds": v.Quantile(0.99).Seconds(),
	})
}
