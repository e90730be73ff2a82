// SPDX-License-Identifier: EPL-2.0

// Tests of a reload in which one system call fails.

package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// errnosOf are the errors that each kind of call is made to fail with. All of them pass
// by themselves: the next call succeeds.
var errnosOf = map[string][]unix.Errno{
	"socketpair":     {unix.EMFILE, unix.ENFILE, unix.ENOMEM},
	"memfd_create":   {unix.EMFILE, unix.ENFILE, unix.ENOMEM},
	"write":          {unix.ENOSPC, unix.ENOMEM}, // into a file in memory
	"ftruncate":      {unix.ENOMEM, unix.EINTR},
	"pread64":        {unix.ENOMEM},
	"read":           {unix.ENOMEM}, // of a file in memory
	"socket":         {unix.EMFILE, unix.ENFILE, unix.ENOBUFS},
	"connect":        {unix.EAGAIN, unix.ENOBUFS, unix.ENFILE},
	"sendmsg":        {unix.ENOBUFS, unix.ENOMEM, unix.EINTR},
	"sendmsg_rights": {unix.ENOBUFS, unix.ENOMEM, unix.ETOOMANYREFS, unix.EINTR},
	"recvmsg":        {unix.ENOMEM, unix.ENOBUFS, unix.EINTR},
	"epoll_ctl":      {unix.ENOSPC, unix.ENOMEM},
	"accept4": {
		unix.ENOBUFS, unix.ENOMEM, unix.EPERM, unix.ECONNABORTED, unix.ENFILE, unix.EINTR,
	},
	"getsockopt":    {unix.ENOMEM},
	"eventfd2":      {unix.EMFILE, unix.ENFILE, unix.ENOMEM},
	"epoll_create1": {unix.EMFILE, unix.ENFILE, unix.ENOMEM},
	"fcntl":         {unix.EMFILE}, // to duplicate a descriptor
	"dup":           {unix.EMFILE},
	"poll":          {unix.ENOMEM, unix.EINTR},
}

// mayCloseOne has the kinds of calls whose failure may end the conversation with the one
// client that they are made for. Such a call is not repeated.
var mayCloseOne = map[string]bool{"epoll_ctl": true, "getsockopt": true}

// faultTimeout bounds what clients wait for when a call fails in a reload: a process may
// try again for 5 s, and the machine may be busy.
const faultTimeout = time.Minute

// TestHandover_oneCallFails makes each system call of a reload fail once, counted over
// both processes, with clients in all phases of a conversation. Nothing may be lost.
//
// It plays a sample of the calls. FAULTS=all plays every one, and FAULTS=KIND,
// KIND:ERRNO or KIND:ERRNO:N plays these.
func TestHandover_oneCallFails(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	postfixtest.NeedPostfix(t) // that is, root
	launcher := filepath.Join(t.TempDir(), "launcher")
	if err := postfixtest.Build(launcher, "scache/internal/postfixtest/launcher"); err != nil {
		t.Fatal(err)
	}
	fill := repliesThatFit(t)
	good := reloadWith(t, launcher, fill, postfixtest.Fault{})
	if good.verdict() != "" {
		t.Fatalf("without a fault: %s\n%s", good.verdict(), strings.Join(good.log, "\n"))
	}
	for _, kind := range slices.Sorted(maps.Keys(good.counts)) {
		t.Logf("%s: %d calls", kind, good.counts[kind])
	}
	var result struct {
		sync.Mutex
		lines                 []string
		played, passed, unmet int
		fatal                 map[string]int // by kind
	}
	result.fatal = map[string]int{}
	t.Run("calls", func(t *testing.T) {
		for _, f := range chooseFaults(t, good.counts, os.Getenv("FAULTS")) {
			t.Run(f.String(), func(t *testing.T) {
				t.Parallel()
				r := reloadWith(t, launcher, fill, f)
				if os.Getenv("FAULTS") == f.String() {
					t.Logf("log:\n%s", strings.Join(r.log, "\n"))
				}
				result.Lock()
				defer result.Unlock()
				result.played++
				switch {
				case r.verdict() != "":
					result.lines = append(result.lines, fmt.Sprintf("%-28s %s (%s)", f, r.verdict(), r.hit))
				case r.hit == nil:
					result.unmet++
				default:
					result.passed++
				}
				if r.fatal > 0 {
					result.fatal[f.Kind]++
				}
			})
		}
	})
	slices.Sort(result.lines)
	t.Logf("%d faults played, %d without harm, %d did not occur",
		result.played, result.passed, result.unmet)
	t.Logf("a new process ended at its start, and the next one served: %v", result.fatal)
	if len(result.lines) > 0 {
		t.Errorf("%d faults with a loss:\n%s", len(result.lines), strings.Join(result.lines, "\n"))
	}
}

// chooseFaults returns the faults to play, where this many calls of each kind occur. The
// sample has for each kind and error the first call, or another one.
func chooseFaults(t *testing.T, counts map[string]int, choice string) (all []postfixtest.Fault) {
	t.Helper()
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		if len(errnosOf[kind]) == 0 {
			t.Fatalf("no errors for %s", kind)
		}
		for i, errno := range errnosOf[kind] {
			for n := 1; n <= counts[kind]+counts[kind]/10; n++ {
				f := postfixtest.Fault{Kind: kind, Errno: errno, N: n}
				switch choice {
				case "":
					h := fnv.New32()
					io.WriteString(h, kind+unix.ErrnoName(errno))
					if n != 1+int(h.Sum32())%counts[kind] && (n != 1 || i != 0) {
						continue
					}
				case "all":
				default:
					if !strings.HasPrefix(f.String()+":", choice+":") {
						continue
					}
				}
				all = append(all, f)
			}
		}
	}
	if len(all) == 0 { // it may be one that seldom occurs
		kind, rest, _ := strings.Cut(choice, ":")
		name, number, _ := strings.Cut(rest, ":")
		n, err := strconv.Atoi(number)
		for _, errno := range errnosOf[kind] {
			if unix.ErrnoName(errno) == name && err == nil {
				return []postfixtest.Fault{{Kind: kind, Errno: errno, N: n}}
			}
		}
		t.Fatalf("FAULTS=%s: no such calls", choice)
	}
	return all
}

// A reloading is a run of two reloads, and what was wrong with it.
type reloading struct {
	m        *postfixtest.Master
	injector *postfixtest.Injector
	fault    postfixtest.Fault
	deadline time.Time
	asking   *client.Client // connected after the reload, or nil
	counts   map[string]int
	hit      *postfixtest.FailedCall
	problems []string
	log      []string
	fatal    int // processes that ended instead of serving

	closedOne bool // one client was cut off
}

func (r *reloading) problem(format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

// verdict returns all that was wrong in one line, or nothing.
func (r *reloading) verdict() string { return strings.Join(r.problems, "; ") }

// reloadWith reloads the daemon twice. From the first reload on until all clients are
// served by the new process, the fault is armed.
func reloadWith(t *testing.T, launcher string, fill int, fault postfixtest.Fault) *reloading {
	t.Helper()
	r := &reloading{fault: fault, injector: postfixtest.NewInjector(launcher)}
	r.m = newMaster(t, "connection_cache_ttl_limit=1h\nmax_idle=1h\n"+
		"connection_cache_announce_protocol=yes")
	defer r.m.Close()
	r.m.Launch = r.injector.Start
	start(t, r.m)
	probe := dial(t, r.m)
	wantAnswer(t, probe)
	base := stableDescriptors(t, r.m) - 1 // with no client and no session

	var sessions []saved
	for i := range 8 {
		label, property := fmt.Sprint("endpoint ", i/2), fmt.Sprint("property ", i)
		sessions = append(sessions, saveSession(t, probe, 3600, label, property))
	}
	for i := range 3 {
		label, endpoint := fmt.Sprint("destination ", i), fmt.Sprint("endpoint ", i)
		status, err := probe.SaveDestination(3600, label, "d", endpoint)
		if err != nil || status != client.OK {
			t.Fatal(status, err)
		}
	}
	clients := startConversations(t, r.m, probe, fill)

	r.deadline = time.Now().Add(faultTimeout)
	r.injector.Arm(fault)
	ended, stop := r.reload()
	late := &clientPhase{name: "late"}
	late.conn, late.finish = connect(t, r.m.Socket), func(c *client.Client) error { return nil }
	clients = append(clients, late)
	probe.Conn.(*fdpass.Conn).SetDeadline(r.deadline)
	harm := map[string][]string{}       // clients, by what happened to them
	if err := miss(probe); err != nil { // by the process that is old, or by the next one
		harm[harmOf(err)] = []string{"idle"}
	}
	<-ended // with the other clients in the middle of something
	for _, c := range clients {
		c.conn.SetDeadline(maxTime(r.deadline, time.Now().Add(faultTimeout/10)))
		if err := c.resume(); err != nil {
			harm[harmOf(err)] = append(harm[harmOf(err)], c.name)
		}
	}
	r.clientProblems("", harm)
	r.connect()
	r.lookFor("sessions", sessions[:4], func(i int) (client.Found, error) {
		return r.asking.FindEndpoint(sessions[i].label)
	})
	r.wantCounters()
	r.counts, r.hit = r.injector.Disarm()
	stop()
	r.wantDescriptors(base)

	r.deadline = time.Now().Add(faultTimeout)
	ended, stop = r.reload()
	clear(harm)
	for _, c := range clients {
		c.conn.SetDeadline(r.deadline)
		if err := c.again(); err != nil {
			harm[harmOf(err)] = append(harm[harmOf(err)], c.name)
		}
	}
	r.clientProblems("second reload: ", harm)
	<-ended
	r.connect()
	what := "sessions or bindings, at the second reload"
	r.lookFor(what, sessions[4:], func(i int) (client.Found, error) {
		if i < 2 {
			return r.asking.FindDestination("destination 2")
		}
		return r.asking.FindEndpoint(sessions[4+i].label)
	})
	r.wantCounters()
	stop()
	r.wantDescriptors(base)
	r.readLog()
	return r
}

// maxTime returns the later one of two moments.
func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// clientProblems reports what happened to clients.
func (r *reloading) clientProblems(when string, harm map[string][]string) {
	if len(harm["cut off"]) > 0 && r.allowance() {
		harm["cut off"] = harm["cut off"][1:]
		if len(harm["cut off"]) == 0 {
			delete(harm, "cut off")
		}
	}
	for _, what := range slices.Sorted(maps.Keys(harm)) {
		r.problem("%s%s: %s", when, what, strings.Join(harm[what], ", "))
	}
}

// harmOf returns what an error means for a client, in few words.
func harmOf(err error) string {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, end) {
			return "cut off"
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "not answered"
	}
	return err.Error()
}

// reload closes the status channel, and plays master(8) until stop is called: where no
// process is alive and a client is in line, it starts one. ended is closed when the old
// process has ended, or will not.
func (r *reloading) reload() (ended <-chan struct{}, stop func()) {
	oldEnded, stopping, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	r.m.CloseStatus()
	go func() {
		defer close(stopped)
		old := true
		for starts := 0; starts < 4; starts++ {
			stays := !r.waitForEnd(stopping, old)
			if old {
				close(oldEnded)
			}
			if stays {
				return
			}
			for r.m.StartWhenNeeded(20*time.Millisecond) != nil {
				select {
				case <-stopping:
					return
				default:
				}
			}
			old = false
		}
		r.problem("no process stays")
	}()
	return oldEnded, func() {
		close(stopping)
		<-stopped
	}
}

// waitForEnd waits for the end of the present process, which is the old one of a reload
// or a new one that ought to stay.
func (r *reloading) waitForEnd(stopping <-chan struct{}, old bool) bool {
	limit := time.After(time.Until(r.deadline) * 8 / 10) // what is left is for the clients
	ended := make(chan error, 1)
	go func() { ended <- r.m.Wait() }()
	select {
	case err := <-ended:
		switch {
		case old && err != nil:
			r.problem("the old process: %v", err)
		case !old && err == nil:
			r.problem("the new process has ended")
		case !old:
			r.fatal++
		}
		return true
	case <-limit:
		if old {
			r.problem("the process does not end at a reload")
		}
	case <-stopping:
		if old {
			select {
			case <-ended:
			case <-time.After(time.Until(r.deadline)):
				r.problem("the process does not end at a reload")
			}
		}
	}
	return false
}

// connect connects a client that asks for all that should be there.
func (r *reloading) connect() {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.m.Socket, Net: "unix"})
	if err != nil {
		r.problem("connect: %v", err)
		return
	}
	conn.SetDeadline(time.Now().Add(2 * faultTimeout)) // lookFor gives up earlier
	if r.asking, err = postfixtest.NewClient(fdpass.New(conn), true); err != nil {
		r.disconnect(err)
	}
}

// disconnect closes the client that asks: because of an error, or because it has asked
// for everything.
func (r *reloading) disconnect(err error) {
	r.asking.Close()
	r.asking = nil
	switch {
	case err == nil:
	case r.allowance():
		r.connect()
	default:
		r.problem("%s: new client", harmOf(err))
	}
}

// allowance reports whether one client may be cut off, the first time it is asked.
func (r *reloading) allowance() bool {
	allowed := mayCloseOne[r.fault.Kind] && !r.closedOne
	r.closedOne = true
	return allowed
}

// lookFor finds sessions. A client that connects soon after a reload may be served
// before all of them have arrived.
func (r *reloading) lookFor(what string, sessions []saved, find func(i int) (client.Found, error)) {
	lost := 0
	end := time.Now().Add(faultTimeout)
	for i, s := range sessions {
		if r.asking == nil {
			return
		}
		f, err := find(i)
		for err == nil && f.Code == client.NotFound && time.Now().Before(end) {
			time.Sleep(5 * time.Millisecond)
			f, err = find(i)
		}
		if err != nil {
			if r.disconnect(err); r.asking == nil {
				return
			}
			f, _ = find(i)
		}
		if !s.is(f) {
			lost++
		}
	}
	if lost > 0 {
		r.problem("lost %d of %d %s", lost, len(sessions), what)
	}
}

// is reports whether this session was found, and closes what was found.
func (s saved) is(f client.Found) bool {
	if f.Code != client.OK {
		return false
	}
	defer unix.Close(f.FD)
	var st unix.Stat_t
	return unix.Fstat(f.FD, &st) == nil && st.Ino == s.inode && f.Property == s.property
}

// wantCounters asks the daemon itself whether it has lost something.
func (r *reloading) wantCounters() {
	if r.asking == nil {
		return
	}
	s, err := r.asking.Status()
	switch {
	case err != nil:
		r.disconnect(err)
	case s.Lost > 0 || s.Evicted > 0 || s.Dead > 0 || s.Refused > 0 && !r.closedOne:
		r.problem("status says lost=%d evicted=%d dead=%d refused=%d",
			s.Lost, s.Evicted, s.Dead, s.Refused)
	}
}

// wantDescriptors waits until the process has one descriptor for each client and each
// session, and as many as before beside them. It disconnects the client that asks.
func (r *reloading) wantDescriptors(base int) {
	if r.asking == nil {
		return
	}
	got, want := 0, 0
	end := time.Now().Add(faultTimeout)
	for ; time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		s, err := r.asking.Status()
		if err != nil {
			r.disconnect(err)
			return
		}
		got, err = r.m.Descriptors()
		if err != nil {
			r.problem("count descriptors: %v", err)
			break
		}
		if want = base + int(s.Clients+s.Sessions); got == want {
			break
		}
	}
	if got != want {
		r.problem("%d descriptors are open, want %d", got, want)
	}
	r.disconnect(nil)
}

// readLog looks for what no failure excuses.
func (r *reloading) readLog() {
	r.m.DrainLog()
	r.log = r.m.Texts()
	told := 0
	for _, line := range r.log {
		switch {
		case strings.HasPrefix(line, "panic: "), strings.Contains(line, "DATA RACE"):
			r.problem("log: %s", line)
		case strings.HasPrefix(line, "fatal: "), strings.HasPrefix(line, "stderr: "):
			told++
		}
	}
	if r.fatal > 0 && told == 0 {
		r.problem("a process has ended without a word")
	}
}

// stableDescriptors counts the descriptors of a process that has just started, when none of its
// threads has anything to do.
func stableDescriptors(t *testing.T, m *postfixtest.Master) int {
	t.Helper()
	before, same := descriptors(t, m), 0
	testenv.Eventually(t, "the number of descriptors stays", func() bool {
		now := descriptors(t, m)
		if same++; now != before || !sleeps(t, m) {
			before, same = now, 0
		}
		return same >= 5
	})
	return before
}

// sleeps reports whether all threads of a process sleep.
func sleeps(t *testing.T, m *postfixtest.Master) bool {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", m.Cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file) // the thread may be gone
		if _, state, _ := strings.Cut(string(text), ") "); err == nil && state[0] != 'S' {
			return false
		}
	}
	return true
}

// miss makes a request that is answered at once.
func miss(c *client.Client) error {
	f, err := c.FindEndpoint("miss")
	if err == nil && f.Code != client.NotFound {
		err = fmt.Errorf("status %d", f.Code)
	}
	return err
}

// A clientPhase is a client in the middle of something.
type clientPhase struct {
	name   string
	conn   *net.UnixConn
	client *client.Client
	finish func(*client.Client) error
	broken bool
}

// resume ends what the client has begun, and begins something else.
func (c *clientPhase) resume() error {
	err := c.resumeOnce()
	c.broken = err != nil
	return err
}

func (c *clientPhase) resumeOnce() error {
	if c.client == nil {
		var err error
		if c.client, err = postfixtest.NewClient(fdpass.New(c.conn), true); err != nil {
			return err
		}
	}
	if err := c.finish(c.client); err != nil {
		return err
	}
	return miss(c.client)
}

// again makes one more request, unless the client is cut off already.
func (c *clientPhase) again() error {
	if c.broken {
		return nil
	}
	return miss(c.client)
}

// startConversations brings clients into all phases. The sessions that they hold are
// saved by another client.
func startConversations(
	t *testing.T, m *postfixtest.Master, saver *client.Client, fill int,
) (all []*clientPhase) {
	t.Helper()
	begin := func(name string, requests []string, finish func(*client.Client) error) {
		t.Helper()
		conn := connect(t, m.Socket)
		c := &clientPhase{name: name, conn: conn, client: talk(t, conn, true), finish: finish}
		for _, text := range requests {
			if _, err := c.client.Conn.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			waitUntilTaken(t, conn)
		}
		all = append(all, c)
	}
	find := func(label string) string { return list("request", "find_endp", "label", label) }
	dummy := list("dummy", "")
	found, missed := list("status", "0", "property", "p"), list("status", "2", "property", "")
	save := func(label string) saved { t.Helper(); return saveSession(t, saver, 3600, label, "p") }
	half, asked, sending, given := save("half"), save("asked"), save("sending"), save("given")

	begin("half-request", []string{"request\x00find_endp\x00la"}, func(c *client.Client) error {
		if err := expect(c, 0, "bel\x00half\x00\x00", "status\x00"); err != nil {
			return err
		}
		status := make([]byte, 1)
		if _, err := io.ReadFull(c.Conn, status); err != nil {
			return err
		}
		if status[0] == '0' {
			rest := found[len("status\x000"):]
			return expect(c, half.inode, "", rest, dummy, "\x00", dummy, "")
		}
		// It may be served before all sessions have arrived.
		if err := hear(c, missed[len("status\x002"):]); err != nil {
			return err
		}
		for end := time.Now().Add(faultTimeout / 3); time.Now().Before(end); {
			f, err := c.FindEndpoint("half")
			if err != nil {
				return err
			}
			if half.is(f) {
				return nil
			}
			time.Sleep(5 * time.Millisecond)
		}
		return errors.New("its session is lost")
	})
	saving := list("request", "save_endp", "ttl", "60", "label", "due", "property", "p")
	begin("descriptor-due", []string{saving}, func(c *client.Client) error {
		if err := expect(c, 0, "", list("dummy", "")); err != nil {
			return err
		}
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return err
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
		if err := c.Conn.Send(p[0]); err != nil {
			return err
		}
		if err := expect(c, 0, "", list("status", "0")); err != nil {
			return err
		}
		var st unix.Stat_t
		unix.Fstat(p[0], &st)
		f, err := c.FindEndpoint("due")
		if err == nil && !(saved{"due", "p", st.Ino}).is(f) {
			err = errors.New("the session that it saved is lost")
		}
		return err
	})
	begin("dummy-due", []string{find("asked")}, func(c *client.Client) error {
		return expect(c, asked.inode, "", found, dummy, "\x00", dummy, "")
	})
	replies := make([]string, 0, 2*fill)
	for range fill - 1 {
		replies = append(replies, "", missed)
	}
	misses := slices.Repeat([]string{find("miss")}, fill+1)
	going := append(misses[:fill-1:fill-1], find("sending"), dummy)
	begin("descriptor-going", going, func(c *client.Client) error {
		return expect(c, sending.inode, append(replies, "", found, "", "\x00", dummy, "")...)
	})
	begin("unread-replies", misses, func(c *client.Client) error {
		return expect(c, 0, append(replies, slices.Repeat([]string{"", missed}, 4)...)...)
	})
	io.WriteString(all[len(all)-1].conn, find("miss")+find("miss")) // which are not read yet
	begin("acknowledgement-due", []string{find("given")}, func(c *client.Client) error {
		return expect(c, 0, dummy, "")
	})
	last := all[len(all)-1].client
	if err := expect(last, given.inode, "", found, dummy, "\x00"); err != nil {
		t.Fatal(err)
	}
	return all
}

// waitUntilTaken is waitUntilRead for those who write hundreds of times.
func waitUntilTaken(t *testing.T, conn *net.UnixConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(longWait)
	for unread := 1; unread > 0; time.Sleep(20 * time.Microsecond) {
		raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		if err != nil || time.Now().After(end) {
			t.Fatalf("the daemon does not read: %v", err)
		}
	}
}

// expect says and hears texts in turn. The text of one NUL comes with a descriptor.
func expect(c *client.Client, inode uint64, texts ...string) error {
	for i, text := range texts {
		if i%2 == 0 {
			if _, err := io.WriteString(c.Conn, text); err != nil {
				return err
			}
			continue
		}
		if err := hear(c, text); err != nil {
			return err
		}
		if text != "\x00" {
			continue
		}
		fd, err := c.Conn.Take()
		if err != nil {
			return err
		}
		var st unix.Stat_t
		unix.Fstat(fd, &st)
		unix.Close(fd)
		if st.Ino != inode {
			return errors.New("got another session")
		}
	}
	return nil
}

// hear reads this text, or returns an error as soon as it is another one.
func hear(c *client.Client, text string) error {
	for rest, buf := text, make([]byte, 64); rest != ""; {
		n, err := c.Conn.Read(buf[:min(len(buf), len(rest))])
		if err != nil {
			return err
		}
		if string(buf[:n]) != rest[:n] {
			return fmt.Errorf("got %q in place of %q", buf[:n], text)
		}
		rest = rest[n:]
	}
	return nil
}

// repliesThatFit returns how many replies a client may leave unread until the daemon
// has to wait.
func repliesThatFit(t *testing.T) int {
	t.Helper()
	m := startMaster(t, binary, "connection_cache_announce_protocol=yes")
	c := dial(t, m)
	fd, err := c.Conn.(*fdpass.Conn).FD()
	if err != nil {
		t.Fatal(err)
	}
	for n, before := 0, 0; ; n++ {
		if _, err := io.WriteString(c.Conn, list("request", "find_endp", "label", "miss")); err != nil {
			t.Fatal(err)
		}
		unread := before
		end := time.Now().Add(200 * time.Millisecond)
		for ; unread == before; time.Sleep(50 * time.Microsecond) {
			if time.Now().After(end) {
				return n
			}
			if unread, err = unix.IoctlGetInt(fd, unix.SIOCINQ); err != nil {
				t.Fatal(err)
			}
		}
		before = unread
	}
}
