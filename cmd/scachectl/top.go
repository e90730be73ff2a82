// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/operator"
)

func newTopCommand(c *control) *cobra.Command {
	cmd := terse("top", "Watch the server", func(*cobra.Command) error {
		t, err := openTerminal()
		if err != nil {
			return err
		}
		defer t.close()
		return c.watch(t)
	})
	cmd.Long = `top shows status and contents of the cache, and what happened in each second. It
ends with q.`
	return cmd
}

// A terminal is the user's, for a while without echo and without lines.
type terminal struct {
	saved   unix.Termios
	keys    chan byte
	signals chan os.Signal
}

func openTerminal() (*terminal, error) {
	saved, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	if _, notATerminal := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err != nil || notATerminal != nil {
		return nil, errors.New("top wants a terminal; for a script there are status and list, with --json")
	}
	t := &terminal{saved: *saved, keys: make(chan byte), signals: make(chan os.Signal, 1)}
	signal.Notify(t.signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	raw := *saved
	raw.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG
	if err := unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, &raw); err != nil {
		return nil, os.NewSyscallError("ioctl TCSETS", err)
	}
	os.Stdout.WriteString("\x1b[?1049h\x1b[?25l") // another screen, no cursor
	go t.readKeys()
	return t, nil
}

func (t *terminal) readKeys() {
	defer close(t.keys)
	for key := make([]byte, 1); ; {
		if n, err := os.Stdin.Read(key); n == 0 || err != nil {
			return
		}
		t.keys <- key[0]
	}
}

func (t *terminal) close() {
	os.Stdout.WriteString("\x1b[?25h\x1b[?1049l")
	unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, &t.saved)
}

// size returns columns and rows.
func (t *terminal) size() (width, height int) {
	ws, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// show replaces what is on the screen.
func (t *terminal) show(lines []string) {
	width, height := t.size()
	var b bytes.Buffer
	b.WriteString("\x1b[H")
	for i, line := range lines[:min(len(lines), height)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		if runes := []rune(line); len(runes) > width {
			line = string(runes[:width])
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	os.Stdout.Write(b.Bytes())
}

// A view is what top shows at one moment.
type view struct {
	at     time.Time
	status operator.Status
	contents
	err error
}

// isQuit tells whether a key ends top: q, and what would send a signal or stop
// the process, with the terminal left as it is.
func isQuit(key byte) bool { return key != 0 && strings.IndexByte("qQ\x03\x1a\x1c", key) >= 0 }

// watch shows a view every second until the user wants no more. A server that
// cannot be reached for a moment, as at a reload, is asked again.
func (c *control) watch(t *terminal) error {
	views := make(chan view, 1)
	look := func() { views <- c.look() }
	go look()
	var wait <-chan time.Time
	var last, now view
	for {
		select {
		case next := <-views:
			switch {
			case errors.Is(next.err, client.ErrStock):
				return next.err
			case next.err != nil:
				t.show([]string{"scachectl top: waiting for the server", "", next.err.Error(), "", "q quits"})
			default:
				last, now = now, next
				_, height := t.size()
				t.show(now.lines(last, height))
			}
			wait = time.After(time.Second)
		case <-wait:
			wait = nil // until there is an answer
			go look()
		case key, open := <-t.keys:
			if !open || isQuit(key) {
				return nil
			}
		case <-t.signals:
			return nil
		}
	}
}

func (c *control) look() (v view) {
	v.err = c.ask(func(cl *client.Client) (err error) {
		if v.status, err = cl.Status(); err != nil {
			return err
		}
		v.at = time.Now()
		v.Bindings, v.Sessions, err = cl.List()
		return err
	})
	return v
}

// lines returns what fits on a screen of this height.
func (v view) lines(last view, height int) []string {
	s, was := v.status, last.status
	if was.PID != s.PID {
		was, last.at = operator.Status{}, v.at.Add(-time.Duration(s.Uptime)) // since it was started
	}
	seconds := max(v.at.Sub(last.at).Seconds(), 0.001)
	rate := func(now, before int64) string { return fmt.Sprintf("%.0f/s", float64(now-before)/seconds) }
	hits, wasHits := s.DestinationHits+s.EndpointHits, was.DestinationHits+was.EndpointHits
	misses, wasMisses := s.DestinationMisses+s.EndpointMisses, was.DestinationMisses+was.EndpointMisses
	lines := []string{
		fmt.Sprintf("scache %s  pid %d  up %v  %s  q quits", s.Version, s.PID, round(s.Uptime), v.at.Format(time.TimeOnly)),
		"",
		fmt.Sprintf("sessions %6d   peak %6d   limit %6d   clients %6d", s.Sessions, s.PeakSessions, s.SessionLimit, s.Clients),
		fmt.Sprintf("endpoints %5d   peak %6d   destinations %5d   peak %6d", s.Endpoints, s.PeakEndpoints, s.Destinations, s.PeakDestinations),
		fmt.Sprintf("hits %10s   misses %8s   hit rate %4s   saves %8s", rate(hits, wasHits), rate(misses, wasMisses),
			percent(hits-wasHits, hits-wasHits+misses-wasMisses), rate(s.Saved, was.Saved)),
		fmt.Sprintf("expired %7s   dead %10s   evicted %8s   flushed %8s", rate(s.Expired, was.Expired), rate(s.Dead, was.Dead),
			rate(s.Evicted, was.Evicted), rate(s.Flushed, was.Flushed)),
		"",
		fmt.Sprintf("%8s %7s %7s  %s", "SESSIONS", "AGE", "LEFT", "ENDPOINT"),
	}
	for _, e := range arrange(v.endpoints(), "sessions", 0, keyOfEndpoint) {
		if len(lines) == height {
			break
		}
		lines = append(lines, fmt.Sprintf("%8d %7v %7v  %s", e.sessions, round(e.age), round(e.left), strings.TrimSpace(escape(e.label)+"  "+e.remote)))
	}
	return lines
}
