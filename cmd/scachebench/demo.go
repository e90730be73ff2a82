// SPDX-License-Identifier: EPL-2.0

// The demo: stories of mail traffic. For each of them and each connection cache, it starts a
// Postfix mail system and sends the same mail. The stories are in stories.go.

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
	stories   []string      // names of those to run; none are all of them
	traffic   time.Duration // before a picture

	stock string
	views []view // of our cache
}

// Names of the servers in the demo.
const (
	noCache   = "no cache"
	stockName = "stock scache"
	oursName  = "this scache"
)

// A view is the output of a command of scachectl after a story.
type view struct{ command, story, text string }

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
	fmt.Printf("\n%s, Postfix %s, %s; %.0f s in all\n\n",
		time.Now().Format(time.DateOnly), output("postconf", "-dh", "mail_version"),
		output(d.scache, "--version"), time.Since(begin).Seconds())
	printResults(os.Stdout, results)
	for _, v := range d.views {
		fmt.Printf("\n$ scachectl %s    # after the story %s\n%s", v.command, v.story, v.text)
	}
	fmt.Printf("\nOne story alone: %s demo %s\n", os.Args[0], strings.Join(storyNames(), " | "))
	return lost(results)
}

// choose returns the stories to run, in their usual order.
func (d *demo) choose() (chosen []*story, err error) {
	for _, name := range d.stories {
		if !slices.Contains(storyNames(), name) {
			return nil, fmt.Errorf("unknown story %q\nhint: the stories are %s",
				name, strings.Join(storyNames(), ", "))
		}
	}
	for _, s := range stories {
		if len(d.stories) == 0 || slices.Contains(d.stories, s.name) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// A result has the outcomes of a story.
type result struct {
	*story
	outcomes map[string]*outcome // by the name of the server
	missing  string              // why ours has none
}

// tell runs a story with each server in turn.
func (d *demo) tell(ctx context.Context, s *story) (result, error) {
	r := result{story: s, outcomes: map[string]*outcome{}}
	servers := []server{{name: stockName, binary: d.stock}}
	if s.withoutCache {
		servers = slices.Insert(servers, 0, server{name: noCache})
	}
	takesPart := s.parameter == ""
	if !takesPart {
		var err error
		if takesPart, err = knows(ctx, d.scache, s.parameter); err != nil {
			return r, err
		}
	}
	if takesPart {
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

// try runs a story with one server.
func (d *demo) try(ctx context.Context, s *story, server server) (*outcome, error) {
	t := &trial{story: s, server: server, ask: d.ask}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	d.record(s, t.views)
	return &t.outcome, nil
}

// record keeps the views of the last run of each command.
func (d *demo) record(s *story, views []view) {
	for _, v := range views {
		v.story = s.name
		same := func(old view) bool { return old.command == v.command }
		d.views = append(slices.DeleteFunc(d.views, same), v)
	}
}

// ask runs commands of scachectl for an instance. Commands that this scachectl does not have
// are skipped.
func (d *demo) ask(
	ctx context.Context, i *postfixtest.Instance, commands ...string,
) ([]view, error) {
	var views []view
	help, err := exec.CommandContext(ctx, d.scachectl, "help").Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.scachectl, err)
	}
	for _, command := range commands {
		if !strings.Contains(string(help), "\n  "+command+" ") {
			continue
		}
		config := filepath.Join(i.Dir, "etc")
		out, err := exec.CommandContext(ctx, d.scachectl, "-c", config, command).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("scachectl %s: %w: %s", command, err, out)
		}
		views = append(views, view{command: command, text: string(out)})
	}
	return views, nil
}

// knows reports whether our binary has a parameter. If so, it refuses a bad value. Postfix of
// this machine need not be configured.
func knows(ctx context.Context, scache, parameter string) (bool, error) {
	dir, err := os.MkdirTemp("", "scachebench-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.cf"), nil, 0o644); err != nil {
		return false, err
	}
	cmd := exec.CommandContext(ctx, scache, "--check", "-l", "-n", "scache", "-t", "unix",
		"-o", parameter+"={ bad, entry=bad }")
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+dir)
	out, _ := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "scache: fatal: ") && strings.Contains(line, parameter) {
			return true, nil
		}
	}
	return false, nil
}

// A progress is a line on the terminal about a run.
type progress struct {
	prefix   string
	terminal bool
	shown    time.Time
}

func newProgress(server string) *progress {
	fi, err := os.Stdout.Stat()
	return &progress{
		prefix:   fmt.Sprintf("  %-13s ", server),
		terminal: err == nil && fi.Mode()&os.ModeCharDevice != 0,
	}
}

// show replaces the line. Where the output is not a terminal, it prints a new line every
// other second.
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

// end shows the last text of a run.
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
