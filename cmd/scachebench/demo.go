// SPDX-License-Identifier: EPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"scache/internal/postfixtest"
)

// A demo sends the same mail through a Postfix of its own three times: without
// a connection cache, with the stock one, and with ours.
type demo struct {
	scache    string
	scachectl string
	messages  int
}

// A setup is one of the three ways.
type setup struct {
	name   string
	binary string // of the connection cache, or none
}

// A result is a row of the table.
type result struct {
	setup
	delivered, connections int
	seconds                float64
	hits, misses           int
	complaints             []string // warnings of scache, and worse
	status                 string   // what scachectl says of ours
}

func (d *demo) run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("the demo starts a Postfix mail system of its own, which takes root: please run it as root")
	}
	stock, err := postfixtest.Stock()
	if err != nil {
		return fmt.Errorf("the demo needs Postfix: %w (on Debian: apt-get install postfix)", err)
	}
	var results []result
	for _, s := range []setup{{"no cache", ""}, {"stock scache", stock}, {"this scache", d.scache}} {
		r, err := d.measure(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		results = append(results, r)
	}
	d.printTable(results)
	fmt.Printf("\nRight after the last message:\n\n%s", results[len(results)-1].status)
	return d.verdict(results)
}

// measure sends all messages through a new mail system, waits until they are
// delivered, and stops it.
func (d *demo) measure(ctx context.Context, s setup) (r result, err error) {
	sink, err := postfixtest.StartSink()
	if err != nil {
		return r, err
	}
	defer sink.Close()
	instance, err := postfixtest.NewInstance(d.config(s, sink))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, instance.Close()) }()
	if err := instance.Start(); err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	stopProgress := d.showProgress(s.name, sink)
	start := time.Now()
	err = instance.Send(ctx, d.messages, 10, "recipient@example.test")
	if err == nil {
		err = instance.WaitEmpty(ctx)
	}
	seconds := time.Since(start).Seconds()
	stopProgress()
	if err != nil {
		return r, err
	}
	r = result{setup: s, seconds: seconds}
	if s.binary == d.scache {
		if r.status, err = d.status(ctx, instance); err != nil {
			return r, err
		}
	}
	if s.binary != "" {
		if err := logStatistics(ctx, instance); err != nil {
			return r, err
		}
	}
	r.delivered, r.connections = instance.Sent()
	r.hits, r.misses = lookups(instance)
	r.complaints = complaints(instance)
	return r, nil
}

// status returns what our cache says of itself, and of whom it has served.
func (d *demo) status(ctx context.Context, i *postfixtest.Instance) (text string, err error) {
	for _, command := range []string{"status", "hits"} {
		out, err := exec.CommandContext(ctx, d.scachectl, "-c", filepath.Join(i.Dir, "etc"), command).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("scachectl %s: %w: %s", command, err, out)
		}
		text += fmt.Sprintf("$ scachectl %s\n%s\n", command, out)
	}
	return text, nil
}

func (d *demo) config(s setup, sink *postfixtest.Sink) postfixtest.Config {
	c := postfixtest.Config{
		Scache: s.binary,
		Chroot: "y",
		Main: map[string]string{
			"relayhost":                       fmt.Sprintf("[127.0.0.1]:%d", sink.Port),
			"smtp_connection_cache_on_demand": "no",
		},
	}
	if s.binary != "" {
		c.Main["smtp_connection_cache_destinations"] = "127.0.0.1" // without brackets and port
	}
	return c
}

// showProgress prints how many messages have arrived, until it is stopped.
func (d *demo) showProgress(name string, sink *postfixtest.Sink) (stop func()) {
	lineEnd := "\r"
	if fi, err := os.Stdout.Stat(); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		lineEnd = "\n" // not a terminal
	}
	show := func(lineEnd string) {
		fmt.Printf("%-14s %d of %d messages have arrived%s", name, sink.Messages(), d.messages, lineEnd)
	}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			show(lineEnd)
			select {
			case <-tick.C:
			case <-done:
				show("\n")
				return
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

// logStatistics makes the cache log its statistics, as it does at a reload.
func logStatistics(ctx context.Context, i *postfixtest.Instance) error {
	if err := i.Command("reload"); err != nil {
		return err
	}
	for len(i.Grep("scache[", "statistics: max simultaneous")) == 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cache has not logged its statistics: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

var lookupLine = regexp.MustCompile(`statistics: (?:domain|address) lookup hits=(\d+) miss=(\d+)`)

func lookups(i *postfixtest.Instance) (hits, misses int) {
	for _, line := range i.Grep("scache[") {
		if m := lookupLine.FindStringSubmatch(line); m != nil {
			h, _ := strconv.Atoi(m[1])
			n, _ := strconv.Atoi(m[2])
			hits, misses = hits+h, misses+n
		}
	}
	return hits, misses
}

func complaints(i *postfixtest.Instance) (lines []string) {
	for _, word := range []string{"warning: ", "error: ", "fatal: ", "panic: "} {
		lines = append(lines, i.Grep("scache[", "]: "+word)...)
	}
	return lines
}

func (d *demo) printTable(results []result) {
	version, _ := exec.Command("postconf", "-dh", "mail_version").Output()
	ours, _ := exec.Command(d.scache, "--version").Output()
	fmt.Printf("\n%s, Postfix %s, %s: %d messages over 10 connections\n\n",
		time.Now().Format(time.DateOnly), strings.TrimSpace(string(version)), strings.TrimSpace(string(ours)), d.messages)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tdelivered\tseconds\tSMTP connections\tmessages per connection\tcache hits\tmisses\t")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%d\t%.1f\t%d\t%d\t\n", r.name, r.delivered, r.seconds, r.connections,
			float64(r.delivered)/float64(max(r.connections, 1)), r.hits, r.misses)
	}
	w.Flush()
}

// verdict is an error if a message was lost, or if our cache had anything to
// complain about.
func (d *demo) verdict(results []result) error {
	for _, r := range results {
		if r.delivered != d.messages {
			return fmt.Errorf("%s: %d messages were sent, and %d delivered", r.name, d.messages, r.delivered)
		}
	}
	if ours := results[len(results)-1]; len(ours.complaints) > 0 {
		return fmt.Errorf("%s has logged warnings:\n%s", ours.name, strings.Join(ours.complaints, "\n"))
	}
	return nil
}
