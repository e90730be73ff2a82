// SPDX-License-Identifier: EPL-2.0

// Package postfixtest runs connection cache servers for tests, the benchmark
// and the demo: under a [Master] that plays master(8) for one of them, and in an
// [Instance] of Postfix of its own.
package postfixtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
)

// A Master runs one scache binary, ours or another, as master(8) does. It reads
// the log that the binary writes and the messages on the status channel; a
// stock binary would be blocked by either.
type Master struct {
	Socket string // where clients connect
	Binary string
	Args   []string
	Env    []string
	Cmd    *exec.Cmd // the present child
	Deaf   bool      // the status channel is full and not read

	// Launch, if not nil, starts the child instead of (*exec.Cmd).Start.
	Launch func(*exec.Cmd) error

	dir      string
	listener *os.File
	status   *os.File
	postlog  *net.UnixConn
	exited   chan error
	drained  chan bool

	statusEnd chan struct{} // closed when nothing more comes on the status channel

	mu       sync.Mutex
	log      []string
	logTimes []time.Time // when each line has arrived
	statuses [][]byte
}

// NewMaster makes a queue directory with a listening socket and a main.cf with
// these settings. It does not start the binary.
func NewMaster(binary, settings string) (*Master, error) {
	dir, err := os.MkdirTemp("", "scache-test-")
	if err != nil {
		return nil, err
	}
	m := &Master{
		Socket: filepath.Join(dir, "private", "scache"),
		Binary: binary,
		Args:   []string{"-l", "-n", "scache", "-t", "unix"},
		dir:    dir,

		drained: make(chan bool, 1),
	}
	if err := m.prepare(settings); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// StartMaster is NewMaster and Start.
func StartMaster(binary, settings string) (*Master, error) {
	m, err := NewMaster(binary, settings)
	if err != nil {
		return nil, err
	}
	if err := m.Start(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Master) prepare(settings string) error {
	if err := os.Chmod(m.dir, 0o755); err != nil { // for any user that the child switches to
		return err
	}
	for _, name := range []string{"private", "public"} {
		if err := os.Mkdir(filepath.Join(m.dir, name), 0o755); err != nil {
			return err
		}
	}
	defaults := ""
	for _, d := range [][2]string{{"queue_directory", m.dir}, {"data_directory", m.dir},
		{"myhostname", "test.example"}, {"maillog_file", "/var/log/test"}} {
		if !regexp.MustCompile(`(?m)^` + d[0] + `\s*=`).MatchString(settings) {
			defaults += d[0] + "=" + d[1] + "\n"
		}
	}
	settings = defaults + settings + "\n"
	mainCF := filepath.Join(m.dir, "main.cf")
	if err := os.WriteFile(mainCF, []byte(settings), 0o644); err != nil {
		return err
	}
	old := time.Now().Add(-time.Hour) // Postfix waits while a file is being edited
	if err := os.Chtimes(mainCF, old, old); err != nil {
		return err
	}
	postlog := filepath.Join(m.dir, "public", "postlog")
	m.Env = []string{"MAIL_CONFIG=" + m.dir, "GENERATION=17", "MAIL_LOGTAG=postfix",
		"POSTLOG_SERVICE=" + postlog, "POSTLOG_HOSTNAME=test.example"}
	m.Env = append(m.Env, environment()...)
	var err error
	if m.postlog, err = net.ListenUnixgram("unixgram",
		&net.UnixAddr{Name: postlog, Net: "unixgram"}); err != nil {
		return err
	}
	go m.readLog(m.postlog)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.Socket, Net: "unix"})
	if err != nil {
		return err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	m.listener, err = l.File()
	return errors.Join(err, os.Chmod(m.Socket, 0o666), os.Chmod(postlog, 0o666))
}

func (m *Master) readLog(conn net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if string(buf[:n]) == endMark {
			m.drained <- true
			continue
		}
		m.mu.Lock()
		m.log = append(m.log, string(buf[:n]))
		m.logTimes = append(m.logTimes, time.Now())
		m.mu.Unlock()
	}
}

func (m *Master) readStatus(f *os.File, end chan<- struct{}) {
	defer close(end)
	for {
		msg := make([]byte, 12)
		if _, err := io.ReadFull(f, msg); err != nil {
			return
		}
		m.mu.Lock()
		m.statuses = append(m.statuses, msg)
		m.mu.Unlock()
	}
}

// Start starts a child.
func (m *Master) Start() error {
	pair, err := fdpass.Pair()
	if err != nil {
		return err
	}
	unix.SetNonblock(pair[0], true)
	m.status = os.NewFile(uintptr(pair[0]), "status channel")
	theirs := os.NewFile(uintptr(pair[1]), "status channel")
	defer theirs.Close()
	flowR, flowW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer flowR.Close()
	defer flowW.Close()
	m.statusEnd = make(chan struct{})
	if m.Deaf {
		fill(pair[1])
		close(m.statusEnd)
	} else {
		go m.readStatus(m.status, m.statusEnd)
	}

	m.Cmd = &exec.Cmd{
		Path:        m.Binary,
		Args:        append([]string{"scache"}, m.Args...),
		Env:         m.Env,
		Dir:         m.dir,
		ExtraFiles:  []*os.File{flowR, flowW, theirs, m.listener},
		Stderr:      &lineWriter{m: m},
		SysProcAttr: endsWithUs(),
	}
	launch := m.Launch
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	if err := launch(m.Cmd); err != nil {
		return err
	}
	exited := make(chan error, 1)
	m.exited = exited
	go func(cmd *exec.Cmd) { exited <- cmd.Wait() }(m.Cmd)
	return nil
}

// Command is exec.Command for a process that ends with this one, even if this one is killed.
func Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = endsWithUs()
	return cmd
}

// endsWithUs has the kernel kill a process when the thread that started it has ended. The Go
// runtime ends a thread only with a goroutine that is locked to it.
func endsWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// fill writes to a socket until its buffer is full.
func fill(fd int) {
	for unix.Send(fd, make([]byte, 12), unix.MSG_DONTWAIT) == nil {
	}
}

// endMark is a datagram that DrainLog sends after the ones of the child.
const endMark = "end mark"

// DrainLog waits until all lines that were logged so far have been read.
func (m *Master) DrainLog() error {
	conn, err := net.Dial("unixgram", m.postlog.LocalAddr().String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(endMark)); err != nil {
		return err
	}
	<-m.drained
	return nil
}

// A lineWriter adds the standard error of a child to the log.
type lineWriter struct{ m *Master }

func (w *lineWriter) Write(p []byte) (int, error) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for s := bufio.NewScanner(bytes.NewReader(p)); s.Scan(); {
		if coverDir != "" && strings.HasPrefix(s.Text(), "error: coverage ") {
			continue // in a jail there is no such directory
		}
		w.m.log = append(w.m.log, "stderr: "+s.Text())
		w.m.logTimes = append(w.m.logTimes, time.Now())
	}
	return len(p), nil
}

// exitTimeout is how long a child may take to end.
const exitTimeout = time.Minute

// Wait waits until the child has ended, and returns how.
func (m *Master) Wait() error {
	select {
	case err := <-m.exited:
		m.exited <- err // for the next Wait
		return err
	case <-time.After(exitTimeout):
		m.Cmd.Process.Kill()
		return fmt.Errorf("%s did not end within %v", m.Binary, exitTimeout)
	}
}

// SetBacklog sets the length of the accept queue, as master does.
func (m *Master) SetBacklog(n int) error {
	conn, err := m.listener.SyscallConn()
	if err != nil {
		return err
	}
	conn.Control(func(fd uintptr) { err = unix.Listen(int(fd), n) })
	return os.NewSyscallError("listen", err)
}

// CloseStatus closes the status channel and does not wait for the child.
func (m *Master) CloseStatus() { m.status.Close() }

// HangUp closes the status channel, as master does at "postfix reload" and when
// it dies, and waits for the child to end.
func (m *Master) HangUp() error {
	m.status.Close()
	return m.Wait()
}

// StartWhenNeeded waits until a client connects, and starts the next child.
func (m *Master) StartWhenNeeded(limit time.Duration) error {
	conn, err := m.listener.SyscallConn()
	if err != nil {
		return err
	}
	n := 0
	conn.Control(func(fd uintptr) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
	})
	if err != nil {
		return os.NewSyscallError("poll", err)
	}
	if n == 0 {
		return fmt.Errorf("no client connected within %v", limit)
	}
	return m.Start()
}

// Log returns the lines that were logged so far.
func (m *Master) Log() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.log...)
}

// Arrived returns when a line with this text was logged.
func (m *Master) Arrived(text string) (at time.Time, found bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, line := range m.log {
		if strings.Contains(line, text) {
			return m.logTimes[i], true
		}
	}
	return at, false
}

// Texts returns the lines that were logged so far, without time, host and tag.
func (m *Master) Texts() []string {
	lines := m.Log()
	for i, line := range lines {
		if _, text, found := strings.Cut(line, "]: "); found {
			lines[i] = text
		}
	}
	return lines
}

// HoldLog makes the log receiver stop reading, until release is called.
func (m *Master) HoldLog() (release func()) {
	m.mu.Lock()
	return m.mu.Unlock
}

// WaitForText waits until a line with this text was logged, and reports whether it was.
func (m *Master) WaitForText(text string) bool { return m.WaitForTexts(text, 1) }

// WaitForTexts waits until n lines with this text were logged.
func (m *Master) WaitForTexts(text string, n int) bool {
	for end := time.Now().Add(exitTimeout); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if strings.Count(strings.Join(m.Texts(), "\n"), text) >= n {
			return true
		}
	}
	return false
}

// Statuses returns the messages on the status channel so far.
func (m *Master) Statuses() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([][]byte(nil), m.statuses...)
}

// AllStatuses returns the messages on the status channel of a child that has
// ended.
func (m *Master) AllStatuses() [][]byte {
	<-m.statusEnd
	return m.Statuses()
}

// Descriptors counts the open descriptors of the child.
func (m *Master) Descriptors() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.Cmd.Process.Pid))
	return len(entries), err
}

// Close kills the child, if there is one, and removes all files.
func (m *Master) Close() error {
	if m.Cmd != nil && m.Cmd.Process != nil {
		m.Cmd.Process.Kill()
		m.Wait()
	}
	for _, f := range []*os.File{m.status, m.listener} {
		if f != nil {
			f.Close()
		}
	}
	if m.postlog != nil {
		m.postlog.Close()
	}
	return os.RemoveAll(m.dir)
}
