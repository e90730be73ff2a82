// SPDX-License-Identifier: EPL-2.0

package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// loggers are methods whose first argument is a line for the log, and makers functions
// whose first argument is an error that ends in it.
var (
	loggers = map[string]bool{"Info": true, "Warning": true, "LogFatal": true, "Debug": true}
	makers  = map[string]bool{"errors.New": true, "fmt.Errorf": true}
)

// TestManualPageExplainsEachLogLine extracts the lines from the source of the daemon,
// and the errors that end it, and looks each of them up.
func TestManualPageExplainsEachLogLine(t *testing.T) {
	t.Parallel()
	page := plainPage(t, "../scache/scache-go.8")
	lines := 0
	look := func(dir string, wanted func(call string) bool) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if len(files) == 0 || err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, line := range firstStrings(t, file, wanted) {
				lines++
				if part := tellingPart(line); !internal[part] && !strings.Contains(page, part) {
					t.Errorf("%s: the page does not have %q, of %q", file, part, line)
				}
			}
		}
	}
	for _, dir := range []string{"../scache", "../../internal/server", "../../internal/master", "../../internal/maillog", "../../internal/mailconf"} {
		look(dir, func(call string) bool { return loggers[call[strings.LastIndexByte(call, '.')+1:]] })
	}
	for _, dir := range []string{"../scache", "../../internal/master", "../../internal/receivers"} {
		look(dir, func(call string) bool { return makers[call] })
	}
	if lines < 40 {
		t.Errorf("only %d lines were found", lines)
	}
}

// firstStrings returns the first argument of calls, where it is a string.
func firstStrings(t *testing.T, file string, wanted func(call string) bool) (found []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		name := ""
		if s, ok := call.Fun.(*ast.SelectorExpr); ok {
			name = "." + s.Sel.Name
			if x, ok := s.X.(*ast.Ident); ok {
				name = x.Name + name
			}
		}
		text, ok := call.Args[0].(*ast.BasicLit)
		if !ok || text.Kind != token.STRING || name == "" || !wanted(name) {
			return true
		}
		line, err := strconv.Unquote(text.Value)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, line)
		return true
	})
	return found
}

// verb is where a format is cut: what varies, and what only adds to a line.
var verb = regexp.MustCompile(`%[#.\d]*[a-zA-Z%]|[:;(]`)

// internal are errors that are dealt with, and never logged.
var internal = map[string]bool{}

// tellingPart returns the first part of a format that stands in each line and is long
// enough to tell it from others, or the longest.
func tellingPart(format string) (part string) {
	for _, next := range verb.Split(format, -1) {
		if next = strings.Trim(next, " );\"'.,=\\"); len(next) > len(part) {
			part = next
		}
		if len(part) >= 12 {
			break
		}
	}
	return strings.Join(strings.Fields(part), " ")
}

// plainPage returns the text of a manual page, with single blanks.
func plainPage(t *testing.T, file string) string {
	t.Helper()
	needMandoc(t)
	out, err := exec.Command("mandoc", "-T", "utf8", "-O", "width=1000", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	overstruck := regexp.MustCompile(`.\x08`)
	text := overstruck.ReplaceAllString(string(out), "")
	text = strings.NewReplacer("“", `"`, "”", `"`, "‘", "'", "’", "'").Replace(text)
	return strings.Join(strings.Fields(text), " ")
}
