// SPDX-License-Identifier: EPL-2.0

package server

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain looks for goroutines that are left. A log stays as long as its process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("scache/internal/maillog.(*Logger).run"))
}
