// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"os"

	"scache/internal/control"
	"scache/internal/postfix"
)

// installed is the binary that Postfix would start now.
type installed struct {
	Path    string `json:"path" help:"Its path."`
	Version string `json:"version" help:"Its version."`
	Running bool   `json:"running" help:"Whether it is the one that runs."`
}

// findInstalled returns the binary that the entry names, beside the server that runs.
func findInstalled(system *postfix.System, s control.Status) (i installed, err error) {
	if i.Path, i.Version, err = system.Installed(); err != nil {
		return i, err
	}
	i.Running = i.Version == s.Version
	file, err := os.Stat(i.Path)
	running, errRunning := os.Stat(fmt.Sprintf("/proc/%d/exe", s.PID)) // only root may do that
	if err == nil && errRunning == nil {
		i.Running = os.SameFile(file, running)
	}
	return i, nil
}
