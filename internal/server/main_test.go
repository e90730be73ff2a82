// SPDX-License-Identifier: EPL-2.0

package server

import (
	"testing"

	"go.uber.org/goleak"

	"scache/internal/fdpass"
	"scache/internal/testenv"
)

// TestMain looks for goroutines and descriptors that are left. A log stays as long as its process.
func TestMain(m *testing.M) {
	testenv.Main(m, fdpass.OnCreate, goleak.IgnoreAnyFunction("scache/internal/maillog.(*Logger).run"))
}
