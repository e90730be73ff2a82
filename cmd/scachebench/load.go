// SPDX-License-Identifier: EPL-2.0

// The clients of the benchmark. They run in a separate process, each on a thread with
// blocking I/O, as smtp(8) processes do.

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/fdpass"
)

// A load is the work of clients on one server for some time.
type load struct {
	Workload string // of operations
	Clients  int    // active ones
	Idle     int    // clients that stay connected after one request
	Waiting  int    // clients that wait for a connection to fullReceiver
	Address  string // in the labels, if not empty
	TTL      int32  // of sessions and bindings, in seconds
	Seconds  float64

	Socket string
	PID    int // of the server
}

// warmUp is the part of a load that is not measured.
const warmUp = 100 * time.Millisecond

// clientTimeout is how long a client waits for a reply.
const clientTimeout = 30 * time.Second

// A loadResult has the measurements of one load.
type loadResult struct {
	Operations, Slowest int // of all clients, and of the slowest one
	Fastest             int
	Completed           int // operations, the ones outside of the measurement included
	Seconds             float64
	Latencies           struct{ P50, P99, P999 float64 } // microseconds
	Server              usage                            // during the measurement
	IdleRSS             int                              // memory with all idle clients, in KB
}

// runLoad is the main function of the process.
func runLoad(job string) error {
	var l load
	if err := json.Unmarshal([]byte(job), &l); err != nil {
		return err
	}
	result, err := l.run()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func (l *load) run() (result loadResult, err error) {
	// A thread that returns from a system call must not wait for a processor of the runtime.
	runtime.GOMAXPROCS(2*l.Clients + 8)
	if err := l.connectIdle(); err != nil {
		return result, err
	}
	waiting, err := l.connectWaiting()
	if err != nil {
		return result, err
	}
	if result.IdleRSS, err = residentKB(l.PID); err != nil {
		return result, err
	}
	workers := make([]*worker, l.Clients)
	for i := range workers {
		if workers[i], err = l.newWorker(i); err != nil {
			return result, err
		}
	}
	begin := time.Now().Add(warmUp)
	end := begin.Add(time.Duration(l.Seconds * float64(time.Second)))
	var working sync.WaitGroup
	for _, w := range workers {
		working.Go(func() { w.work(begin, end) })
	}
	time.Sleep(time.Until(begin))
	before, err := usageOf(l.PID)
	if err != nil {
		return result, err
	}
	time.Sleep(time.Until(end))
	after, err := usageOf(l.PID)
	if err != nil {
		return result, err
	}
	working.Wait()
	if err := l.wantWaiting(); err != nil { // or the load was another one
		return result, err
	}
	runtime.KeepAlive(waiting)
	result.Server, result.Seconds = after.since(before), l.Seconds
	return result, result.collect(workers)
}

func (r *loadResult) collect(workers []*worker) error {
	var all []time.Duration
	for i, w := range workers {
		if w.err != nil {
			return fmt.Errorf("client %d: %w", i, w.err)
		}
		if i == 0 || len(w.latencies) < r.Slowest {
			r.Slowest = len(w.latencies)
		}
		r.Fastest = max(r.Fastest, len(w.latencies))
		all = append(all, w.latencies...)
		r.Completed += w.completed
	}
	if r.Operations = len(all); r.Operations == 0 {
		return errors.New("no operation was completed")
	}
	slices.Sort(all)
	at := func(share float64) float64 {
		return float64(all[int(share*float64(len(all)-1))].Nanoseconds()) / 1000
	}
	r.Latencies.P50, r.Latencies.P99, r.Latencies.P999 = at(0.5), at(0.99), at(0.999)
	return nil
}

// connectIdle connects clients that stay until the process ends.
func (l *load) connectIdle() error {
	for i := range l.Idle {
		c, err := dial(l.Socket)
		if err == nil {
			_, err = c.FindEndpoint(missing)
		}
		if err != nil {
			return fmt.Errorf("idle client %d: %w", i, err)
		}
	}
	return nil
}

// Addresses of receivers: one that has no limits, and one that allows a single connection.
const (
	otherReceiver = "198.51.100.7"
	fullReceiver  = "127.0.0.9"
)

// connectWaiting connects clients that wait as long as what it returns is kept.
func (l *load) connectWaiting() (keep []any, err error) {
	if l.Waiting == 0 {
		return nil, nil
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(fullReceiver, "0"))
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return nil, err
	}
	keep = append(keep, listener, conn)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	request := fmt.Sprintf("request\x00find_endp\x00label\x00smtp\n%s\n%s\n0\n\x00\x00",
		fullReceiver, port)
	for i := range l.Waiting {
		c, err := dialBlocking(l.Socket, clientTimeout)
		if err == nil {
			_, err = io.WriteString(c, request)
		}
		if err != nil {
			return nil, fmt.Errorf("waiting client %d: %w", i, err)
		}
		keep = append(keep, c)
	}
	return keep, l.wantWaiting()
}

// wantWaiting waits until all of these clients wait.
func (l *load) wantWaiting() error {
	if l.Waiting == 0 {
		return nil
	}
	c, err := dial(l.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	waiting := 0
	for end := time.Now().Add(clientTimeout); time.Now().Before(end); {
		all, err := c.Receivers()
		if err != nil {
			return err
		}
		waiting = 0
		for _, r := range all {
			waiting += int(r.Waiting)
		}
		if waiting == l.Waiting {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("got %d clients that wait, want %d", waiting, l.Waiting)
}

// dial connects to a server of any version of Postfix.
func dial(socket string) (*client.Client, error) {
	conn, err := dialBlocking(socket, clientTimeout)
	if err != nil {
		return nil, err
	}
	return client.Detect(conn), nil
}

// A worker is one active client.
type worker struct {
	*client.Client
	*load
	number, round int
	label         string
	missing       string // a label that is never saved
	fd            int    // the session that it saves
	operation     func(*worker) error
	latencies     []time.Duration
	completed     int
	err           error
}

// labelOf returns a label.
func (l *load) labelOf(name string) string {
	if l.Address == "" {
		return "smtp\n" + name + "\n"
	}
	return "smtp\n" + name + "\n" + l.Address + "\n25\n0\n"
}

func (l *load) newWorker(number int) (*worker, error) {
	operation, found := workloads[l.Workload]
	if !found {
		return nil, fmt.Errorf("unknown workload %q", l.Workload)
	}
	c, err := dial(l.Socket)
	if err != nil {
		return nil, err
	}
	w := &worker{Client: c, load: l, number: number, operation: operation}
	w.label = l.labelOf(fmt.Sprintf("client%d", number))
	w.missing = l.labelOf(onceWord + " missing")
	end, _, err := fdpass.SocketPair() // the other end stays open
	if err != nil {
		return nil, err
	}
	w.fd = end.FD()
	w.latencies = make([]time.Duration, 0, 1<<16)
	return w, nil
}

// work does operations, and measures the ones between begin and end.
func (w *worker) work(begin, end time.Time) {
	runtime.LockOSThread()
	for start := time.Now(); start.Before(end); {
		if w.err = w.operation(w); w.err != nil {
			return
		}
		w.completed++
		now := time.Now()
		if start.After(begin) && now.Before(end) {
			w.latencies = append(w.latencies, now.Sub(start))
		}
		start = now
	}
}

// Labels that are never saved, or saved only once, contain onceWord, so that the floor can
// tell them from others.
const (
	onceWord = "once"
	missing  = "smtp\n" + onceWord + " missing\n"
)

// Properties of a usual length.
const (
	hostProperty        = "host_name=127.0.0.1\nhost_addr=127.0.0.1\n"
	destinationProperty = "destination=[127.0.0.1]:3074\n" + hostProperty +
		"destination_features=4096\n\n"
	endpointProperty = hostProperty + "endpoint_features=4096\nreuse_count=17\n\n"
)

var workloads = map[string]func(*worker) error{
	"pair":     (*worker).pair,
	"delivery": (*worker).delivery,
	"miss":     (*worker).miss,
}

// pair saves a session and finds it again.
func (w *worker) pair() error {
	if err := w.saveEndpoint(w.label, w.fd); err != nil {
		return err
	}
	found, err := w.FindEndpoint(w.label)
	if err != nil {
		return err
	}
	if found.Code != client.OK {
		return fmt.Errorf("find_endp: status %d", found.Code)
	}
	return unix.Close(found.FD)
}

// miss asks for a session that the server does not have.
func (w *worker) miss() error {
	found, err := w.FindEndpoint(w.missing)
	if err == nil && found.Code != client.NotFound {
		err = fmt.Errorf("find_endp: status %d", found.Code)
	}
	return err
}

// delivery makes the requests of smtp(8) for one message: it asks for a connection to the
// destination, and afterwards saves it, or a new one. Every fourth message goes to a
// destination of its own, so that its session expires in the cache.
func (w *worker) delivery() error {
	label := w.label
	if w.round++; w.round%4 == 0 {
		label = w.labelOf(fmt.Sprintf("%s client%d-%d", onceWord, w.number, w.round))
	}
	found, err := w.FindDestination(label)
	if err != nil {
		return err
	}
	fd := w.fd
	if found.Code == client.OK {
		fd = found.FD
		defer unix.Close(fd)
	}
	status, err := w.SaveDestination(w.TTL, label, destinationProperty, label)
	if err != nil {
		return err
	}
	if status != client.OK {
		return fmt.Errorf("save_dest: status %d", status)
	}
	return w.saveEndpoint(label, fd)
}

func (w *worker) saveEndpoint(label string, fd int) error {
	status, err := w.SaveEndpoint(w.TTL, label, endpointProperty, fd)
	if err == nil && status != client.OK {
		err = fmt.Errorf("save_endp: status %d", status)
	}
	return err
}
