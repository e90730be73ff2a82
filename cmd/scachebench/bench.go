// SPDX-License-Identifier: EPL-2.0

// The benchmark: servers under a test master each, driven in turn by the same
// clients.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"scache/internal/client"
	"scache/internal/postfixtest"
)

// A server is one that takes part.
type server struct {
	name, binary string
	args         []string // instead of those of master(8)
	other        bool     // it need not have a cache: it takes no part in deliveries
}

// A scenario is a load on a server with so many sessions in its cache.
type scenario struct {
	name   string
	cached int
	load
}

const longTTL = 3600

// scenarios are all of the benchmark.
func scenarios() (all []scenario) {
	for _, n := range []int{1, 8, 64, 512} {
		all = append(all, scenario{fmt.Sprintf("pair, %d client%s", n, plural(n)), 0, load{Workload: "pair", Clients: n, TTL: longTTL}})
	}
	for _, n := range []int{1000, 5000, 10_000, maxCached} {
		all = append(all, scenario{fmt.Sprintf("pair, 8 clients, %d cached", n), n, load{Workload: "pair", Clients: 8, TTL: longTTL}})
	}
	return append(all,
		scenario{"miss, 1 client", 0, load{Workload: "miss", Clients: 1}},
		scenario{"miss, 64 clients", 0, load{Workload: "miss", Clients: 64}},
		scenario{"delivery, 1 client", 0, load{Workload: "delivery", Clients: 1, TTL: 1}},
		scenario{"delivery, 64 clients", 0, load{Workload: "delivery", Clients: 64, TTL: 1}},
		scenario{"pair, 64 clients, 2000 idle", 0, load{Workload: "pair", Clients: 64, Idle: 2000, TTL: longTTL}},
	)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// maxCached is as many as fit into a process with 20,000 descriptors.
const maxCached = 18_000

// A bench runs the scenarios.
type bench struct {
	servers []server // the first one is what the others are compared with
	rounds  int
	seconds float64 // of one measurement
	only    string  // scenarios with this in their name, if not empty
}

// run measures every server in every scenario once in each round, so that
// whatever the machine does meanwhile meets all of them.
func (b *bench) run(ctx context.Context) (*report, error) {
	if err := allowFiles(); err != nil {
		return nil, err
	}
	r := newReport(b)
	if err := b.measureStartUp(r); err != nil {
		return nil, err
	}
	if strings.Contains("reload", b.only) {
		if err := b.measureOutages(r); err != nil {
			return nil, err
		}
	}
	if strings.Contains("delays", b.only) {
		if err := b.measureDelays(ctx, r); err != nil {
			return nil, err
		}
	}
	var events []*event
	defer func() {
		for _, e := range events {
			e.close()
		}
	}()
	for _, s := range scenarios() {
		if !strings.Contains(s.name, b.only) {
			continue
		}
		s.Seconds = b.seconds
		e := &event{scenario: s}
		events = append(events, e)
		if err := e.prepare(b.servers); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintln(os.Stderr, "ready:", s.name)
	}
	if len(events)+len(r.Outages)+len(r.Delays) == 0 {
		return nil, fmt.Errorf("no scenario has %q in its name", b.only)
	}
	for round := range b.rounds {
		for _, e := range events {
			if err := e.measure(ctx, round); err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d is done\n", round+1, b.rounds)
	}
	for _, e := range events {
		e.finish(ctx)
		for _, c := range e.processes {
			r.Rows = append(r.Rows, c.row)
		}
	}
	return r, nil
}

// allowFiles lets this process and its children have as many open files as the
// system allows, as master(8) does.
func allowFiles() error {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if need := uint64(maxCached + 500); files.Max < need {
		return fmt.Errorf("the benchmark needs %d open files in a process, and the limit is %d (see ulimit -Hn)", need, files.Max)
	}
	files.Cur = files.Max
	return os.NewSyscallError("setrlimit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files))
}

// A process is a server that runs, and what it showed in a scenario.
type process struct {
	*postfixtest.Master
	row row
}

// An event is a scenario with all servers, each running on its own.
type event struct {
	scenario
	processes []*process
}

func (e *event) close() {
	for _, c := range e.processes {
		c.Close()
	}
}

// prepare starts all servers, and fills them.
func (e *event) prepare(servers []server) error {
	for _, server := range servers {
		if server.other && e.Workload == "delivery" {
			continue
		}
		c, err := start(server)
		if err != nil {
			return fmt.Errorf("%s: %w", server.name, err)
		}
		e.processes = append(e.processes, c)
		if err := c.prepare(e.scenario); err != nil {
			return fmt.Errorf("%s: %w", server.name, err)
		}
	}
	return nil
}

// measure measures all servers, one after another. Nobody is always the first.
func (e *event) measure(ctx context.Context, round int) error {
	for i := range e.processes {
		c := e.processes[(i+round)%len(e.processes)]
		if err := c.measure(ctx, e.scenario); err != nil {
			return fmt.Errorf("%s: %w", c.row.Server, err)
		}
	}
	return nil
}

// finish counts system calls, and sums up.
func (e *event) finish(ctx context.Context) {
	for _, c := range e.processes {
		if err := c.countSystemCalls(ctx, e.scenario); err != nil { // strace may not be allowed
			fmt.Fprintf(os.Stderr, "%s, %s: system calls are not counted: %v\n", e.name, c.row.Server, err)
		}
		c.row.summarize(e.processes)
	}
}

// start starts a server, and waits until it answers.
func start(server server) (c *process, err error) {
	c = &process{row: row{Server: server.name}}
	if c.Master, err = newMaster(server); err != nil {
		return nil, err
	}
	if err = c.Start(); err == nil {
		err = ask(c.Socket)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func newMaster(server server) (*postfixtest.Master, error) {
	m, err := postfixtest.NewMaster(server.binary, `connection_cache_ttl_limit = 1h
connection_cache_status_update_time = 1h
max_idle = 1h`)
	if err == nil && server.args != nil {
		m.Args = server.args
	}
	return m, err
}

// ask gets one answer.
func ask(socket string) error {
	c, err := dial(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.FindEndpoint(nobody)
	return err
}

// prepare fills the cache with sessions whose labels and properties have 200
// bytes.
func (c *process) prepare(s scenario) (err error) {
	c.row.Scenario, c.row.Clients, c.row.Cached, c.row.Workload = s.name, s.Clients, s.cached, s.Workload
	c.row.Idle = s.Idle
	if c.row.EmptyRSS, err = residentKB(c.Cmd.Process.Pid); err != nil {
		return err
	}
	cl, err := dial(c.Socket)
	if err != nil {
		return err
	}
	defer cl.Close()
	fd := int(os.Stdin.Fd()) // any that stays open here
	for i := range s.cached {
		text := fmt.Sprintf("%0200d", i)
		if status, err := cl.SaveEndpoint(longTTL, text, text, fd); err != nil || status != client.OK {
			return fmt.Errorf("save_endp: status %d, %v", status, err)
		}
	}
	c.row.FilledRSS, err = residentKB(c.Cmd.Process.Pid)
	return err
}

// measure runs one round.
func (c *process) measure(ctx context.Context, s scenario) error {
	result, err := c.drive(ctx, s)
	if err != nil {
		return err
	}
	c.row.add(s, result)
	return nil
}

// drive runs the clients in a process of their own.
func (c *process) drive(ctx context.Context, s scenario) (result loadResult, err error) {
	l := s.load
	l.Socket, l.PID = c.Socket, c.Cmd.Process.Pid
	job, err := json.Marshal(l)
	if err != nil {
		return result, err
	}
	self, err := os.Executable()
	if err != nil {
		return result, err
	}
	cmd := exec.CommandContext(ctx, self, "load", string(job))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return result, fmt.Errorf("clients: %w: %s", err, stderr.String())
	}
	return result, json.Unmarshal(out, &result)
}

// measureStartUp measures how long it takes from the start of a process to its
// first answer, for a client that waits.
func (b *bench) measureStartUp(r *report) error {
	const repetitions = 15
	for range repetitions {
		for _, server := range b.servers {
			d, err := startUp(server)
			if err != nil {
				return fmt.Errorf("start-up of %s: %w", server.name, err)
			}
			r.StartUp[server.name] = append(r.StartUp[server.name], float64(d.Microseconds())/1000)
		}
	}
	for _, times := range r.StartUp {
		slices.Sort(times)
	}
	return nil
}

func startUp(server server) (time.Duration, error) {
	m, err := newMaster(server)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	begin := time.Now()
	if err := m.Start(); err != nil {
		return 0, err
	}
	err = ask(m.Socket)
	return time.Since(begin), err
}
