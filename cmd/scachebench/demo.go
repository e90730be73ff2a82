// SPDX-License-Identifier: EPL-2.0

// The demo: stories of mail, each told by a Postfix mail system of its own with the stock
// connection cache and with this one. What each story is stands in stories.go.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"scache/internal/postfixtest"
)

// A demo runs stories and compares what they show.
type demo struct {
	scache    string // our binary
	scachectl string
	stories   []string // names of those to run; none are all of them

	stock string
	views []view // what scachectl says of our cache, from the last run that it was asked in
}

// Names of the servers in the demo.
const (
	noCache   = "no cache"
	stockName = "stock scache"
	oursName  = "this scache"
)

// A view is a command of scachectl and what it has printed.
type view struct{ command, text string }

func (d *demo) run(ctx context.Context) error {
	chosen, err := d.choose()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("the demo starts Postfix mail systems of its own: run it as root")
	}
	if d.stock, err = postfixtest.Stock(); err != nil {
		return fmt.Errorf("the demo needs Postfix: %w\nhint: on Debian, apt-get install postfix", err)
	}
	begin := time.Now()
	var results []result
	for n, s := range chosen {
		fmt.Printf("%d of %d, %s: %s\n", n+1, len(chosen), s.name, s.title)
		r, err := d.tell(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		results = append(results, r)
	}
	fmt.Printf("\n%s, Postfix %s, %s; %.0f s in all\n\n", time.Now().Format(time.DateOnly),
		output("postconf", "-dh", "mail_version"), output(d.scache, "--version"), time.Since(begin).Seconds())
	printResults(os.Stdout, results)
	for _, v := range d.views {
		fmt.Printf("\n$ scachectl %s\n%s", v.command, v.text)
	}
	fmt.Printf("\nOne story alone: scachebench demo %s\n", strings.Join(storyNames(), " | "))
	return lost(results)
}

// choose returns the stories to run, in their usual order.
func (d *demo) choose() (chosen []*story, err error) {
	for _, name := range d.stories {
		if !slices.Contains(storyNames(), name) {
			return nil, fmt.Errorf("there is no story %q\nhint: the stories are %s", name, strings.Join(storyNames(), ", "))
		}
	}
	for _, s := range stories {
		if len(d.stories) == 0 || slices.Contains(d.stories, s.name) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// A result is what a story has shown with each server, by the server's name. A server that
// cannot take part is missing.
type result struct {
	*story
	outcomes map[string]*outcome
	missing  string // why ours is
}

// tell runs a story with each server.
func (d *demo) tell(ctx context.Context, s *story) (result, error) {
	r := result{story: s, outcomes: map[string]*outcome{}}
	servers := []server{{name: stockName, binary: d.stock}}
	if s.withoutCache {
		servers = slices.Insert(servers, 0, server{name: noCache})
	}
	if s.parameter == "" || knows(ctx, d.scache, s.parameter) {
		servers = append(servers, server{name: oursName, binary: d.scache})
	} else {
		r.missing = "it does not know " + s.parameter
		fmt.Printf("  %-13s does not take part: %s\n", oursName, r.missing)
	}
	for _, server := range servers {
		o, err := d.try(ctx, s, server)
		if err != nil {
			return r, fmt.Errorf("%s: %w", server.name, err)
		}
		r.outcomes[server.name] = o
	}
	return r, nil
}

// try runs a story with one server. A run in which Postfix itself got stuck does not count:
// at a reload, master(8) may wait for room in the log socket, and postlogd(8) for master.
func (d *demo) try(ctx context.Context, s *story, server server) (*outcome, error) {
	const attempts = 3
	for n := 1; ; n++ {
		t := &trial{story: s, server: server, ask: d.ask}
		err := t.run(ctx)
		if err == nil && !t.stuck {
			if t.views != nil {
				d.views = t.views
			}
			return &t.outcome, nil
		}
		if err != nil || n == attempts {
			return nil, errors.Join(err, ctx.Err())
		}
		fmt.Printf("  %-13s Postfix itself got stuck: once more\n", server.name)
	}
}

// ask asks our cache in an instance what an operator would. Commands that this scachectl
// does not have are left out.
func (d *demo) ask(ctx context.Context, i *postfixtest.Instance, commands ...string) (views []view, err error) {
	help, err := exec.CommandContext(ctx, d.scachectl, "help").Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.scachectl, err)
	}
	for _, command := range commands {
		if !strings.Contains(string(help), "\n  "+command+" ") {
			continue
		}
		out, err := exec.CommandContext(ctx, d.scachectl, "-c", filepath.Join(i.Dir, "etc"), command).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("scachectl %s: %w: %s", command, err, out)
		}
		views = append(views, view{command, string(out)})
	}
	return views, nil
}

// knows reports whether our binary reads a parameter: then it refuses a bad value.
func knows(ctx context.Context, scache, parameter string) bool {
	out, _ := exec.CommandContext(ctx, scache, "--check", "-l", "-n", "scache", "-t", "unix",
		"-o", parameter+"={ bad, entry=bad }").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "scache: fatal: ") && strings.Contains(line, parameter) {
			return true
		}
	}
	return false
}

// A progress is a line that says how a run is getting on.
type progress struct {
	prefix   string
	terminal bool
	shown    time.Time
}

func newProgress(server string) *progress {
	fi, err := os.Stdout.Stat()
	return &progress{prefix: fmt.Sprintf("  %-13s ", server), terminal: err == nil && fi.Mode()&os.ModeCharDevice != 0}
}

// show replaces the line. Where that is not possible, it prints one every other second.
func (p *progress) show(text string) {
	switch {
	case p.terminal:
		fmt.Print("\r", p.prefix, text, "\x1b[K")
	case time.Since(p.shown) >= 2*time.Second:
		fmt.Println(p.prefix + text)
	default:
		return
	}
	p.shown = time.Now()
}

// end shows the last text.
func (p *progress) end(text string) {
	if p.terminal {
		fmt.Print("\r")
	}
	fmt.Print(p.prefix, text)
	if p.terminal {
		fmt.Print("\x1b[K")
	}
	fmt.Println()
}
