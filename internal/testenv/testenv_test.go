// SPDX-License-Identifier: EPL-2.0

package testenv

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// TestWriteProgram_besideChildren writes programs and executes them, many at the same time.
func TestWriteProgram_besideChildren(t *testing.T) {
	SkipShort(t)
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for n := range 20 {
				path := filepath.Join(dir, fmt.Sprint(i, "-", n))
				if err := WriteProgram(path, "#!/bin/sh\n"); err != nil {
					t.Error(err)
				} else if err := exec.Command(path).Run(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
