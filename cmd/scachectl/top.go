// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"scache/internal/client"
)

// Bounds of the interval.
const (
	minInterval = 250 * time.Millisecond
	maxInterval = time.Minute
)

func newTopCommand(c *site) *cobra.Command {
	w := watcher{site: c, order: "sessions", interval: time.Second}
	batch := 0
	cmd := withoutArgs("top", "Watch the server", func(cmd *cobra.Command) error {
		if w.interval < minInterval || w.interval > maxInterval {
			return usageError{fmt.Errorf("--interval %v: want %v to %v", w.interval, minInterval,
				maxInterval)}
		}
		if cmd.Flags().Changed("batch") {
			return w.print(cmd.OutOrStdout(), batch)
		}
		return w.watch()
	})
	cmd.Long = `top shows status and contents of the cache, and rates since the last snapshot.

Keys: q quits, s sorts by the next order, h shows the destinations with the most misses
or the endpoints, r the receivers with limits or the endpoints, l whole or short labels,
+ and - change the interval, and any other key takes a snapshot at once.`
	cmd.Flags().IntVar(&batch, "batch", 0,
		"print `n` snapshots without a terminal, and exit; the first has the rates since counting began")
	cmd.Flags().DurationVar(&w.interval, "interval", w.interval, "the `time` between two snapshots")
	addOrder(cmd, &w.order, "sort by label, sessions, age or left, the highest first")
	w.addLabels(cmd)
	return cmd
}

// A watcher takes snapshots of a server.
type watcher struct {
	site *site
	naming
	order     order
	kind      tableKind
	interval  time.Duration
	last, now view
}

// update keeps a snapshot, and the status of the one before.
func (w *watcher) update(next view) {
	w.last, w.now = view{at: w.now.at, status: w.now.status}, next
}

// batchRows bounds the rows of a printed view.
const batchRows = 20

// print prints views, with the interval between them.
func (w *watcher) print(out io.Writer, views int) error {
	for i := range views {
		if i > 0 {
			time.Sleep(w.interval)
			fmt.Fprintln(out)
		}
		next := w.site.look()
		if next.err != nil {
			return next.err
		}
		w.update(next)
		for _, line := range w.lines(batchRows) {
			if _, err := fmt.Fprintln(out, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// watch shows a view after each interval until the user quits. A server that cannot be
// reached for a moment, as at a reload, is asked again; it is an error if it does not
// answer at first.
func (w *watcher) watch() error {
	if !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stdout.Fd())) {
		return hintError(errors.New("top needs a terminal"), "a script uses --batch")
	}
	first := w.site.look()
	if first.err != nil {
		return first.err
	}
	screen, err := tcell.NewScreen()
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return fmt.Errorf("top cannot use this terminal: %w", err)
	}
	defer screen.Fini()
	return w.run(screen, first)
}

// run is watch on a screen.
func (w *watcher) run(screen tcell.Screen, first view) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	events, quit := make(chan tcell.Event), make(chan struct{})
	defer close(quit)
	go screen.ChannelEvents(events, quit)
	views := make(chan view, 1)
	views <- first
	var wait <-chan time.Time
	look := func() {
		if wait != nil { // no snapshot is being taken
			wait = nil
			go func() { views <- w.site.look() }()
		}
	}
	for {
		select {
		case next := <-views:
			if errors.Is(next.err, client.ErrStock) {
				return next.err
			}
			if next.err == nil {
				w.update(next)
			}
			w.show(screen, next.err)
			wait = time.After(w.interval)
		case <-wait:
			look()
		case event, open := <-events:
			switch event := event.(type) {
			case *tcell.EventKey:
				if w.press(event) {
					return nil
				}
				look()
			case *tcell.EventResize:
				screen.Sync()
				w.show(screen, nil)
			}
			if !open {
				return nil
			}
		case <-signals:
			return nil
		}
	}
}

// press does what a key is for, and reports whether it is to quit.
func (w *watcher) press(key *tcell.EventKey) (quit bool) {
	switch key.Key() {
	case tcell.KeyCtrlC, tcell.KeyCtrlZ, tcell.KeyCtrlBackslash, tcell.KeyEscape:
		return true
	}
	switch key.Rune() {
	case 'q', 'Q':
		return true
	case 's':
		w.order = w.order.next()
	case 'h':
		w.toggle(ofMisses)
	case 'r':
		w.toggle(ofReceivers)
	case 'l':
		w.whole = !w.whole
	case '+':
		w.interval = min(w.interval*2, maxInterval)
	case '-':
		w.interval = max(w.interval/2, minInterval)
	}
	return false
}

// toggle changes to a table, or back to the endpoints.
func (w *watcher) toggle(kind tableKind) {
	if w.kind == kind {
		kind = ofEndpoints
	}
	w.kind = kind
}

// show draws the screen.
func (w *watcher) show(screen tcell.Screen, err error) {
	_, height := screen.Size()
	lines := []line{
		{{warning, "scachectl top: waiting for the server"}}, {},
		{{plain, fmt.Sprint(err)}}, {}, w.keys(),
	}
	if err == nil {
		lines = w.lines(height - headerLines)
		lines[1] = w.keys()
	}
	screen.Clear()
	for y, line := range lines {
		line.draw(screen, y)
	}
	screen.Show()
}

// keys returns the line that says what keys are for.
func (w *watcher) keys() line {
	return line{
		{number, "q"}, {plain, " quits, "}, {number, "s"}, {plain, " sorts: " + w.order.String() + ", "},
		{number, "h"}, {plain, " misses, "}, {number, "r"}, {plain, " receivers, "},
		{number, "l"}, {plain, " labels, "},
		{number, "+ -"}, {plain, fmt.Sprintf(" every %v", w.interval)},
	}
}
