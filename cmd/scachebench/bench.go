// SPDX-License-Identifier: EPL-2.0

// The benchmark: each server runs under a test master, and the same clients drive them in
// turn.

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
	other        bool     // may have no cache, and takes no part in deliveries
	settings     string   // more of main.cf; if any, it takes part where receivers have limits
}

// A scenario is a load on a server that has this number of sessions in its cache.
type scenario struct {
	name   string
	cached int
	limits bool // with our servers, one of which has receivers with limits
	load
}

// takesPart reports whether a server is measured in the scenario.
func (s *scenario) takesPart(one server) bool {
	if s.limits {
		return one.settings != "" || s.Waiting == 0 && (one.name == oursServer || one.other)
	}
	return one.settings == "" && !(one.other && s.Workload == "delivery")
}

const (
	oursServer   = "ours"
	limitsServer = "ours, limits"
)

// receiverLimits are settings with receivers to which no session of a scenario belongs, and
// one that is full if clients are to wait.
const receiverLimits = `
connection_cache_receivers =
	{ other, .mx.example, 192.0.2.0/24, connections=4, new=60/1m, messages=50, idle=5, time=5s }
	{ full, ` + fullReceiver + `, connections=1 }
connection_cache_protocol_timeout = 1h`

const longTTL = 3600

// scenarios returns all scenarios of the benchmark.
func scenarios() (all []scenario) {
	for _, n := range []int{1, 8, 64, 512} {
		all = append(all, scenario{
			fmt.Sprintf("pair, %d client%s", n, plural(n)), 0, false,
			load{Workload: "pair", Clients: n, TTL: longTTL},
		})
	}
	for _, n := range []int{1000, 5000, 10_000, maxCached} {
		all = append(all, scenario{
			fmt.Sprintf("pair, 8 clients, %d cached", n), n, false,
			load{Workload: "pair", Clients: 8, TTL: longTTL},
		})
	}
	return append(all,
		scenario{"miss, 1 client", 0, false, load{Workload: "miss", Clients: 1}},
		scenario{"miss, 64 clients", 0, false, load{Workload: "miss", Clients: 64}},
		scenario{"delivery, 1 client", 0, false, load{Workload: "delivery", Clients: 1, TTL: 1}},
		scenario{"delivery, 64 clients", 0, false, load{Workload: "delivery", Clients: 64, TTL: 1}},
		scenario{"pair, 64 clients, 2000 idle", 0, false,
			load{Workload: "pair", Clients: 64, Idle: 2000, TTL: longTTL}},
		scenario{"pair with limits, 1 client", 0, true,
			load{Workload: "pair", Clients: 1, TTL: longTTL, Address: otherReceiver}},
		scenario{"pair with limits, 64 clients", 0, true,
			load{Workload: "pair", Clients: 64, TTL: longTTL, Address: otherReceiver}},
		scenario{"miss with limits, 64 clients", 0, true,
			load{Workload: "miss", Clients: 64, Address: otherReceiver}},
		scenario{"delivery with limits, 64 clients", 0, true,
			load{Workload: "delivery", Clients: 64, TTL: 1, Address: otherReceiver}},
		scenario{"pair with limits, 64 clients, 1000 waiting", 0, true,
			load{Workload: "pair", Clients: 64, TTL: longTTL, Address: otherReceiver, Waiting: 1000}},
	)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// maxCached is how many sessions fit into a process with 20,000 descriptors.
const maxCached = 18_000

// A bench runs the scenarios.
type bench struct {
	servers []server // stock, ours, and others
	rounds  int
	seconds float64 // of one measurement
	only    string  // scenarios with this in their name, if not empty
}

// run measures every server in every scenario once in each round, so that other load of the
// machine affects all of them alike.
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
	if err := b.measureScenarios(ctx, r); err != nil {
		return nil, err
	}
	if len(r.Rows)+len(r.Outages)+len(r.Delays) == 0 {
		return nil, fmt.Errorf("no scenario has %q in its name", b.only)
	}
	return r, nil
}

// measureScenarios measures all scenarios in each round, so that the machine is the same for
// all.
func (b *bench) measureScenarios(ctx context.Context, r *report) error {
	var fixtures []*fixture
	defer func() {
		for _, f := range fixtures {
			f.close()
		}
	}()
	for _, s := range scenarios() {
		if !strings.Contains(s.name, b.only) {
			continue
		}
		s.Seconds = b.seconds
		f := &fixture{scenario: s}
		fixtures = append(fixtures, f)
		if err := f.prepare(b.servers); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintln(os.Stderr, "ready:", s.name)
	}
	if len(fixtures) == 0 {
		return nil
	}
	for round := range b.rounds {
		for _, f := range fixtures {
			if err := f.measure(ctx, round); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d is done\n", round+1, b.rounds)
	}
	for _, f := range fixtures {
		f.finish(ctx)
		for _, c := range f.processes {
			r.Rows = append(r.Rows, c.row)
		}
	}
	return nil
}

// allowFiles lets this process and its children have as many open files as the
// system allows, as master(8) does.
func allowFiles() error {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if need := uint64(maxCached + 500); files.Max < need {
		return fmt.Errorf("the benchmark needs %d open files in a process, and the limit is %d"+
			"\nhint: raise it with ulimit -Hn", need, files.Max)
	}
	files.Cur = files.Max
	return os.NewSyscallError("setrlimit", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files))
}

// A process is a server that runs in a scenario, and its results.
type process struct {
	*postfixtest.Master
	row row
}

// A fixture is a scenario with all of its servers running.
type fixture struct {
	scenario
	processes []*process
}

func (f *fixture) close() {
	for _, c := range f.processes {
		c.Close()
	}
}

// prepare starts all servers and fills their caches.
func (f *fixture) prepare(servers []server) error {
	for _, server := range servers {
		if !f.takesPart(server) {
			continue
		}
		c, err := start(server)
		if err != nil {
			return fmt.Errorf("%s: %w", server.name, err)
		}
		f.processes = append(f.processes, c)
		if err := c.prepare(f.scenario); err != nil {
			return fmt.Errorf("%s: %w", server.name, err)
		}
	}
	return nil
}

// measure measures all servers one after another, in another order in each round.
func (f *fixture) measure(ctx context.Context, round int) error {
	for i := range f.processes {
		c := f.processes[(i+round)%len(f.processes)]
		if err := c.measure(ctx, f.scenario); err != nil {
			return fmt.Errorf("%s: %w", c.row.Server, err)
		}
	}
	return nil
}

// finish counts system calls and summarizes the rounds.
func (f *fixture) finish(ctx context.Context) {
	for _, c := range f.processes {
		if err := c.countSystemCalls(ctx, f.scenario); err != nil { // strace may not be allowed
			fmt.Fprintf(os.Stderr, "%s, %s: system calls are not counted: %v\n",
				f.name, c.row.Server, err)
		}
		c.row.summarize(f.processes)
	}
}

// start starts a server and waits until it answers.
func start(server server) (p *process, err error) {
	p = &process{row: row{Server: server.name}}
	if p.Master, err = newMaster(server); err != nil {
		return nil, err
	}
	if err = p.Start(); err == nil {
		err = ask(p.Socket)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func newMaster(server server) (*postfixtest.Master, error) {
	m, err := postfixtest.NewMaster(server.binary, `connection_cache_ttl_limit = 1h
connection_cache_status_update_time = 1h
max_idle = 1h`+server.settings)
	if err == nil && server.args != nil {
		m.Args = server.args
	}
	return m, err
}

// ask makes one request to a server.
func ask(socket string) error {
	c, err := dial(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.FindEndpoint(missing)
	return err
}

// prepare fills the cache with sessions whose labels and properties have 200 bytes.
func (p *process) prepare(s scenario) (err error) {
	p.row.Scenario, p.row.Workload = s.name, s.Workload
	p.row.Clients, p.row.Idle, p.row.Cached = s.Clients, s.Idle, s.cached
	if p.row.EmptyRSS, err = residentKB(p.Cmd.Process.Pid); err != nil {
		return err
	}
	cl, err := dial(p.Socket)
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
	p.row.FilledRSS, err = residentKB(p.Cmd.Process.Pid)
	return err
}

// measure runs one round.
func (p *process) measure(ctx context.Context, s scenario) error {
	result, err := p.drive(ctx, s)
	if err != nil {
		return err
	}
	p.row.add(s, result)
	return nil
}

// drive runs the clients in a process of their own.
func (p *process) drive(ctx context.Context, s scenario) (result loadResult, err error) {
	l := s.load
	l.Socket, l.PID = p.Socket, p.Cmd.Process.Pid
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

// measureStartUp measures the time from the start of a process to its first answer.
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
