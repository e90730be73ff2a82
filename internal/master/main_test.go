// SPDX-License-Identifier: EPL-2.0

package master

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain looks for goroutines that are left. A log and a watchdog stay as long as
// their process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("scache/internal/maillog.(*Logger).run"),
		goleak.IgnoreAnyFunction("scache/internal/master.(*Process).watch.func1"),
		goleak.IgnoreAnyFunction("scache/internal/master.(*Process).watch.func2"))
}
