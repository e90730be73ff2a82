// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// OurName is the end of the path of this server's binary.
const OurName = "scache-go/scache"

// IsOurs reports whether a command in master.cf runs this server.
func IsOurs(command string) bool {
	return command == OurName || strings.HasSuffix(command, "/"+OurName)
}

// ErrNotEnabled is the error if the entry names another server.
var ErrNotEnabled = errors.New("this server is not enabled")

// An Enabled is an entry that names this server, and the path of its binary.
type Enabled struct {
	Entry Entry
	Path  string
}

// Enabled returns the entry, if it names this server.
func (s *System) Enabled() (Enabled, error) {
	e, err := s.Entry()
	if err != nil {
		return Enabled{}, err
	}
	if !IsOurs(e.Command) {
		return Enabled{Entry: e}, ErrNotEnabled
	}
	path, err := s.CommandPath(e.Command)
	return Enabled{e, path}, err
}

// versionTimeout is how long a binary may take to print its version.
const versionTimeout = time.Second

// Installed returns the path of the binary of this server that the entry names, and its
// version.
func (s *System) Installed() (path, version string, err error) {
	enabled, err := s.Enabled()
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, enabled.Path, "--version")
	cmd.WaitDelay = versionTimeout / 10
	out, err := cmd.Output()
	if err != nil {
		return enabled.Path, "", fmt.Errorf("%s does not run: %w", enabled.Path, err)
	}
	return enabled.Path, strings.TrimPrefix(strings.TrimSpace(string(out)), "scache "), nil
}
