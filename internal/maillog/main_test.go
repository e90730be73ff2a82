// SPDX-License-Identifier: EPL-2.0

package maillog

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if goroutines are left, except those of loggers, which have no end.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("scache/internal/maillog.(*Logger).run"))
}
