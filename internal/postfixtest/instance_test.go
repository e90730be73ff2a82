// SPDX-License-Identifier: EPL-2.0

package postfixtest

import "testing"

// TestPortsAreGivenOnce, although nobody listens on them yet.
func TestPortsAreGivenOnce(t *testing.T) {
	t.Parallel()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	if err := reserve(port); err == nil {
		t.Errorf("port %d is given twice", port)
	}
}
