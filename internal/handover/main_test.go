// SPDX-License-Identifier: EPL-2.0

package handover

import (
	"testing"

	"scache/internal/fdpass"
	"scache/internal/testenv"
)

// TestMain looks for goroutines and descriptors that are left.
func TestMain(m *testing.M) { testenv.Main(m, fdpass.OnCreate) }
