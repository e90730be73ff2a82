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
	"time"

	"golang.org/x/sys/unix"
)

// tryLimit is how long a server may take to look at its configuration, or to serve.
const tryLimit = 10 * time.Second

// Try has a server of ours look at its configuration, as the entry and main.cf have
// it, and then serve one client with that, on a socket of its own: use is that
// client. Nothing of the system is changed.
func (s *System) Try(server string, e Entry, use func(*net.UnixConn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), tryLimit)
	defer cancel()
	args := s.DaemonArguments(e)
	check := s.server(ctx, server, append([]string{"--check"}, args...))
	if out, err := check.CombinedOutput(); err != nil {
		return explainTry(string(out), err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	own, other := os.NewFile(uintptr(pair[0]), "trial"), os.NewFile(uintptr(pair[1]), "trial")
	defer own.Close()
	defer other.Close()
	trial := s.server(ctx, server, append([]string{"-S"}, args...))
	trial.Stdin = other
	var out strings.Builder
	trial.Stderr = &out
	if err := trial.Start(); err != nil {
		return err
	}
	other.Close()
	conn, err := net.FileConn(own)
	if err != nil {
		return err
	}
	own.Close()
	conn.SetDeadline(time.Now().Add(tryLimit))
	useErr := use(conn.(*net.UnixConn))
	conn.Close() // which ends it
	if err := trial.Wait(); err != nil {
		return explainTry(out.String(), err)
	}
	if useErr != nil {
		return fmt.Errorf("the server does not answer in a trial run: %w", useErr)
	}
	return nil
}

// server is a command with the environment that master(8) would give.
func (s *System) server(ctx context.Context, path string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "MAIL_") || strings.HasPrefix(s, "POSTLOG_")
	}), "MAIL_CONFIG="+s.Directory)
	cmd.WaitDelay = time.Second
	return cmd
}

// explainTry makes an error of what a server has said.
func explainTry(said string, err error) error {
	var problems []string
	for line := range strings.Lines(said) {
		if _, problem, found := strings.Cut(line, "fatal: "); found {
			problems = append(problems, strings.TrimSpace(problem))
		}
	}
	if len(problems) == 0 {
		return fmt.Errorf("the server does not run: %w: %.500s", err, strings.TrimSpace(said))
	}
	return errors.New(strings.Join(problems, "\n"))
}
