// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"scache/internal/mailconf"
	"scache/internal/maillog"
	"scache/internal/postfix"
)

// askAnnounce finds out whether clients expect the server to speak first: they do
// so from Postfix 3.6 on. postconf(1), which knows the version of Postfix, is
// outside of the jail, so it is started now. The returned function waits for its
// answer. It may be called much later, when the first client connects.
func askAnnounce(conf *mailconf.Config) (answer func(*maillog.Logger) bool, err error) {
	r := conf.Reader()
	choice := r.Choice("connection_cache_announce_protocol")
	directory := r.String("command_directory")
	if r.Err != nil {
		return nil, r.Err
	}
	if choice != "auto" {
		return func(*maillog.Logger) bool { return choice == "yes" }, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), postconfTimeout)
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(directory, "postconf"), "-dh", "mail_version")
	cmd.Stdout = &out
	failed := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		failed <- err
	} else {
		go func() { failed <- cmd.Wait() }()
	}
	return func(log *maillog.Logger) bool {
		defer cancel()
		var version postfix.Version
		var err error
		timeout := time.NewTimer(answerTimeout)
		defer timeout.Stop()
		select {
		case err = <-failed:
			version = postfix.Version(strings.TrimSpace(out.String()))
		case <-timeout.C: // from the jail, it may be impossible to end the command
			err = fmt.Errorf("%s: no answer within %v", cmd.Path, answerTimeout)
		}
		announced, known := announces(version)
		if !known {
			if err == nil {
				err = fmt.Errorf("%s printed %q", cmd.Path, version)
			}
			log.Warning("the version of Postfix is unknown, and taken for 3.6 or later: %v; "+
				"set connection_cache_announce_protocol to yes, or to no for Postfix before 3.6", err)
		}
		return announced
	}, nil
}

const (
	// answerTimeout is how long a client may wait for the answer. It is less than the client's
	// own timeout, which is 5 seconds.
	answerTimeout = 2 * time.Second

	// postconfTimeout is how long postconf(1) may take, if no client waits.
	postconfTimeout = time.Minute
)

// announces reports whether clients of this version of Postfix expect an announcement, and
// whether the version is known. An unknown version is taken for a recent one.
func announces(version postfix.Version) (announced, known bool) {
	known = version.Known()
	return !known || version.AtLeast(3, 6), known
}
