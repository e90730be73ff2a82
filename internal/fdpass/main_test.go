// SPDX-License-Identifier: EPL-2.0

package fdpass

import (
	"testing"

	"scache/internal/testenv"
)

// TestMain looks for goroutines and descriptors that are left.
func TestMain(m *testing.M) { testenv.Main(m, OnCreate) }
