// SPDX-License-Identifier: EPL-2.0

package postfix

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"scache/internal/fdpass"
)

// probeTimeout is how long a trial may take, from the first process to the last.
const probeTimeout = 10 * time.Second

// A Trial is a connection to a server that Probe has started.
type Trial struct {
	Conn *net.UnixConn
	PID  int
}

// Probe runs a binary of this server as master(8) would run it with this entry and main.cf, but
// on a separate socket. First the server checks its configuration. Then it runs once for each of
// uses, which is called as the client of that process. Each process hands over to the next one,
// as at "postfix reload". Probe changes nothing in the system. The log lines of the server have
// the usual tag with "/trial" in it.
func (s *System) Probe(server string, e Entry, uses ...func(Trial) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	args := s.DaemonArguments(e)
	check := s.server(ctx, server, append([]string{"--check"}, args...))
	if out, err := check.CombinedOutput(); err != nil {
		return explainProbe(string(out), err)
	}
	m, err := newTrialMaster()
	if err != nil {
		return err
	}
	defer m.listener.Close()
	// What is saved must live until the next process has it.
	args = append(args, "-V", "-o", "syslog_name="+s.trialTag(), "-o", "connection_cache_ttl_limit=1h",
		"-o", "connection_cache_receivers=")
	for _, use := range uses {
		p, err := m.start(s.server(ctx, server, args))
		if err != nil {
			return err
		}
		if err := m.serve(ctx, p, use); err != nil {
			p.stop()
			return p.explain(err)
		}
		// As after a reload of master(8), the process hands over, and ends. The last state is
		// lost with the listening socket. A signal would require CAP_KILL.
		p.status.Close()
		if err := p.wait(); err != nil {
			return p.explain(err)
		}
	}
	return nil
}

// trialTag is the syslog_name of a trial.
func (s *System) trialTag() string {
	name := "postfix"
	if conf, err := s.ServerConfig(); err == nil {
		if set, err := conf.String("syslog_name"); err == nil {
			name = set
		}
	}
	return name + "/trial"
}

// A trialMaster plays master(8) for the processes of a trial.
type trialMaster struct {
	listener *os.File
	address  *net.UnixAddr
}

// newTrialMaster listens on an abstract socket: a process in a chroot jail can connect to it,
// too.
func newTrialMaster() (*trialMaster, error) {
	name := fmt.Sprintf("@scache-trial-%d-%d", os.Getpid(), time.Now().UnixNano())
	address := &net.UnixAddr{Net: "unix", Name: name}
	l, err := net.ListenUnix("unix", address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	f, err := l.File()
	return &trialMaster{f, address}, err
}

// A trialProcess is a process of a trial.
type trialProcess struct {
	cmd    *exec.Cmd
	status *os.File      // our end of the status channel
	logged lockedBuffer  // its standard error
	ended  chan struct{} // closed when err is set
	err    error
}

func (m *trialMaster) start(cmd *exec.Cmd) (*trialProcess, error) {
	pair, err := fdpass.Pair()
	if err != nil {
		return nil, err
	}
	p := &trialProcess{
		cmd: cmd, status: os.NewFile(uintptr(pair[0]), "status channel"), ended: make(chan struct{}),
	}
	other := os.NewFile(uintptr(pair[1]), "status channel")
	defer other.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	cmd.Args[0] = "scache"
	cmd.Env = append(cmd.Env, "GENERATION=1")
	cmd.Stderr = &p.logged
	cmd.ExtraFiles = []*os.File{null, null, other, m.listener}
	if err := cmd.Start(); err != nil {
		p.status.Close()
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// A clientError is an error of the client of a trial.
type clientError struct{ error }

func (e clientError) Unwrap() error { return e.error }

// serve calls use as the client of a process, and returns when it has ended.
func (m *trialMaster) serve(ctx context.Context, p *trialProcess, use func(Trial) error) error {
	conn, err := net.DialUnix("unix", nil, m.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	conn.SetDeadline(end)
	used := make(chan error, 1)
	go func() { used <- use(Trial{conn, p.cmd.Process.Pid}) }()
	select {
	case err = <-used:
	case <-p.ended:
		conn.SetDeadline(time.Unix(1, 0))
		if err = <-used; p.err != nil {
			return p.err
		}
	}
	if err != nil {
		return clientError{err}
	}
	return nil
}

// stopTimeout is how long a process may take to end by itself when its client has failed. It logs
// its warnings then.
const stopTimeout = time.Second

// stop ends a process.
func (p *trialProcess) stop() {
	p.status.Close()
	select {
	case <-p.ended:
		return
	case <-time.After(stopTimeout):
	}
	if p.cmd.Process.Kill() == nil {
		p.wait()
	}
}

// wait waits until a process has ended, and returns its error.
func (p *trialProcess) wait() error {
	defer p.status.Close()
	select {
	case <-p.ended: // it is killed after probeTimeout
		return p.err
	case <-time.After(probeTimeout + probeTimeout/2): // it was not killed: that requires CAP_KILL
		return fmt.Errorf("process %d does not end, and cannot be killed", p.cmd.Process.Pid)
	}
}

// explain adds the lines that a process has logged to its error, or to its client's.
func (p *trialProcess) explain(err error) error {
	logged := p.logged.String()
	failed, ok := errors.AsType[clientError](err)
	if !ok || len(linesWith("fatal: ", logged)) > 0 {
		return explainProbe(logged, err)
	}
	err = fmt.Errorf("the server does not answer in a trial run: %w", failed.error)
	if warnings := linesWith("warning: ", logged); len(warnings) > 0 {
		err = fmt.Errorf("%w\nThe server has logged: %s", err, strings.Join(warnings, "\n"))
	}
	return err
}

// A lockedBuffer is a buffer that is written to and read at the same time.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// server returns a command with the environment that master(8) would give to it.
func (s *System) server(ctx context.Context, path string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "MAIL_") || strings.HasPrefix(s, "POSTLOG_") ||
			strings.HasPrefix(s, "GENERATION=")
	}), "MAIL_CONFIG="+s.Directory, "MAIL_LOGTAG="+s.trialTag())
	cmd.WaitDelay = time.Second
	return cmd
}

// explainProbe returns the fatal errors that a server has logged, or else err with the output.
func explainProbe(logged string, err error) error {
	if all := linesWith("fatal: ", logged); len(all) > 0 {
		return errors.New(strings.Join(all, "\n"))
	}
	return fmt.Errorf("the server does not run: %w: %.500s", err, strings.TrimSpace(logged))
}

// linesWith returns the rest of each line behind a word.
func linesWith(word, logged string) (all []string) {
	for line := range strings.Lines(logged) {
		if _, text, found := strings.Cut(line, word); found {
			all = append(all, strings.TrimSpace(text))
		}
	}
	return all
}
