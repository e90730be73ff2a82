// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
)

// A Sink is smtp-sink(1): it receives mail, counts it and discards it.
type Sink struct {
	Address string
	Port    int

	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer
}

// StartSink starts a sink on a free port of 127.0.0.1, with more options of smtp-sink.
func StartSink(options ...string) (*Sink, error) {
	return StartSinkOn("127.0.0.1", options...)
}

// StartSinkOn starts a sink on another loopback address.
func StartSinkOn(host string, options ...string) (*Sink, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	return StartSinkAt(host, port, options...)
}

// StartSinkAt starts a sink on this port. It is an error if another process listens on it:
// mail must not get there.
func StartSinkAt(host string, port int, options ...string) (*Sink, error) {
	s := &Sink{Address: host + ":" + strconv.Itoa(port), Port: port}
	if err := CheckFree(s.Address); err != nil {
		return nil, err
	}
	args := append([]string{"-u", "postfix", "-c"}, options...)
	s.cmd = Command("smtp-sink", append(args, s.Address, "1000")...)
	s.cmd.Stdout, s.cmd.Stderr = s, s
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := waitFor(s.Address); err != nil {
		s.Close()
		return nil, fmt.Errorf("smtp-sink: %w: %s", err, s.out.String())
	}
	return s, nil
}

// Write receives the output of smtp-sink: its counters, after each change.
func (s *Sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out.Len() > 1<<16 { // only the last ones count
		s.out.Next(s.out.Len() - 1<<10)
	}
	return s.out.Write(p)
}

var counter = regexp.MustCompile(`mesg=(\d+)`)

// Messages returns the number of messages so far. The sink also counts
// connections, but not before they end.
func (s *Sink) Messages() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := counter.FindAllSubmatch(s.out.Bytes(), -1)
	if len(all) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(string(all[len(all)-1][1]))
	return n
}

// Close ends the sink.
func (s *Sink) Close() error {
	s.cmd.Process.Kill()
	return s.cmd.Wait()
}
