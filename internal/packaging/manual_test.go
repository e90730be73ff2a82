// SPDX-License-Identifier: EPL-2.0

package packaging

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"scache/internal/mailconf"
)

// daemonManual is the page of the server. Tests of the commands compare the other pages with what
// those print and take.
const daemonManual = "../../cmd/scache/scache-go.8"

var manuals = []string{
	daemonManual, "../../cmd/scachectl/scachectl.8", "../../cmd/scache_exporter/scache_exporter.8",
}

func TestManual_passesLint(t *testing.T) {
	t.Parallel()
	need(t, "mandoc")
	lint := exec.Command("mandoc", append([]string{"-T", "lint"}, manuals...)...)
	var out, errOut strings.Builder
	lint.Stdout, lint.Stderr = &out, &errOut
	lint.Run() // its exit code is not 0 for remarks that do not matter, either
	for line := range strings.Lines(out.String() + errOut.String()) {
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
		before, literal := "", false
		for line := range strings.Lines(readFile(t, file)) {
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

// TestManual_hasParameters looks for each parameter of the server and its default.
func TestManual_hasParameters(t *testing.T) {
	t.Parallel()
	page := readFile(t, daemonManual)
	for _, p := range mailconf.Parameters {
		def := p.Default
		if def == "" {
			def = "empty"
		}
		want := "Va " + p.Name + " No (" + def + ")"
		switch {
		case p.Type == mailconf.ReadOnly:
			want = p.Name
		case p.Name == "myhostname" || p.Name == "syslog_name": // explained in words
			want = "Va " + p.Name + " No ("
		}
		if !strings.Contains(page, want) {
			t.Errorf("%s does not mention %q", daemonManual, want)
		}
	}
}
