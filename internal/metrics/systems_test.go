// SPDX-License-Identifier: EPL-2.0

package metrics

import (
	"os"
	"path/filepath"
	"testing"
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
