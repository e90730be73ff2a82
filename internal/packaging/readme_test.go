// SPDX-License-Identifier: EPL-2.0

package packaging

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestREADME_imports compares the table of packages in internal/README.md with the tree: the
// packages, and what each of them imports beside the standard library.
func TestREADME_imports(t *testing.T) {
	t.Parallel()
	row := regexp.MustCompile("(?m)^\\| (`.*?) \\| .* \\| (.*) \\|$")
	name := regexp.MustCompile("`([^`]+)`")
	note := regexp.MustCompile(` \(.*?\)`)
	described := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(readFile(t, "../README.md"), -1) {
		allowed := strings.Split(note.ReplaceAllString(m[2], ""), ", ")
		var imported []string
		for _, p := range name.FindAllStringSubmatch(m[1], -1) {
			described[p[1]] = true
			if strings.HasPrefix(p[1], "internal/") || p[1] == "attr" {
				imported = append(imported, importsOf(t, "../../"+p[1])...)
			}
		}
		for _, each := range imported {
			if !slices.Contains(allowed, each) {
				t.Errorf("%s imports %s, which the table does not say", m[1], each)
			}
		}
		for _, each := range allowed {
			known := each == "standard library" || each == "–" || each == "all" || each == ""
			if !known && !slices.Contains(imported, each) {
				t.Errorf("%s does not import %s, which the table says", m[1], each)
			}
		}
	}
	for _, pattern := range []string{"../../attr", "../../internal/*", "../../cmd/*"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			if files, _ := filepath.Glob(dir + "/*.go"); len(files) == 0 {
				continue
			}
			if path := strings.TrimPrefix(dir, "../../"); !described[path] {
				t.Errorf("the table does not have %s", path)
			}
		}
	}
}

// importsOf returns what a package imports beside the standard library, by the short names of
// the table. Its tests do not count.
func importsOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if len(files) == 0 || err != nil {
		t.Fatalf("%s: no files of Go: %v", dir, err)
	}
	prefix := regexp.MustCompile(`^(scache/internal|scache|golang\.org|go\.uber\.org)/`)
	hosted := regexp.MustCompile(`^github\.com/[^/]+/([^/]+).*`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			if !strings.Contains(path, ".") && !strings.HasPrefix(path, "scache/") {
				continue // of the standard library
			}
			path = hosted.ReplaceAllString(path, "$1")
			names = append(names, prefix.ReplaceAllString(path, ""))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
