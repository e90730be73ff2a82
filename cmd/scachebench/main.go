// SPDX-License-Identifier: EPL-2.0

// Command scachebench shows what a connection cache is worth, with a real
// Postfix mail system.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
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
	d := demo{}
	pflag.StringVar(&d.scache, "scache", "bin/scache", "the `binary` to show")
	pflag.IntVar(&d.messages, "messages", 1000, "the `number` of messages")
	pflag.Parse()
	if pflag.NArg() != 1 || pflag.Arg(0) != "demo" {
		return errors.New("usage: scachebench [options] demo")
	}
	return d.run(ctx)
}
