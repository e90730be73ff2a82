// SPDX-License-Identifier: EPL-2.0

// Command scache is a shared connection cache server for Postfix: a child of
// master(8) in which delivery agents keep open connections for one another.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"scache/internal/handover"
	"scache/internal/mailconf"
	"scache/internal/master"
	"scache/internal/receivers"
	"scache/internal/server"
)

// version is set by the build.
var version = "unknown"

const usage = `scache: a shared connection cache server for Postfix.

master(8) starts scache and gives it the options below, by this master.cf entry:

    scache  unix  -  -  y  -  1  ../../../libexec/scache-go/scache

where the path leads there from Postfix's daemon_directory. Without Postfix,

    scache --listen PATH

serves on a socket of its own until it is told to end. It logs to standard error
and needs neither main.cf nor root. With the options of an entry and

    scache --check

it says all that is wrong with them and main.cf, and serves no client.

`

func main() {
	debug.SetGCPercent(gcPercent)
	p, err := master.Start(os.Args, os.Getenv)
	if p.Options.Mode == master.Checking {
		os.Exit(check(p, err))
	}
	if err == nil {
		switch p.Options.Mode {
		case master.ShowingHelp:
			fmt.Print(usage, p.Options.Usage())
		case master.ShowingVersion:
			fmt.Println("scache", version)
		default:
			defer p.Log.ExitOnPanic()
			err = run(p, server.Alive)
		}
	}
	if err != nil {
		p.Fatal(err)
		os.Exit(1)
	}
}

// parameters are the parameters of main.cf about the cache and its clients.
type parameters struct {
	ttlLimit, updateTime, ipcTimeout, daemonTimeout time.Duration

	goodbye       string
	livenessCheck bool
	sessionLimit  int
	memoryLimit   int64 // of the cache

	receivers       receivers.Rules
	receiverWaiters int
	protocolTimeout time.Duration // of clients
}

func readParameters(conf *mailconf.Config) (parameters, error) {
	r := conf.Reader()
	p := parameters{
		ttlLimit:      r.Time("connection_cache_ttl_limit"),
		updateTime:    r.Time("connection_cache_status_update_time"),
		ipcTimeout:    r.Time("ipc_timeout"),
		daemonTimeout: r.Time("daemon_timeout"),
		goodbye:       r.String("connection_cache_goodbye"),
		livenessCheck: r.Bool("connection_cache_liveness_check"),
		sessionLimit:  r.Int("connection_cache_session_limit"),
		memoryLimit:   int64(r.Int("connection_cache_memory_limit")),

		receiverWaiters: r.Int("connection_cache_receiver_waiters"),
		protocolTimeout: r.Time("connection_cache_protocol_timeout"),
	}
	const name = "connection_cache_receivers"
	rules := r.String(name)
	if r.Err != nil {
		return p, r.Err
	}
	var err error
	if p.receivers, err = receivers.Parse(rules); err != nil {
		err = fmt.Errorf("bad value of parameter %s: %w (set by %s)", name, err, conf.Source(name))
	}
	return p, err
}

// run serves until it is time to end. alive reports whether a cached connection can still be
// used.
func run(p *master.Process, alive func(fd int) bool) error {
	params, err := readParameters(p.Config)
	if err != nil {
		return err
	}
	params.memoryLimit = limitMemory(params.memoryLimit)
	announce, err := askAnnounce(p.Config)
	if err != nil {
		return err
	}
	if err := p.EnterJail(); err != nil {
		return err
	}
	go growFDTable()
	start := time.Now()
	clock := func() time.Duration { return time.Since(start) }
	s, closer := newServer(p, params, start, clock, alive)
	s.Announce = sync.OnceValue(func() bool { return announce(p.Log) })
	var sender *handover.Sender
	if p.Options.Mode == master.UnderMaster {
		s.Restart = func() { p.End(master.Restart) }
		if sender, err = newSender(p, s); err != nil {
			return err
		}
	}
	if err := s.Start(loops(), clock); err != nil {
		return err
	}
	p.Watchdog(params.daemonTimeout, s.Check)
	stopStatistics := s.Statistics(params.updateTime)
	reason, err := serve(p, s, sender)
	s.Cache.Clear()
	closer.Wait(closeTimeout)
	stopStatistics()
	p.Log.Debug("exit: %s", reason)
	p.Log.Flush(flushTimeout)
	return err
}

// serve accepts clients until it is time to end, and returns the reason. If a new process is to
// start, it hands everything over. If there is none, or that fails, it stops the server.
func serve(
	p *master.Process, s *server.Server, sender *handover.Sender,
) (reason master.Reason, err error) {
	reason, err = p.Serve(s.Accept)
	handsOver := reason == master.Reload || reason == master.Restart
	if !handsOver || !handOver(p, s, sender) {
		s.Stop()
	}
	return reason, err
}

// closeTimeout is how long the process waits for connections that are being closed. At
// the end, the kernel closes the rest.
const closeTimeout = 500 * time.Millisecond

// flushTimeout is how long the process waits for the log at the end. No client is served
// meanwhile.
const flushTimeout = 50 * time.Millisecond

// maxLoops bounds the number of event loops. With more, the loops would wait for each
// other at the lock of the cache, and the clients need the other processors.
const maxLoops = 4

// loops returns the number of event loops: one for each processor that this
// process may use, up to maxLoops. It sets GOMAXPROCS one higher, for goroutines outside
// of the loops, which log, close expired connections and receive states.
func loops() int {
	n := min(runtime.GOMAXPROCS(0), maxLoops)
	runtime.GOMAXPROCS(n + 1)
	return n
}
