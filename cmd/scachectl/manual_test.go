// SPDX-License-Identifier: EPL-2.0

package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// TestManual_hasCommandsAndOptions looks for each of them in the manual page. Its form is tested
// with that of the other pages in internal/packaging.
func TestManual_hasCommandsAndOptions(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("scachectl.8")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, cmd := range newCommand(io.Discard, io.Discard).Commands() {
		mentions(t, page, "Cm "+cmd.Name())
		for _, sub := range append(cmd.Commands(), cmd) {
			sub.LocalFlags().VisitAll(func(f *pflag.Flag) { mentions(t, page, "Fl -"+f.Name) })
		}
	}
}

// mentions fails the test if a part of scachectl.8 does not have a text.
func mentions(t *testing.T, page, text string) {
	t.Helper()
	if !strings.Contains(page, text) {
		t.Errorf("scachectl.8 does not mention %q", text)
	}
}
