// SPDX-License-Identifier: EPL-2.0

// Command scachebench compares connection cache servers: as a demo with real Postfix mail
// systems, and as a benchmark without.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"scache/internal/postfixtest"
)

const help = `usage: scachebench [options] demo [STORY...]
       scachebench [options] run
       scachebench [options] picture top | demo

demo sends mail through Postfix mail systems of its own, with the stock connection cache
and with this one. Each story is one kind of mail traffic:
%s
run measures connection cache servers.

picture writes an SVG file to standard output: of scachectl top while mail is sent, or of the
table in the demo's output, which it reads from standard input.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(),
		os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scachebench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	// Parts of the benchmark and of a picture run in separate processes of this binary.
	switch {
	case len(os.Args) == 3 && os.Args[1] == "load":
		return runLoad(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "floor":
		return runFloor()
	case len(os.Args) == 5 && os.Args[1] == "screen":
		return runScreen(ctx, os.Args[2], os.Args[3], os.Args[4])
	}
	d, b := demo{}, bench{}
	pflag.StringVar(&d.scache, "scache", "bin/scache", "the `binary` to show")
	pflag.StringVar(&d.scachectl, "scachectl", "bin/scachectl",
		"demo, picture: the `binary` of scachectl")
	pflag.DurationVar(&d.traffic, "traffic", 25*time.Second,
		"picture: for how long mail is sent before the screen of top is taken; "+
			"sessions last for 20 seconds at most")
	stock := pflag.String("stock", "",
		"run: the `binary` to compare with (default: the one of the installed Postfix)")
	others := pflag.StringToString("other", nil, "run: more binaries to measure, by `name=path`")
	pflag.IntVar(&b.rounds, "rounds", 15, "run: the `number` of rounds")
	pflag.Float64Var(&b.seconds, "seconds", 0.4, "run: the `time` of one measurement")
	pflag.StringVar(&b.only, "only", "",
		"run: scenarios with this `text` in their name, instead of all")
	jsonFile := pflag.String("json", "", "run: write everything to this `file`, too")
	check := pflag.Bool("check", false, "run: print which goals are met, and fail if one is not")
	csvFile := pflag.String("csv", "", "run: write the medians to this `file`, too")
	pflag.Usage = func() {
		fmt.Fprintf(os.Stderr, help, describeStories())
		fmt.Fprint(os.Stderr, pflag.CommandLine.FlagUsages())
	}
	pflag.Parse()
	switch {
	case pflag.Arg(0) == "demo":
		d.stories = pflag.Args()[1:]
		return d.run(ctx)
	case pflag.Arg(0) == "picture" && pflag.NArg() == 2:
		return d.picture(ctx, pflag.Arg(1))
	case pflag.Arg(0) == "run" && pflag.NArg() == 1:
		if err := b.choose(*stock, d.scache, *others); err != nil {
			return err
		}
		r, err := b.run(ctx)
		if err != nil {
			return err
		}
		r.printTable(os.Stdout)
		if err := errors.Join(write(*jsonFile, r.writeJSON), write(*csvFile, r.writeCSV)); err != nil {
			return err
		}
		if *check {
			return r.check(os.Stdout)
		}
		return nil
	}
	pflag.Usage()
	return errors.New("missing command: demo, run or picture")
}

// choose sets the servers to measure.
func (b *bench) choose(stock, ours string, others map[string]string) (err error) {
	if b.rounds < 1 || b.seconds <= 0 {
		return errors.New("options --rounds and --seconds: want positive numbers")
	}
	if stock == "" {
		if stock, err = postfixtest.Stock(); err != nil {
			return fmt.Errorf("no stock scache: %w"+
				"\nhint: on Debian, apt-get install postfix; or use --stock", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.servers = []server{
		{name: "stock", binary: stock},
		{name: oursServer, binary: ours},
		{name: "floor", binary: self, args: []string{"floor"}},
		{name: limitsServer, binary: ours, settings: receiverLimits},
	}
	for name, binary := range others {
		b.servers = append(b.servers, server{name: name, binary: binary, other: true})
	}
	for i, c := range b.servers {
		if _, err := os.Stat(c.binary); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		// The server has another working directory.
		if b.servers[i].binary, err = filepath.Abs(c.binary); err != nil {
			return err
		}
	}
	return nil
}

// write writes a file, unless its name is empty.
func write(name string, to func(io.Writer) error) error {
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(to(f), f.Close())
}
