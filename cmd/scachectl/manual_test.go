// SPDX-License-Identifier: EPL-2.0

package main

import (
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"scache/internal/mailconf"
)

var manuals = []string{"../scache/scache-go.8", "scachectl.8",
	"../scache_exporter/scache_exporter.8"}

// needMandoc ends a test that cannot run without it. In CI, it must be there.
func needMandoc(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("mandoc"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: this test needs mandoc: %v", err)
	}
}

func TestManualPagesAreWellFormed(t *testing.T) {
	t.Parallel()
	needMandoc(t)
	out, errOut, _ := run(exec.Command("mandoc", append([]string{"-T", "lint"}, manuals...)...))
	for line := range strings.Lines(out + errOut) {
		switch {
		case strings.Contains(line, "referenced manual not found"),
			strings.Contains(line, "outdated mandoc.db"): // up to the machine
		case strings.Contains(line, "input text line longer than 80 bytes"): // one sentence a line
		default:
			t.Error(strings.TrimSpace(line))
		}
	}
}

// sentenceEnd matches the end of a line of text that another one may follow.
var sentenceEnd = regexp.MustCompile(`[.:?!]\)?$`)

// TestManual_oneSentenceALine finds sentences that continue on the next line, and lines with two
// of them. Macros take lines of their own.
func TestManual_oneSentenceALine(t *testing.T) {
	t.Parallel()
	two := regexp.MustCompile(`[a-z0-9)]\. [A-Z]`)
	for _, file := range manuals {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		before, literal := "", false
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case strings.HasPrefix(line, ".Bd -literal"):
				literal = true
			case strings.HasPrefix(line, ".Ed"):
				literal = false
			}
			isText := !literal && line != "" && line[0] != '.' && !strings.Contains(line, "\t")
			if isText && (before != "" && !sentenceEnd.MatchString(before) || two.MatchString(line)) {
				t.Errorf("%s: not one sentence a line: %q", file, line)
			}
			if before = line; !isText {
				before = ""
			}
		}
	}
}

// TestManualPagesAreComplete looks for each parameter, command and option.
func TestManualPagesAreComplete(t *testing.T) {
	t.Parallel()
	text := func(file string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	daemon, ctl := text(manuals[0]), text(manuals[1])
	for _, p := range mailconf.Parameters {
		def := p.Default
		if def == "" {
			def = "empty"
		}
		switch {
		case p.Type == mailconf.ReadOnly:
			mentions(t, manuals[0], daemon, p.Name)
		case p.Name == "myhostname" || p.Name == "syslog_name": // explained in words
			mentions(t, manuals[0], daemon, "Va "+p.Name+" No (")
		default:
			mentions(t, manuals[0], daemon, "Va "+p.Name+" No ("+def+")")
		}
	}
	for _, cmd := range newCommand(io.Discard, io.Discard).Commands() {
		mentions(t, manuals[1], ctl, "Cm "+cmd.Name())
		for _, sub := range append(cmd.Commands(), cmd) {
			sub.LocalFlags().VisitAll(func(f *pflag.Flag) { mentions(t, manuals[1], ctl, "Fl -"+f.Name) })
		}
	}
}

func mentions(t *testing.T, file, manual, text string) {
	t.Helper()
	if !strings.Contains(manual, text) {
		t.Errorf("%s does not mention %q", file, text)
	}
}
