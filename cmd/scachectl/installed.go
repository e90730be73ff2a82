// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"scache/internal/mailsystem"
	"scache/internal/operator"
)

// installed is the binary that Postfix would start now.
type installed struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Running bool   `json:"running"` // it is the one that runs
}

var errNotEnabled = errors.New("this server is not enabled")

// findInstalled returns the binary that the entry names, beside the server that runs.
func findInstalled(system *mailsystem.System, s operator.Status) (i installed, err error) {
	entry, err := system.Entry()
	if err != nil {
		return i, err
	}
	if !isOurs(entry.Command) {
		return i, errNotEnabled
	}
	if i.Path, err = system.CommandPath(entry.Command); err != nil {
		return i, err
	}
	out, err := exec.Command(i.Path, "--version").Output()
	if err != nil {
		return i, fmt.Errorf("%s does not run: %w", i.Path, err)
	}
	i.Version = strings.TrimPrefix(strings.TrimSpace(string(out)), "scache ")
	i.Running = i.Version == s.Version
	file, err := os.Stat(i.Path)
	running, errRunning := os.Stat(fmt.Sprintf("/proc/%d/exe", s.PID)) // only root may
	if err == nil && errRunning == nil {
		i.Running = os.SameFile(file, running)
	}
	return i, nil
}
