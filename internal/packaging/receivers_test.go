// SPDX-License-Identifier: EPL-2.0

package packaging

import (
	"os"
	"strings"
	"testing"

	"scache/internal/receivers"
)

// TestReceivers_examples parses the value that consists of all examples.
func TestReceivers_examples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("receivers/receivers.cf")
	if err != nil {
		t.Fatal(err)
	}
	var value []string
	for line := range strings.Lines(string(text)) {
		if entry, found := strings.CutPrefix(line, "#     "); found {
			value = append(value, entry)
		}
	}
	rules, err := receivers.Parse(strings.Join(value, " "))
	if err != nil || len(rules) != 5 {
		t.Errorf("got %v, %v, want 5 entries", rules, err)
	}
}
