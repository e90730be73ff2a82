// SPDX-License-Identifier: EPL-2.0

// How a change is interrupted.

package main

import (
	"io"
	"os"
	"syscall"
)

// interruptions are the signals that stop a change. It is rolled back then, or completed.
var interruptions = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}

// An output stops a change when the reader of its messages is gone. SIGPIPE would not do: it
// comes also when a server closes its connection at the reload.
type output struct {
	io.Writer
	stop func()
}

func (o output) Write(p []byte) (n int, err error) {
	n, err = o.Writer.Write(p)
	if err != nil {
		o.stop()
	}
	return n, err
}

// isInterrupted reports whether to stop.
func (s *switcher) isInterrupted() bool {
	select {
	case <-s.interrupted:
		return true
	default:
		return false
	}
}
