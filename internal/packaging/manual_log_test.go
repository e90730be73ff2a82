// SPDX-License-Identifier: EPL-2.0

package packaging

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

// TestManual_explainsEachLogLine extracts the lines from the source of the daemon, and the
// errors that end it, and looks each of them up.
func TestManual_explainsEachLogLine(t *testing.T) {
	t.Parallel()
	page := plainPage(t, daemonManual)
	lines := 0
	look := func(file, line string) {
		lines++
		if part := tellingPart(line); !strings.Contains(page, part) {
			t.Errorf("%s: the page does not have %q, of %q", file, part, line)
		}
	}
	logs := []string{"../../cmd/scache", "../server", "../master", "../maillog", "../mailconf"}
	eachCall(t, logs, func(file, name, line string) {
		if loggers[method(name)] {
			look(file, line)
		}
	})
	fail := []string{"../../cmd/scache", "../master", "../receivers"}
	eachCall(t, fail, func(file, name, line string) {
		if makers[name] {
			look(file, line)
		}
	})
	if lines < 40 {
		t.Errorf("only %d lines were found", lines)
	}
}

// eachCall finds the calls, in the source of these directories, whose first argument is a
// string: of methods, and of functions of other packages. It calls f with the file, what is
// called, such as "fmt.Errorf", and the string.
func eachCall(t *testing.T, dirs []string, f func(file, name, first string)) {
	t.Helper()
	for _, dir := range dirs {
		files, err := filepath.Glob(dir + "/*.go")
		if len(files) == 0 || err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) == 0 {
					return true
				}
				name := nameOf(call.Fun)
				if first := formatOf(call.Args[0]); name != "" && first != "%v" {
					f(file, name, first)
				}
				return true
			})
		}
	}
}

// nameOf returns the name of what is called, if it has a dot.
func nameOf(called ast.Expr) string {
	s, ok := called.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if x, ok := s.X.(*ast.Ident); ok {
		return x.Name + "." + s.Sel.Name
	}
	return "." + s.Sel.Name
}

// method returns what stands behind the last dot of a name.
func method(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

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

// cutAt is where a format is cut: what varies, and what only adds to a line.
var cutAt = regexp.MustCompile(`%[#.\d]*[a-zA-Z%]|[:;(]`)

// tellingPart returns the first part of a format that stands in each line and is long
// enough to tell it from others, or the longest.
func tellingPart(format string) (part string) {
	for _, next := range cutAt.Split(format, -1) {
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
	need(t, "mandoc")
	out := run(t, exec.Command("mandoc", "-T", "utf8", "-O", "width=1000", file))
	overstruck := regexp.MustCompile(`.\x08`)
	text := overstruck.ReplaceAllString(out, "")
	text = strings.NewReplacer("“", `"`, "”", `"`, "‘", "'", "’", "'").Replace(text)
	return strings.Join(strings.Fields(text), " ")
}
