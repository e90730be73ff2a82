// SPDX-License-Identifier: EPL-2.0

// Package master makes a process a child of master(8), the process manager of
// Postfix. It contains everything about the life of a daemon process, and nothing
// about the service of the daemon.
//
// A daemon calls Start, which reads the options and main.cf and opens the log. Then
// it reads its own parameters, opens what it needs from outside the jail, and calls
// EnterJail. Serve accepts clients, and returns when the process must end.
//
// The same calls serve without Postfix, with the option --listen.
package master

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/mailconf"
	"scache/internal/maillog"
)

// The descriptors that master gives to its children.
const (
	flowReadFD  = 3
	flowWriteFD = 4
	statusFD    = 5
	listenFD    = 6
)

// A Process is the present process as a Postfix daemon.
type Process struct {
	Options *Options
	Config  *mailconf.Config
	Log     *maillog.Logger

	// MakeRoom, if not nil, gives up descriptors that a client needs more.
	MakeRoom func()

	name      string
	env       func(string) string
	listeners []*os.File
	status    *status // nil without master
	maxIdle   time.Duration
	service   *service // set by Serve
	signals   chan os.Signal
	parent    int // the pid of the parent process at the start
	owner     int // see Owner
}

// Start reads the options and main.cf, and opens the log. args is the command line
// and env looks up the environment.
//
// If there is an error, the caller can log it with Fatal.
func Start(args []string, env func(string) string) (*Process, error) {
	p := &Process{name: filepath.Base(args[0]), env: env, Options: &Options{}}
	p.signals, p.parent = make(chan os.Signal, 1), os.Getppid()
	// The process continues if the reader of its standard error is gone. SIGPIPE has a
	// handler and is not ignored, because commands would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var err error
	p.Options, err = parseOptions(args[1:])
	if verbose, err := strconv.Atoi(env("MAIL_VERBOSE")); err == nil {
		p.Options.Verbose += verbose
	}
	p.Options.Debugger = p.Options.Debugger || env("MAIL_DEBUG") != ""
	hostname, _ := os.Hostname()
	p.Config = mailconf.New(hostname)
	switch p.Options.Mode {
	case ShowingHelp, ShowingVersion:
		return p, err
	case Listening, Checking:
		p.Log = maillog.New(maillog.Stream(os.Stderr, p.name))
	default:
		p.Log = maillog.New(p.earlySinks()...)
	}
	p.Log.SetVerbose(p.Options.Verbose)
	switch {
	case p.Options.Mode == Listening:
		return p, errors.Join(err, p.Options.apply(p.Config))
	case p.Options.Mode == Checking:
		return p, errors.Join(err, p.configure())
	case err != nil:
		return p, err
	}
	return p, p.start()
}

// start is Start for a process that serves a mail system.
func (p *Process) start() error {
	for fd := flowReadFD; fd < listenFD+p.Options.Sockets; fd++ {
		syscall.CloseOnExec(fd) // for commands that this process runs
	}
	_, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if onTerminal := err == nil; onTerminal && p.Options.Mode == UnderMaster {
		return errors.New(
			"do not run this command by hand: name it in master.cf, or use --listen (see --help)")
	}
	if err := checkThreads(); err != nil {
		return err
	}
	if err := p.configure(); err != nil {
		return err
	}
	sinks, err := p.sinks()
	if err != nil {
		return err
	}
	p.Log.SetSinks(sinks...)
	for _, warning := range p.Config.Warnings() {
		p.Log.Warning("%s", warning)
	}
	if p.Options.Debugger {
		return p.runDebugger()
	}
	return nil
}

// minThreads is how many threads a process needs; it has about eight.
const minThreads = 16

// checkThreads returns an error if the process may not have the threads that it needs. The
// kernel applies this limit only when the process is no longer root. If it is reached then, the
// runtime ends the process, and nothing is logged.
func checkThreads() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err == nil && limit.Cur < minThreads {
		return fmt.Errorf("the limit of processes (ulimit -u, RLIMIT_NPROC) is %d: "+
			"this process needs %d threads, beside those of other processes of its user",
			limit.Cur, minThreads)
	}
	return nil
}

// configure reads main.cf and the options that concern it.
func (p *Process) configure() error {
	dir := p.env("MAIL_CONFIG")
	if dir == "" {
		dir = "/etc/postfix"
	}
	if err := p.Config.ReadFile(dir); err != nil {
		return err
	}
	err := p.Options.apply(p.Config)
	p.Config.AskPostconf(p.Log.Info)
	p.Config.SetReadOnly("process_name", p.name)
	p.Config.SetReadOnly("process_id", strconv.Itoa(os.Getpid()))
	// master(8) gives option -n only if the two names differ.
	p.Config.SetReadOnly("service_name", cmp.Or(p.Options.ServiceName, p.name))
	if err == nil {
		p.maxIdle, err = p.Config.Time("max_idle")
	}
	return err
}

// runDebugger runs debugger_command, and waits for it: a command that attaches
// to this process ends in "& sleep 5" or the like.
func (p *Process) runDebugger() error {
	command, err := p.Config.String("debugger_command")
	if err != nil || command == "" {
		return err
	}
	p.Log.Info("running: %s", command)
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Env = []string{"PATH=/usr/bin:/usr/sbin:/bin:/sbin"}
	for _, name := range []string{"DISPLAY", "XAUTHORITY", "HOME", "TZ", "LANG"} {
		if value := p.env(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	if err := cmd.Run(); err != nil {
		p.Log.Warning("debugger_command %q: %v", command, err)
	}
	return nil
}

// EnterJail opens the sockets. Then it gives up what the process does not need, as the
// options say: the file system outside queue_directory, and the privileges of root.
// Without Postfix it only opens the socket.
func (p *Process) EnterJail() error {
	if p.Options.Mode == Listening {
		l, err := listen(p.Options.Listen)
		p.listeners = []*os.File{l}
		return err
	}
	if p.Options.Mode == UnderMaster {
		if err := p.inherit(); err != nil {
			return err
		}
	}
	r := p.Config.Reader()
	j := jail{directory: r.String("queue_directory"), chroot: p.Options.Chroot}
	owner, data := r.String("mail_owner"), r.String("data_directory")
	if r.Err != nil {
		return r.Err
	}
	if p.Options.Unprivileged {
		j.owner = owner
	} else if uid, _, err := lookup(owner); err == nil {
		p.owner = uid // this user may connect; this process does not become it
	}
	if p.Options.Mode == UnderMaster {
		uid := -1
		if j.owner != "" {
			if uid, _, err := lookup(j.owner); err == nil {
				p.recordCrashes(data, uid)
			}
		} else {
			p.recordCrashes(data, uid)
		}
	}
	if err := j.enter(); err != nil || p.Options.Mode != UnderMaster {
		return err
	}
	return noNewPrivileges()
}

// Owner returns the uid of mail_owner if this process does not run as that user, and 0
// otherwise. The clients always run as mail_owner.
func (p *Process) Owner() int { return p.owner }

// inherit takes the descriptors that master gave.
func (p *Process) inherit() error {
	for fd := listenFD; fd < listenFD+p.Options.Sockets; fd++ {
		listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil || listens == 0 {
			return fmt.Errorf(
				"descriptor %d is not a listening socket: is this process a child of master(8)?", fd)
		}
		l, err := watched(fd, "listening socket")
		if err != nil {
			return err
		}
		p.listeners = append(p.listeners, l)
	}
	generation, err := strconv.ParseUint(p.env("GENERATION"), 8, 32)
	if err != nil {
		return fmt.Errorf("environment variable GENERATION: %w", err)
	}
	channel, err := watched(statusFD, "status channel")
	if err != nil {
		return err
	}
	p.status = &status{statusFD, channel, uint32(generation)}
	return nil
}

// watched returns a file for a descriptor which the poller of the runtime watches. It tries
// again after a transient failure of epoll(7).
func watched(fd int, name string) (*os.File, error) {
	const attempts = 5
	unix.SetNonblock(fd, true)
	for attempt := 1; ; attempt++ {
		f := os.NewFile(uintptr(fd), name)
		// NewFile returns no error: only a deadline shows whether the poller watches the file.
		if err := f.SetDeadline(time.Time{}); err == nil {
			return f, nil
		}
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil || attempt == attempts {
			return nil, fmt.Errorf("the %s cannot be watched by epoll(7): "+
				"the sysctl fs.epoll.max_user_watches or the memory of the kernel is used up", name)
		}
		fd = copied // f owns the former one
		time.Sleep(20 * time.Millisecond)
	}
}

// Socket returns the path of the service's own socket, as seen by this process. Its
// working directory is queue_directory, and the path can be relative to that.
func (p *Process) Socket() string {
	path := p.Options.Listen
	if own, err := unix.Getsockname(p.Listener()); err == nil {
		path = own.(*unix.SockaddrUnix).Name
	}
	queue, err := p.Config.String("queue_directory")
	if err == nil && p.Options.Mode != Listening {
		if relative, found := strings.CutPrefix(path, queue+"/"); found {
			return relative
		}
	}
	return path
}

// Listener returns the descriptor of the service's own socket.
func (p *Process) Listener() (fd int) {
	raw, _ := p.listeners[0].SyscallConn() // no error, as the listener is open
	raw.Control(func(f uintptr) { fd = int(f) })
	return fd
}

// listen opens a socket to which only the present user may connect. It replaces a
// socket that no process serves.
func listen(path string) (*os.File, error) {
	switch conn, err := net.Dial("unix", path); {
	case err == nil:
		conn.Close()
		return nil, fmt.Errorf("%s: another process serves this socket", path)
	case errors.Is(err, unix.ECONNREFUSED):
		if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() == os.ModeSocket {
			os.Remove(path)
		}
	case errors.Is(err, unix.EAGAIN):
		return nil, fmt.Errorf("%s: another process has this socket, and does not serve it", path)
	}
	defer syscall.Umask(syscall.Umask(0o177))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return l.File()
}

// Check returns all errors that would prevent a process with these options and this
// main.cf from serving, and enters the jail.
func (p *Process) Check() (err error) {
	for _, param := range mailconf.Parameters {
		err = errors.Join(err, p.Config.Check(param.Name))
	}
	if err == nil {
		_, err = p.sinks()
	}
	return errors.Join(err, p.EnterJail())
}

// Fatal logs the error that ends the process, and prints it to standard error unless
// the log does.
func (p *Process) Fatal(err error) {
	err = errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	if p.Log != nil && p.Options.Mode != Listening {
		p.Log.LogFatal("%v", err)
		p.Log.Flush(time.Second)
	}
	if !p.Options.Stderr || p.Options.Mode == Listening {
		fmt.Fprintf(os.Stderr, "%s: fatal: %v\n", p.name, err)
	}
}
