// SPDX-License-Identifier: EPL-2.0

package receivers

import "testing"

func TestDestinationHost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		label, host string
		port        uint16
	}{
		{"smtp\n[a.example]\n", "a.example", 0},
		{"smtp\n[a.example]:26\n[b.example]:27\n", "a.example", 26},
		{"smtp\n[a.example\n[b.example]:27\n", "b.example", 27},
		{"smtp\n[]\n", "", 0},
		{"smtp\na.example\n", "", 0},
	} {
		if host, port := destinationHost([]byte(test.label)); host != test.host || port != test.port {
			t.Errorf("%q: got %q, %d, want %q, %d", test.label, host, port, test.host, test.port)
		}
	}
}
