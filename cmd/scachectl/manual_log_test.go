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
	loggers = map[string]bool{
		"Info": true, "Warning": true, "WarningRarely": true, "LogFatal": true, "Debug": true,
	}
	makers = map[string]bool{"errors.New": true, "fmt.Errorf": true}
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
	for _, dir := range []string{
		"../scache", "../../internal/server", "../../internal/master", "../../internal/maillog",
		"../../internal/mailconf",
	} {
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
		if name == "" || !wanted(name) {
			return true
		}
		if line := formatOf(call.Args[0]); line != "%v" {
			found = append(found, line)
		}
		return true
	})
	return found
}

// formatOf returns what an expression prints: strings, joined with "+", and %v for the rest.
func formatOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil {
			return text
		}
	case *ast.BinaryExpr:
		return formatOf(e.X) + formatOf(e.Y)
	}
	return "%v"
}

func TestFormatOf(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		`"a" + ("b: %s; " + hint)`: "a%v", `"a: %s; " + "b" + hint`: "a: %s; b%v", "`a` + f(1)": "a%v",
		"message": "%v",
	} {
		e, err := parser.ParseExpr(source)
		if err != nil {
			t.Fatal(err)
		}
		if got := formatOf(e); got != want {
			t.Errorf("%s: got %q, want %q", source, got, want)
		}
	}
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
