// SPDX-License-Identifier: EPL-2.0

// Tests of the life of the daemon as a child of master(8): how it begins and
// ends, and what it tells master and the log meanwhile.

package main

import (
	"bytes"
	encoding "encoding/binary" // the other binary is the daemon
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// longWait bounds every wait for something that a daemon should do at once.
const longWait = time.Minute

// newMaster returns a master whose child is yet to be started, with options
// beside the usual ones.
func newMaster(t *testing.T, settings string, options ...string) *postfixtest.Master {
	t.Helper()
	m, err := postfixtest.NewMaster(binary, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	m.Args = append(m.Args, options...)
	return m
}

func start(t *testing.T, m *postfixtest.Master) {
	t.Helper()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
}

// connect connects to the listening socket, whether or not there is a process
// behind it. Whatever comes next on this connection is bounded in time.
func connect(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(longWait))
	return conn
}

// talk makes a client of a connection.
func talk(t *testing.T, conn *net.UnixConn, announced bool) *client.Client {
	t.Helper()
	c, err := postfixtest.NewClient(fdpass.New(conn), announced)
	if err != nil {
		t.Fatalf("the daemon does not answer: %v", err)
	}
	return c
}

// startWithClient starts a child that has a client from its first moment on, so
// that it cannot end because it has none.
func startWithClient(t *testing.T, m *postfixtest.Master) *client.Client {
	t.Helper()
	conn := connect(t, m.Socket)
	start(t, m)
	return talk(t, conn, true)
}

// wantAnswer makes a request that counts as one miss of an address.
func wantAnswer(t *testing.T, c *client.Client) {
	t.Helper()
	if f, err := c.FindEndpoint("never saved"); err != nil || f.Code != client.NotFound {
		t.Fatalf("the daemon does not answer: status %d, %v", f.Code, err)
	}
}

// missed is what the log says after a single wantAnswer.
var missed = []string{startPattern, `statistics: address lookup hits=0 miss=1 success=0%`}

const startPattern = `statistics: start interval [A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d`

// wantLog compares all that the child logged with patterns of lines.
func wantLog(t *testing.T, m *postfixtest.Master, patterns ...string) {
	t.Helper()
	if err := m.DrainLog(); err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf(`^[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d test postfix/scache\[%d\]: `,
		m.Cmd.Process.Pid)
	match := func(line, pattern string) bool {
		return regexp.MustCompile(head + pattern + "$").MatchString(line)
	}
	if lines := m.Log(); !slices.EqualFunc(lines, patterns, match) {
		t.Errorf("logged:\n%s\nwant:\n%s", strings.Join(lines, "\n"), strings.Join(patterns, "\n"))
	}
}

func terminate(m *postfixtest.Master) error {
	m.Cmd.Process.Signal(unix.SIGTERM)
	return m.Wait()
}

func TestStatistics_atTheEnd(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for name, end := range map[string]func(*postfixtest.Master) error{
		"end of file on the status channel": (*postfixtest.Master).HangUp,
		"SIGTERM":                           terminate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := startMaster(t, binary, "connection_cache_ttl_limit=1h")
			c := dial(t, m)
			fd := testenv.NewDescriptor(t)
			defer unix.Close(fd)
			for _, op := range []operation{
				saveDestination(9999, "d", "p", "e"), saveEndpoint(9999, "e", "p", fd),
				findDestination("d"), findDestination("d"),
				findEndpoint("e"), findEndpoint("f"),
				saveEndpoint(9999, "e", "p", fd), saveEndpoint(9999, "f", "p", fd), findEndpoint("e"),
			} {
				op(t, c)
			}
			if err := end(m); err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
			wantLog(t, m, startPattern,
				`statistics: domain lookup hits=1 miss=1 success=50%`,
				`statistics: address lookup hits=1 miss=2 success=33%`,
				`statistics: max simultaneous domains=1 addresses=2 connection=2`)
		})
	}
}

func TestSignals_ignored(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "")
	c := startWithClient(t, m)
	for _, signal := range []unix.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGPIPE} {
		m.Cmd.Process.Signal(signal)
		wantAnswer(t, c)
	}
	if err := terminate(m); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

func TestStatistics_nothingWithoutClients(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "")
	dial(t, m)
	if err := m.HangUp(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	wantLog(t, m)
}

func TestIdle_ends(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for name, test := range map[string]struct {
		settings string
		options  []string
	}{
		"main.cf":          {settings: "max_idle = 1s"},
		"-i beats main.cf": {"max_idle = 1h", []string{"-i", "1"}},
		"-i with a unit":   {"max_idle = 1h", []string{"-i", "1s"}},
		"-o beats main.cf": {"max_idle = 1h", []string{"-o", "max_idle=1"}},
		"the last -o counts": {"max_idle = 1h",
			[]string{"-o", "max_idle=1h", "-o", "max_idle=1s"}},
		"a name in main.cf, set by -o": {"lifetime = 1h\nmax_idle = $lifetime",
			[]string{"-o", "lifetime=1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, test.settings, test.options...)
			c := startWithClient(t, m)
			wantAnswer(t, c)
			left := time.Now()
			c.Close()
			if err := m.Wait(); err != nil {
				t.Errorf("the daemon ended with %v", err)
			}
			if idle := time.Since(left); idle < time.Second {
				t.Errorf("the daemon ended %v after its last client", idle)
			}
			wantLog(t, m, missed...)
		})
	}
}

// TestIdle_operatorsDoNotCount has an operator who looks again and again.
func TestIdle_operatorsDoNotCount(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "max_idle = 1s")
	start(t, m)
	ended := make(chan error, 1)
	go func() { ended <- m.Wait() }()
	for end := time.Now().Add(longWait); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		default:
			// It may end while it is asked.
			client.Ask(m.Socket, 200*time.Millisecond,
				func(c *client.Client) error { _, err := c.Status(); return err })
		}
	}
	t.Error("it stays for an operator")
}

func TestIdle_endsWithoutAnyClient(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "", "-i", "1")
	start(t, m)
	if err := m.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	if n := len(m.AllStatuses()); n != 0 {
		t.Errorf("it sent %d messages to master, and did nothing", n)
	}
	wantLog(t, m)
}

// TestIdle_staysWhileAClientIsConnected measures time by a second daemon, which has
// the same max_idle, starts later, and has no client. A short daemon_timeout is
// nothing to a process that is well.
func TestIdle_staysWhileAClientIsConnected(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m, clock := newMaster(t, "max_idle = 1s\ndaemon_timeout = 1s"), newMaster(t, "max_idle = 1s")
	c := startWithClient(t, m)
	for range 2 {
		start(t, clock)
		if err := clock.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	wantAnswer(t, c)
	c.Close()
	if err := m.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	wantLog(t, m, missed...)
}

// statusPair is what a child with this generation tells master when it has
// something to do.
func statusPair(m *postfixtest.Master, generation uint32) [][]byte {
	var pair [][]byte
	for _, available := range []uint32{0, 1} {
		msg := encoding.NativeEndian.AppendUint32(nil, uint32(m.Cmd.Process.Pid))
		msg = encoding.NativeEndian.AppendUint32(msg, generation)
		pair = append(pair, encoding.NativeEndian.AppendUint32(msg, available))
	}
	return pair
}

func TestStatus_onePairForAllClients(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "") // with GENERATION=17
	first := dial(t, m)
	for range 50 {
		c := dial(t, m)
		wantAnswer(t, c)
		wantAnswer(t, first)
		c.Close()
	}
	if err := terminate(m); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	if got, want := m.AllStatuses(), statusPair(m, 0o17); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestStatus_generationIsOctal(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	for text, generation := range map[string]uint32{"0": 0, "10": 8, "37777777777": math.MaxUint32} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			m := newMaster(t, "")
			m.Env = append(m.Env, "GENERATION="+text)
			wantAnswer(t, startWithClient(t, m))
			terminate(m)
			if got, want := m.AllStatuses(), statusPair(m, generation); !slices.EqualFunc(got, want,
				bytes.Equal) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

func TestStatus_onePairForEachIdlePeriod(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "")
	periods := 0
	testenv.Eventually(t, "five pairs", func() bool { // the daemon may see two clients overlap
		dial(t, m).Close()
		periods++
		return len(m.Statuses()) >= 10
	})
	terminate(m)
	got := m.AllStatuses()
	if len(got) > 2*periods {
		t.Errorf("%d messages in %d periods", len(got), periods)
	}
	for pair := range slices.Chunk(got, 2) {
		if want := statusPair(m, 0o17); !slices.EqualFunc(pair, want, bytes.Equal) {
			t.Errorf("got  %v\nwant %v", pair, want)
		}
	}
}

func TestStatus_fullChannelDelaysNoClient(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "")
	m.Deaf = true
	start(t, m)
	for range 20 {
		c := talk(t, connect(t, m.Socket), true)
		wantAnswer(t, c)
		c.Close()
	}
	if err := m.HangUp(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	wantLog(t, m, startPattern, `statistics: address lookup hits=0 miss=20 success=0%`)
}

// startTimes returns the times of the start of the intervals that were logged
// in a time zone.
func startTimes(t *testing.T, m *postfixtest.Master, zone *time.Location) []time.Time {
	t.Helper()
	var times []time.Time
	for _, text := range m.Texts() {
		if stamp, found := strings.CutPrefix(text, "statistics: start interval "); found {
			times = append(times, parseStamp(t, stamp, zone))
		}
	}
	return times
}

// parseStamp returns a time of the log: the last one of its name, in a zone.
func parseStamp(t *testing.T, stamp string, zone *time.Location) time.Time {
	t.Helper()
	now := time.Now().In(zone)
	at, err := time.ParseInLocation("2006 "+time.Stamp, fmt.Sprint(now.Year(), " ", stamp), zone)
	if err != nil {
		t.Error(err)
	}
	if at.After(now) { // it was before New Year
		at = at.AddDate(-1, 0, 0)
	}
	return at
}

func TestStatistics_everyInterval(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := newMaster(t, "connection_cache_status_update_time = 1s")
	m.Env = append(m.Env, "TZ=UTC")
	earliest := []time.Time{time.Now().Truncate(time.Second)} // start of each interval
	var latest []time.Time
	c := startWithClient(t, m)
	for n := range 3 {
		earliest = append(earliest, time.Now().Truncate(time.Second)) // of the next one
		wantAnswer(t, c)
		latest = append(latest, time.Now())
		if !m.WaitForTexts("address lookup", n+1) {
			t.Fatal("no statistics")
		}
	}
	if err := m.HangUp(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	wantLog(t, m, slices.Repeat(missed, 3)...)
	for n, at := range startTimes(t, m, time.UTC) {
		if at.Before(earliest[n]) || at.After(latest[n]) {
			t.Errorf("interval %d starts at %v, want between %v and %v", n, at, earliest[n], latest[n])
		}
	}
}

// TestClients_thatVanishLeaveNothingBehind counts descriptors: of 1,000 clients
// that leave in the middle of whatever they do.
func TestClients_thatVanishLeaveNothingBehind(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_ttl_limit=1s")
	fd := testenv.NewDescriptor(t)
	defer unix.Close(fd)
	vanish := func(i int) {
		c := talk(t, connect(t, m.Socket), true)
		defer c.Close()
		label := fmt.Sprint("e", i%7)
		if status, err := c.SaveEndpoint(9, label, "p", fd); err != nil || status != client.OK {
			t.Fatal(status, err)
		}
		switch i % 5 {
		case 0: // its session stays, until its time is up
		case 1:
			if f, err := c.FindEndpoint(label); err != nil {
				t.Fatal(err)
			} else if f.Code == client.OK {
				unix.Close(f.FD)
			}
		case 2: // finds a session and does not take it
			io.WriteString(c.Conn, list("request", "find_endp", "label", label))
		case 3: // asks for the descriptor and does not wait for it
			io.WriteString(c.Conn, list("request", "find_endp", "label", label)+list("dummy", ""))
		case 4: // sends a descriptor that was not asked for
			io.WriteString(c.Conn, "request\x00find_endp") // and the request goes on
			c.Conn.Send(fd)
		}
	}
	witness := talk(t, connect(t, m.Socket), true)
	before := stableDescriptors(t, m)
	for i := range 1000 {
		vanish(i)
	}
	wantDescriptors(t, m, before)
	wantAnswer(t, witness)
}

// TestClients_silentOnesCostNothing traces a daemon whose clients say nothing: after the
// moment in which the tracer stops its threads, it makes no system call.
func TestClients_silentOnesCostNothing(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED: this test needs strace: %v", err)
	}
	m := startMaster(t, binary, "max_idle=1h")
	for range 5 {
		wantAnswer(t, dial(t, m))
	}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-ttt", "-o", trace, "-p", fmt.Sprint(m.Cmd.Process.Pid))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Signal(os.Interrupt)
	var silence time.Duration
	testenv.Eventually(t, "two seconds without a system call", func() bool {
		fi, err := os.Stat(trace)
		if err == nil && fi.Size() > 0 {
			silence = time.Since(fi.ModTime())
		}
		return silence > 2*time.Second
	})
}
