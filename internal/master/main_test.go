// SPDX-License-Identifier: EPL-2.0

package master

import (
	"testing"

	"go.uber.org/goleak"

	"scache/internal/fdpass"
	"scache/internal/testenv"
)

// TestMain looks for goroutines and descriptors that are left. A log and a watchdog stay as long as
// their process.
func TestMain(m *testing.M) {
	testenv.Main(m, fdpass.OnCreate,
		goleak.IgnoreAnyFunction("scache/internal/maillog.(*Logger).run"),
		goleak.IgnoreAnyFunction("scache/internal/master.(*Process).watch.func1"),
		goleak.IgnoreAnyFunction("scache/internal/master.(*Process).watch.func2"))
}
