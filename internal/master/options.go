// SPDX-License-Identifier: EPL-2.0

package master

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"scache/internal/mailconf"
)

// A Mode is how a process runs. The options decide it.
type Mode int

const (
	UnderMaster    Mode = iota // as a child of master(8)
	StandAlone                 // -S: serve one client on standard input
	Listening                  // --listen: serve without Postfix, on a socket of its own
	Checking                   // --check: say what is wrong with the configuration
	ShowingHelp                // --help
	ShowingVersion             // --version
)

// Options are the generic options of a Postfix daemon, as master(8) gives them
// from the master.cf entry of the service, and those for use without it.
type Options struct {
	Mode         Mode
	Chroot       bool     // -c
	Debugger     bool     // -D
	MaxIdle      string   // -i
	OneProcess   bool     // -l
	ServiceName  string   // -n
	Overrides    []string // -o
	Sockets      int      // -s
	Transport    string   // -t
	Unprivileged bool     // -u: the user is mail_owner
	Verbose      int      // -v
	Stderr       bool     // -V

	Listen string // --listen: a socket of our own, without Postfix

	usage string
}

// parseOptions reads the command line, without the name of the program. The error
// has all problems; with it, parseOptions returns the options that it could read.
func parseOptions(args []string) (*Options, error) {
	o := &Options{}
	f := pflag.NewFlagSet("scache", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SetInterspersed(false)
	f.SortFlags = false
	f.StringVar(&o.Listen, "listen", "", "serve without Postfix, on a socket at this `path`")
	check := f.Bool("check", false, "say all that is wrong with options and main.cf, and exit")
	help := f.BoolP("help", "h", false, "show this text")
	version := f.Bool("version", false, "show the version")
	f.StringArrayVarP(&o.Overrides, "override", "o", nil, "override a main.cf parameter: `name=value`")
	f.StringVarP(&o.MaxIdle, "max-idle", "i", "", "override max_idle, a `time`")
	f.CountVarP(&o.Verbose, "verbose", "v", "log more; may be repeated")
	f.BoolVarP(&o.Stderr, "stderr", "V", false, "log to standard error, too")
	f.BoolVarP(&o.Chroot, "chroot", "c", false, "chroot to queue_directory")
	f.BoolVarP(&o.Unprivileged, "unprivileged", "u", false, "run as mail_owner")
	f.StringVarP(&o.ServiceName, "name", "n", "", "the `name` of the service")
	f.StringVarP(&o.Transport, "transport", "t", "", "the transport `type` of the service")
	f.IntVarP(&o.Sockets, "sockets", "s", 1, "the `number` of listening sockets")
	f.BoolVarP(&o.OneProcess, "one-process", "l", false, "the process limit of the service is 1")
	standAlone := f.BoolP("stand-alone", "S", false, "serve one client on standard input, and exit")
	f.BoolVarP(&o.Debugger, "debugger", "D", false, "run debugger_command")
	f.BoolP("foreground", "d", false, "no effect")
	f.IntP("max-use", "m", 0, "no effect")
	f.BoolP("no-limit", "z", false, "no effect")
	o.usage = f.FlagUsages()
	err := f.Parse(args)
	switch {
	case *help:
		o.Mode = ShowingHelp
	case *version:
		o.Mode = ShowingVersion
	case o.Listen != "":
		o.Mode = Listening
	case *check:
		o.Mode = Checking
	case *standAlone:
		o.Mode = StandAlone
	}
	if err != nil {
		return o, err
	}
	var problems []error
	if f.NArg() > 0 {
		problems = append(problems, fmt.Errorf("unexpected command-line argument: %s", f.Arg(0)))
	}
	switch o.Mode {
	case ShowingHelp, ShowingVersion, Listening:
		return o, errors.Join(problems...)
	}
	return o, errors.Join(append(problems, o.checkEntry(*standAlone))...)
}

// checkEntry returns what is wrong with the entry in master.cf that the options are of.
func (o *Options) checkEntry(standAlone bool) error {
	var problems []error
	if !standAlone && !o.OneProcess {
		problems = append(problems, errors.New(
			"this service requires a process limit of 1: "+
				"set the maxproc column of its master.cf entry to 1"))
	}
	switch {
	case !standAlone && o.Transport == "":
		problems = append(problems, errors.New(
			"no transport type specified: master(8) gives it with -t; to run without Postfix, use --listen"))
	case !standAlone && o.Transport != "unix":
		problems = append(problems, fmt.Errorf(
			"transport %s cannot pass file descriptors: set the type column of the master.cf entry to unix",
			o.Transport))
	}
	if o.Sockets < 1 {
		problems = append(problems, fmt.Errorf("bad number of sockets: %d", o.Sockets))
	}
	return errors.Join(problems...)
}

// Usage describes the options, a line each.
func (o *Options) Usage() string { return o.usage }

// apply overrides the configuration with the options, and returns all errors in them.
func (o *Options) apply(conf *mailconf.Config) (err error) {
	for _, override := range o.Overrides {
		// In master.cf a setting with white space stands in braces, which
		// some versions of master leave in place.
		override = strings.TrimSpace(override)
		if inner, found := strings.CutPrefix(override, "{"); found && strings.HasSuffix(inner, "}") {
			override = strings.TrimSuffix(inner, "}")
		}
		if wrong := conf.Override(override); wrong != nil {
			err = errors.Join(err, fmt.Errorf("option -o: %w", wrong))
		}
	}
	if o.MaxIdle != "" {
		err = errors.Join(err, conf.Override("max_idle="+o.MaxIdle))
	}
	return err
}
