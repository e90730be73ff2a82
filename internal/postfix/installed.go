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

// OurName is how each command ends that is this server.
const OurName = "scache-go/scache"

// IsOurs tells whether a command in master.cf is this server.
func IsOurs(command string) bool {
	return command == OurName || strings.HasSuffix(command, "/"+OurName)
}

// ErrNotEnabled is the error where the entry is another server's.
var ErrNotEnabled = errors.New("this server is not enabled")

// Enabled returns the entry, which names this server, and where its binary is.
func (s *System) Enabled() (e Entry, path string, err error) {
	if e, err = s.Entry(); err != nil {
		return e, "", err
	}
	if !IsOurs(e.Command) {
		return e, "", ErrNotEnabled
	}
	path, err = s.CommandPath(e.Command)
	return e, path, err
}

// versionLimit is how long a binary may take to say its version.
const versionLimit = time.Second

// Installed returns where the binary of this server is that the entry names, and its
// version.
func (s *System) Installed() (path, version string, err error) {
	if _, path, err = s.Enabled(); err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = versionLimit / 10
	out, err := cmd.Output()
	if err != nil {
		return path, "", fmt.Errorf("%s does not run: %w", path, err)
	}
	return path, strings.TrimPrefix(strings.TrimSpace(string(out)), "scache "), nil
}
