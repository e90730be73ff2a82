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

// countSystemCalls runs one more round with the server under strace(1). Where that is not
// installed, it does nothing.
func (p *process) countSystemCalls(ctx context.Context, s scenario) error {
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
	cmd := exec.CommandContext(ctx, strace, "-c", "-f", "-qq", "-o", summary,
		"-p", strconv.Itoa(p.Cmd.Process.Pid))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	defer cmd.Process.Kill()
	if err := p.waitForTracer(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	s.Seconds = 0.3
	s.Idle = 0 // strace would count their connects
	result, err := p.drive(ctx, s)
	if err != nil {
		return err
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait() // ends by that signal
	calls, err := totalCalls(summary)
	p.row.SystemCalls = float64(calls) / float64(result.Completed)
	return err
}

// waitForTracer waits until all threads of the server are traced.
func (p *process) waitForTracer() error {
	pattern := fmt.Sprintf("/proc/%d/task/*/status", p.Cmd.Process.Pid)
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
	return fmt.Errorf("strace does not trace process %d", p.Cmd.Process.Pid)
}

// totalCalls returns the total in the table that strace has written.
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
