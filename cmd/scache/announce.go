// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"scache/internal/mailconf"
)

// askAnnounce finds out whether clients expect the server to speak first, as
// they do from Postfix 3.6 on. The program that knows the version of Postfix is
// outside the jail: it is started now, and waited for when the answer is asked
// for.
func askAnnounce(conf *mailconf.Config) (answer func() bool, err error) {
	r := conf.Reader()
	choice := r.Choice("connection_cache_announce_protocol")
	directory := r.String("command_directory")
	if r.Err != nil {
		return nil, r.Err
	}
	if choice != "auto" {
		return func() bool { return choice == "yes" }, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(directory, "postconf"), "-dh", "mail_version")
	cmd.Stdout = &out
	version := make(chan string, 1)
	if err := cmd.Start(); err != nil {
		version <- ""
	} else {
		go func() {
			cmd.Wait()
			version <- out.String()
		}()
	}
	return func() bool {
		defer cancel()
		select {
		case v := <-version:
			return announces(v)
		case <-ctx.Done(): // from the jail, nobody may be able to end the command
			return announces("")
		}
	}, nil
}

// announces tells whether this version of Postfix expects an announcement. An
// unknown version is taken for a recent one.
func announces(version string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return n < 2 || major > 3 || major == 3 && minor >= 6
}
