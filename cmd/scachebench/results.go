// SPDX-License-Identifier: EPL-2.0

// The table at the end of the demo, and the verdict on each story.

package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// A measure is a row of a story's part of the table.
type measure struct {
	text   string
	format string
	value  func(*outcome) float64
	more   bool    // is better
	noise  float64 // a difference that means nothing
	lesson string  // for the verdict, where ours is better
}

var (
	delivered = measure{
		text: "messages delivered", format: "%.0f", more: true, lesson: "more messages delivered",
		value: func(o *outcome) float64 { return float64(o.delivered) },
	}
	deferred = measure{
		text: "messages deferred, 5 minutes or more", format: "%.0f",
		lesson: "fewer messages deferred",
		value:  func(o *outcome) float64 { return float64(o.deferred) },
	}
	refused = measure{
		text: "connections refused by the receiver", format: "%.0f",
		lesson: "fewer connections refused",
		value:  func(o *outcome) float64 { return float64(o.refused) },
	}
	seconds = measure{
		text: "seconds", format: "%.1f", noise: 0.5, lesson: "faster",
		value: func(o *outcome) float64 { return o.seconds },
	}
	connections = measure{
		text: "SMTP connections", format: "%.0f", noise: 10, lesson: "fewer connections",
		value: func(o *outcome) float64 { return float64(o.connections) },
	}
	problems = measure{
		text: "delivery agents with a cache problem", format: "%.0f", lesson: "no trouble in the log",
		value: func(o *outcome) float64 { return float64(o.problems) },
	}
	slowest = measure{
		text: "slowest delivery, seconds", format: "%.1f", noise: 0.5, lesson: "no message is held up",
		value: func(o *outcome) float64 { return o.slowest },
	}
	dead = measure{
		text: "dead connections given to an agent", format: "%.0f", lesson: "no dead connections",
		value: func(o *outcome) float64 { return float64(o.dead) },
	}
	warnings = measure{
		text: "warnings in the log", format: "%.0f", lesson: "fewer warnings",
		value: func(o *outcome) float64 { return float64(o.warnings) },
	}
	handshakes = measure{
		text: "TLS handshakes", format: "%.0f", noise: 10, lesson: "fewer handshakes",
		value: func(o *outcome) float64 { return float64(o.handshakes) },
	}
)

// noiseShare is how much two values differ by chance, as a share of the larger one.
const noiseShare = 0.3

// compare returns 1 if ours is better than stock, -1 if it is worse, and 0 where the
// difference may be chance.
func (m measure) compare(ours, stock *outcome) int {
	a, b := m.value(ours), m.value(stock)
	if math.Abs(a-b) <= max(m.noise, noiseShare*max(a, b)) {
		return 0
	}
	if (a > b) == m.more {
		return 1
	}
	return -1
}

// printResults prints the table.
func printResults(w io.Writer, results []result) {
	names := []string{noCache, stockName, oursName}
	fmt.Fprintf(w, "%-40s", "")
	for _, name := range names {
		fmt.Fprintf(w, "%13s", name)
	}
	fmt.Fprintln(w)
	for _, r := range results {
		fmt.Fprintf(w, "%s: %s\n", r.name, r.title)
		for _, m := range r.measures {
			fmt.Fprintf(w, "  %-38s", m.text)
			for _, name := range names {
				text := "-"
				if o := r.outcomes[name]; o != nil {
					text = fmt.Sprintf(m.format, m.value(o))
					if o.cut > 0 && m.text == seconds.text {
						text = "cut at " + text
					}
				}
				fmt.Fprintf(w, "%13s", text)
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "  → %s\n", r.verdict())
	}
}

// verdict says in which rows ours is better, and in which it is worse.
func (r result) verdict() string {
	ours, stock := r.outcomes[oursName], r.outcomes[stockName]
	if ours == nil {
		return "this scache did not take part: " + r.missing
	}
	var better, worse []string
	for _, m := range r.measures {
		switch m.compare(ours, stock) {
		case 1:
			better = append(better, m.lesson)
		case -1:
			worse = append(worse, m.text)
		}
	}
	text := "no advantage over the stock scache: it does as well here"
	if len(better) > 0 {
		text = "this scache: " + strings.Join(better, ", ")
	}
	if len(worse) > 0 {
		text += "; the stock one is better in " + strings.Join(worse, ", ")
	}
	if none := r.outcomes[noCache]; none != nil && seconds.compare(ours, none) == 1 {
		text += fmt.Sprintf("; either is %.1f times as fast as none", none.seconds/ours.seconds)
	}
	return text
}

// lost returns an error if messages were lost, or if our cache has logged a warning.
func lost(results []result) (err error) {
	for _, r := range results {
		for name, o := range r.outcomes {
			if o.cut == 0 && o.delivered != r.messages {
				err = errors.Join(err, fmt.Errorf("%s, %s: %d messages were sent, and %d delivered",
					r.name, name, r.messages, o.delivered))
			}
		}
		if ours := r.outcomes[oursName]; ours != nil && len(ours.complaints) > 0 {
			err = errors.Join(err, fmt.Errorf("%s: %s has logged warnings:\n%s",
				r.name, oursName, strings.Join(ours.complaints, "\n")))
		}
	}
	return err
}
