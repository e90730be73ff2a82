// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// countSystemCalls runs one more round, with the server under strace. Without
// strace, nothing is counted.
func (c *process) countSystemCalls(ctx context.Context, s scenario) error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil
	}
	dir, err := os.MkdirTemp("", "scachebench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	summary := filepath.Join(dir, "summary")
	cmd := exec.CommandContext(ctx, strace, "-c", "-f", "-qq", "-o", summary, "-p", strconv.Itoa(c.Cmd.Process.Pid))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Process.Kill()
	if err := c.waitForTracer(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	s.Seconds = 0.3
	s.Idle = 0 // their connecting would be counted
	result, err := c.drive(ctx, s)
	if err != nil {
		return err
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait() // ends by that signal
	calls, err := totalCalls(summary)
	c.row.SystemCalls = float64(calls) / float64(result.Completed)
	return err
}

// waitForTracer waits until all threads of the server are traced.
func (c *process) waitForTracer() error {
	pattern := fmt.Sprintf("/proc/%d/task/*/status", c.Cmd.Process.Pid)
	for range 500 {
		files, _ := filepath.Glob(pattern)
		traced := 0
		for _, file := range files {
			if pid, err := statusValue(file, "TracerPid"); err == nil && pid != 0 {
				traced++
			}
		}
		if traced == len(files) && traced > 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("strace does not trace process %d", c.Cmd.Process.Pid)
}

// totalCalls reads the last line of the table that strace prints.
func totalCalls(summary string) (int, error) {
	text, err := os.ReadFile(summary)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 5 && f[len(f)-1] == "total" {
			return strconv.Atoi(f[3])
		}
	}
	return 0, fmt.Errorf("strace has printed no total: %q", text)
}
