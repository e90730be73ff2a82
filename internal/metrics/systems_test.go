// SPDX-License-Identifier: EPL-2.0

package metrics

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"scache/internal/postfix"
)

// TestNoTwoInstancesHaveOneName although their directories have, and one is given twice.
func TestNoTwoInstancesHaveOneName(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	var directories []string
	for name, main := range map[string]string{"a/postfix": "", "b/postfix": "", "c/postfix": "multi_instance_name = own"} {
		dir := filepath.Join(top, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "main.cf"), []byte(main+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		directories = append(directories, dir, dir+"/")
	}
	got := map[string]int{}
	for _, s := range Systems(directories) {
		got[s.Instance]++
	}
	if len(got) != 3 || got["own"] != 1 || got[top+"/a/postfix"] != 1 || got[top+"/b/postfix"] != 1 {
		t.Errorf("%v", got)
	}
}

// TestTheInstalledBinaryIsTold of ours only, and also if it does not run: there is an alert
// for that.
func TestTheInstalledBinaryIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, test := range []struct{ command, binary, want string }{
		{"scache", "", ""},
		{"", "", ""},
		{"x/" + postfix.OurName, "", "unknown"},
		{"x/" + postfix.OurName, "#!/bin/sh\nexit 1\n", "unknown"},
		{"x/" + postfix.OurName, "#!/bin/sh\necho scache 7\n", "7"},
	} {
		os.MkdirAll(filepath.Join(dir, "x", filepath.Dir(postfix.OurName)), 0o755)
		binary := filepath.Join(dir, "x", postfix.OurName)
		os.Remove(binary)
		entry := ""
		if test.command != "" {
			entry = "scache unix - - n - 1 " + test.command + "\n"
		}
		err := errors.Join(os.WriteFile(filepath.Join(dir, "master.cf"), []byte(entry), 0o644),
			os.WriteFile(filepath.Join(dir, "main.cf"), []byte("daemon_directory = "+dir+"\n"), 0o644))
		if test.binary != "" {
			err = errors.Join(err, os.WriteFile(binary, []byte(test.binary), 0o755))
		}
		if err != nil {
			t.Fatal(err)
		}
		if version := Systems([]string{dir})[0].Installed(); version != test.want {
			t.Errorf("%d: version %q, want %q", i, version, test.want)
		}
	}
}
