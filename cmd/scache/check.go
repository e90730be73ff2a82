// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"scache/internal/master"
)

// check prints all errors in the options and main.cf, including err, and returns the
// exit code.
func check(p *master.Process, err error) int {
	for _, warning := range p.Config.Warnings() {
		fmt.Fprintf(os.Stderr, "scache: warning: %s\n", warning)
	}
	if _, missing := errors.AsType[*os.PathError](err); !missing {
		_, bad := readParameters(p.Config)
		err = errors.Join(err, bad, p.Check())
	}
	if err == nil {
		fmt.Println("scache: configuration OK")
		return 0
	}
	lines := strings.Split(err.Error(), "\n")
	slices.Sort(lines)
	for _, line := range slices.Compact(lines) {
		fmt.Fprintf(os.Stderr, "scache: fatal: %s\n", line)
	}
	return 1
}
