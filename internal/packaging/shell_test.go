// SPDX-License-Identifier: EPL-2.0

package packaging

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestShell_passesShellcheck finds the scripts by their first line.
func TestShell_passesShellcheck(t *testing.T) {
	t.Parallel()
	need(t, "shellcheck")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var scripts []string
	for _, dir := range []string{root + "/.ci", root + "/internal/packaging"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text := readFile(t, path)
			if strings.HasPrefix(text, "#!/bin/sh") || strings.HasPrefix(text, "#!/usr/bin/env bash") ||
				strings.Contains(text, "\n# shellcheck shell=") {
				relative, err := filepath.Rel(root, path)
				scripts = append(scripts, relative)
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(scripts) < 15 {
		t.Fatalf("found %d scripts only: %q", len(scripts), scripts)
	}
	cmd := exec.Command("shellcheck", append([]string{"-x"}, scripts...)...)
	cmd.Dir = root // which paths of "source" directives are relative to
	run(t, cmd)
}
