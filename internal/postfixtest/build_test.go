// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"os"
	"path/filepath"
	"testing"

	"scache/internal/testenv"
)

// TestBuild_linksOnce builds twice, and gets two names of the same file.
func TestBuild_linksOnce(t *testing.T) {
	t.Parallel()
	testenv.SkipShort(t)
	if err := os.MkdirAll("../../bin/test", 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("../../bin/test", "build-") // the file system of the shared binary
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var files []os.FileInfo
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := Build(path, "scache/internal/postfixtest/launcher"); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, info)
	}
	if !os.SameFile(files[0], files[1]) {
		t.Error("the second build has linked another file")
	}
}
