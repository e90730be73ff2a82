// SPDX-License-Identifier: EPL-2.0

package mailsystem

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

// versionLimit is how long a binary may take to say its version.
const versionLimit = 2 * time.Second

// Installed returns where the binary of this server is that the entry names, and its
// version.
func (s *System) Installed() (path, version string, err error) {
	entry, err := s.Entry()
	if err != nil {
		return "", "", err
	}
	if !IsOurs(entry.Command) {
		return "", "", ErrNotEnabled
	}
	if path, err = s.CommandPath(entry.Command); err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = versionLimit / 2
	out, err := cmd.Output()
	if err != nil {
		return path, "", fmt.Errorf("%s does not run: %w", path, err)
	}
	return path, strings.TrimPrefix(strings.TrimSpace(string(out)), "scache "), nil
}
