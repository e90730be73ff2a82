// SPDX-License-Identifier: EPL-2.0

// Pictures for the documents: the screen of "scachectl top", and the table of the demo.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"scache/internal/postfixtest"
)

// picture writes a picture to standard output: of "scachectl top" while mail is sent, or of
// the table in the demo's output, which it reads from standard input.
func (d *demo) picture(ctx context.Context, of string) error {
	switch of {
	case "top":
		screen, err := d.topScreen(ctx)
		if err != nil {
			return err
		}
		return writeSVG(os.Stdout, "scachectl top", parseTerminal(screen))
	case "demo":
		output, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		table, err := demoTable(string(output))
		if err != nil {
			return err
		}
		return writeSVG(os.Stdout, "make demo", parseTerminal(table))
	}
	return fmt.Errorf("unknown picture %q\nhint: pictures are demo, top", of)
}

// wide is the longest line in a picture of the demo.
const wide = 92

var storyLine = regexp.MustCompile(`^[a-z]+: `)

// demoTable returns the table in the output of the demo, with colours.
func demoTable(output string) (string, error) {
	_, table, found := strings.Cut(output, " s in all\n\n")
	table, _, ended := strings.Cut(table, "\n\n")
	if !found || !ended {
		return "", errors.New("there is no table in standard input\n" +
			"hint: it is the output of scachebench demo")
	}
	var b strings.Builder
	for line := range strings.Lines(table + "\n") {
		line = strings.TrimRight(line, "\n")
		colour := ""
		switch {
		case b.Len() == 0: // the heading
			colour = "\x1b[36m"
		case storyLine.MatchString(line):
			b.WriteString("\n")
			colour = "\x1b[1m"
		case strings.HasPrefix(line, "  → this scache: "):
			colour = "\x1b[32m"
		case strings.HasPrefix(line, "  → "):
			colour = "\x1b[2m"
		}
		for _, part := range wrap(line) {
			fmt.Fprintf(&b, "%s%s\x1b[0m\n", colour, part)
		}
	}
	return b.String(), nil
}

// wrap breaks a line that is too wide at spaces.
func wrap(line string) (parts []string) {
	for len([]rune(line)) > wide {
		head := string([]rune(line)[:wide+1])
		end := strings.LastIndex(head, " ")
		if strings.TrimSpace(head[:max(end, 0)]) == "" {
			break
		}
		parts, line = append(parts, head[:end]), "    "+line[end+1:]
	}
	return append(parts, line)
}

// topScreen returns the screen of "scachectl top", from a process with a network of its own:
// addresses and ports there are free, and may be those that examples use.
func (d *demo) topScreen(ctx context.Context) (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("the picture shows a Postfix mail system of its own: run it as root")
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, self, "screen", d.scache, d.scachectl, d.traffic.String())
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("mail system in a network namespace: %w", err)
	}
	return out.String(), nil
}

// networks are for use in documents (RFC 5737).
var networks = []string{"192.0.2.1/24", "198.51.100.1/24", "203.0.113.1/24"}

// A neighbour is a receiver, with the domains that it receives mail for.
type neighbour struct {
	address string
	domains []string
	config  postfixtest.ReceiverConfig

	burst int           // messages at once to each domain
	pause time.Duration // between two bursts
}

var neighbours = []neighbour{
	{"192.0.2.10", []string{"example.com"}, far(30), 12, 700 * time.Millisecond},
	{"192.0.2.25", []string{"example.net"}, far(80), 9, time.Second},
	{"192.0.2.44", []string{"example.org"}, far(45), 7, time.Second},
	{"198.51.100.7", []string{"bakery.example", "choir.example", "museum.example"}, far(60),
		2, time.Second},
	{"198.51.100.31", []string{"hospital.example"}, far(20), 4, time.Second},
	{"198.51.100.80", []string{"school.example"}, far(35), 5, 1500 * time.Millisecond},
	{"203.0.113.5", []string{"library.example", "archive.example"}, far(50),
		2, 1500 * time.Millisecond},
	{"203.0.113.18", []string{"city.example"}, far(25), 3, 2 * time.Second},
	{"203.0.113.77", []string{"printer.example"}, far(70), 2, 3 * time.Second},
	{"203.0.113.90", []string{"garden.example"},
		postfixtest.ReceiverConfig{IdleLimit: 1500 * time.Millisecond}, 2, 2 * time.Second},
	{"203.0.113.101", []string{"station.example"}, far(15), 1, 4 * time.Second},
	{"203.0.113.140", []string{"theatre.example"}, far(40), 1, 9 * time.Second},
}

// far is the configuration of a receiver with this round trip, in milliseconds.
func far(milliseconds time.Duration) postfixtest.ReceiverConfig {
	return postfixtest.ReceiverConfig{
		RoundTrip: milliseconds * time.Millisecond, MessageTime: 30 * time.Millisecond,
	}
}

// runScreen starts a mail system and its neighbours, sends mail, and prints the screen of
// "scachectl top" after some time, with colours.
func runScreen(ctx context.Context, scache, scachectl, traffic string) (err error) {
	after, err := time.ParseDuration(traffic)
	if err != nil {
		return err
	}
	if err := setUpNetwork(ctx); err != nil {
		return err
	}
	hosts := map[string][]string{}
	for _, n := range neighbours {
		n.config.Hosts, n.config.Port = []string{n.address}, 25
		r, err := postfixtest.StartReceiver(n.config)
		if err != nil {
			return err
		}
		defer r.Close()
		for _, domain := range n.domains {
			hosts[domain] = []string{n.address}
		}
	}
	instance, err := postfixtest.NewInstance(postfixtest.Config{
		Scache: scache, Chroot: "y", Hosts: hosts,
		Main: map[string]string{
			"smtp_dns_support_level":             "disabled",
			"smtp_connection_cache_destinations": "static:all",
			"smtp_connection_cache_time_limit":   "20s",
			"connection_cache_ttl_limit":         "20s",
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, instance.Close()) }()
	if err := instance.Start(); err != nil {
		return err
	}
	return showTop(ctx, instance, scachectl, after)
}

func setUpNetwork(ctx context.Context) error {
	commands := [][]string{{"ip", "link", "set", "lo", "up"}}
	for _, network := range networks {
		commands = append(commands, []string{"ip", "address", "add", network, "dev", "lo"})
	}
	for _, command := range commands {
		out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
		}
	}
	return nil
}

// showTop sends mail, and prints what "scachectl top" shows after this time.
func showTop(ctx context.Context, i *postfixtest.Instance, scachectl string,
	after time.Duration) (err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	for _, n := range neighbours {
		for _, domain := range n.domains {
			go func() { stop(n.send(ctx, i, domain)) }()
		}
	}
	tmux := func(args ...string) (string, error) {
		return tmux(filepath.Join(i.Dir, "tmux"), args...)
	}
	rows := 8 + len(neighbours)
	if _, err := tmux("new-session", "-d", "-x", "80", "-y", fmt.Sprint(rows),
		scachectl, "-c", filepath.Join(i.Dir, "etc"), "top"); err != nil {
		return err
	}
	running := true
	defer func() {
		if running {
			_, kill := tmux("kill-server")
			err = errors.Join(err, kill)
		}
	}()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(after); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if _, err := tmux("has-session"); err != nil {
			running = false
			return fmt.Errorf("scachectl top has ended: %w", err)
		}
	}
	screen, err := tmux("capture-pane", "-e", "-N", "-p")
	if err != nil {
		return err
	}
	if !strings.Contains(screen, "SESSIONS") {
		return fmt.Errorf("scachectl top shows no sessions: %s", screen)
	}
	_, err = fmt.Print(screen)
	return err
}

// tmux runs a command of tmux, with the server at this socket.
func tmux(socket string, args ...string) (string, error) {
	cmd := exec.Command("tmux", append([]string{"-S", socket, "-f", "/dev/null"}, args...)...)
	cmd.Env = append(os.Environ(), "TERM=xterm", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("tmux %s: %w: %s", args[0], err, out)
	}
	return string(out), nil
}

// send sends bursts of messages to a domain until the time is over.
func (n neighbour) send(ctx context.Context, i *postfixtest.Instance, domain string) error {
	for {
		if err := i.Send(ctx, n.burst, 1, "recipient@"+domain); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(n.pause):
		}
	}
}
