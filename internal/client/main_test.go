// SPDX-License-Identifier: EPL-2.0

package client

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain looks for goroutines that are left.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
