// SPDX-License-Identifier: EPL-2.0

package main

import (
	"math"
	"testing"
)

// TestSessionLimit_ofOpenFiles has limits of open files as machines have them: 2^30 is usual in
// containers.
func TestSessionLimit_ofOpenFiles(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		files                       uint64
		configured, clients, others int
		want                        int
	}{
		{600, 0, 90, 0, 600 - 64 - 2*90},
		{600, 0, 90, 7, 600 - 64 - 2*90 - 7},
		{600, 100, 90, 0, 100},
		{600, 1000, 90, 0, 600 - 64 - 2*90},
		{64, 0, 10, 0, -20},
		{0, 0, 0, 0, -64},
		{1 << 30, 0, 100, 0, 1<<30 - 264},
		{1 << 30, 5000, 100, 0, 5000},
		{math.MaxUint64, 0, 100, 0, math.MaxInt32 - 264}, // unlimited
	} {
		got := sessionLimit(test.files, test.configured)(test.clients, test.others)
		if got != test.want {
			t.Errorf("%+v: got %d", test, got)
		}
	}
}
