// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"scache/internal/postfix"
	"scache/internal/testenv"
)

// An Instance is a private Postfix mail system: in a temporary directory, on loopback ports,
// independent of /etc/postfix. It relays mail to a Sink or a Receiver.
type Instance struct {
	Dir    string // holds etc, queue, data, libexec and maillog
	SMTP   string // address of smtpd, "127.0.0.1:port"
	master string // the entries of master.cf, except smtpd's
	guard  io.Closer
	log    *logReceiver
	main   map[string]string
}

// Config is the configuration of an instance.
type Config struct {
	// Scache is the binary of the connection cache: ours, the stock one, or
	// none. It is copied into the instance, because a chrooted process finds
	// no other files.
	Scache string

	// Chroot is the chroot column of the scache entry: "y" or "n".
	Chroot string

	// Main is added to main.cf, and Master to master.cf, in its format.
	Main   map[string]string
	Master string

	// Hosts has the addresses of host names that only this instance knows.
	Hosts map[string][]string

	// Syslog logs to syslogd instead of Dir/maillog.
	Syslog bool
}

// masterCF has the services that relaying mail needs, and no others.
const masterCF = `cleanup unix n - y - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - y 1000? 1 tlsmgr
rewrite unix - - y - - trivial-rewrite
bounce unix - - y - 0 bounce
defer unix - - y - 0 bounce
trace unix - - y - 0 bounce
flush unix n - y 1000? 0 flush
smtp unix - - y - - smtp
relay unix - - y - - smtp -o syslog_name=postfix/$service_name
lmtp unix - - y - - lmtp
error unix - - y - - error
retry unix - - y - - error
tlsproxy unix - - y - 0 tlsproxy
showq unix n - y - - showq
postlog unix-dgram n - n - 1 postlogd
`

// logService is the service that the log goes to. Postlogd(8) is not used: at a reload with
// much mail, it may wait for room in its status channel to master(8), and master for room in
// the log socket.
const logService = "logreceiver"

// NewInstance writes the configuration of an instance. It needs root.
func NewInstance(c Config) (*Instance, error) {
	dir, err := os.MkdirTemp("", "scache-postfix-")
	if err != nil {
		return nil, err
	}
	i := &Instance{Dir: dir, master: masterCF + c.Master}
	if err := i.prepare(c); err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}

func (i *Instance) prepare(c Config) error {
	if err := os.Chmod(i.Dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"etc", "queue", "data", "libexec"} {
		if err := os.Mkdir(i.path(name), 0o755); err != nil {
			return err
		}
	}
	if err := chown(i.path("data"), "postfix", "root"); err != nil {
		return err
	}
	if err := i.linkDaemons(); err != nil {
		return err
	}
	if err := i.writeHosts(c.Hosts); err != nil {
		return err
	}
	if c.Scache != "" {
		if err := i.SetScache(c.Scache, c.Chroot); err != nil {
			return err
		}
	}
	port, err := FreePort()
	if err != nil {
		return err
	}
	i.SMTP = "127.0.0.1:" + strconv.Itoa(port)
	i.main = map[string]string{
		"compatibility_level":          "3.6",
		"queue_directory":              i.path("queue"),
		"data_directory":               i.path("data"),
		"daemon_directory":             i.path("libexec"),
		"maillog_file":                 i.path("maillog"),
		"maillog_file_prefixes":        os.TempDir(),
		"postlog_service_name":         logService,
		"inet_interfaces":              "127.0.0.1",
		"inet_protocols":               "ipv4",
		"myhostname":                   "scache.test",
		"mydestination":                "",
		"local_recipient_maps":         "",
		"alias_maps":                   "",
		"smtp_host_lookup":             "native",
		"smtpd_recipient_restrictions": "permit_mynetworks,reject",
		"mynetworks":                   "127.0.0.0/8",
		"import_environment": "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C POSTLOG_SERVICE " +
			"POSTLOG_HOSTNAME " + strings.Join(environment(), " "),
	}
	if c.Syslog {
		i.main["maillog_file"] = ""
	}
	for name, value := range c.Main {
		i.main[name] = value
	}
	return i.Configure(nil)
}

// linkDaemons makes a daemon directory with links to the installed daemons and a directory
// for our own.
func (i *Instance) linkDaemons() error {
	dir, err := DaemonDirectory()
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		link := filepath.Join(i.path("libexec"), e.Name())
		if err := os.Symlink(filepath.Join(dir, e.Name()), link); err != nil {
			return err
		}
	}
	return os.Mkdir(i.path("libexec/scache-go"), 0o755)
}

// writeHosts writes the hosts(5) file of the jail that the delivery agents run in.
func (i *Instance) writeHosts(hosts map[string][]string) error {
	if len(hosts) == 0 {
		return nil // Postfix warns of a file that differs from /etc/hosts
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		for _, address := range hosts[name] {
			fmt.Fprintln(&text, address, name)
		}
	}
	if err := os.MkdirAll(i.path("queue/etc"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(i.path("queue/etc/hosts"), []byte(text.String()), 0o644)
}

// SetScache copies a binary into the instance and names it in master.cf. Configure writes
// that.
func (i *Instance) SetScache(binary, chroot string) error {
	data, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	const name = "scache-go/scache"
	if err := testenv.WriteProgram(filepath.Join(i.path("libexec"), name), string(data)); err != nil {
		return err
	}
	i.master += fmt.Sprintf("scache unix - - %s - 1 %s\n", chroot, name)
	return nil
}

// Configure changes settings and writes main.cf and master.cf.
func (i *Instance) Configure(settings map[string]string) error {
	var text []string
	for name, value := range settings {
		i.main[name] = value
	}
	for name, value := range i.main {
		text = append(text, name+" = "+value+"\n")
	}
	sort.Strings(text)
	files := map[string]string{
		"etc/main.cf":   strings.Join(text, ""),
		"etc/master.cf": i.SMTP + " inet n - y - - smtpd\n" + i.master,
	}
	old := time.Now().Add(-time.Hour) // Postfix waits while a file is being edited
	for name, data := range files {
		if err := os.WriteFile(i.path(name), []byte(data), 0o644); err != nil {
			return err
		}
		if err := os.Chtimes(i.path(name), old, old); err != nil {
			return err
		}
	}
	return nil
}

func (i *Instance) path(name string) string { return filepath.Join(i.Dir, name) }

// commandTimeout is how long a command may take.
const commandTimeout = time.Minute

// Command runs "postfix start", "postfix reload" or the like for the instance.
func (i *Instance) Command(command string) error {
	system, err := postfix.Open(i.path("etc"))
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
		defer cancel()
		err = system.Postfix(ctx, command)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, i.tail())
	}
	return nil
}

func (i *Instance) tail() string {
	lines := i.Log()
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// Start starts the instance and waits until it answers. The instance ends with this process,
// even if this process is killed.
func (i *Instance) Start() error {
	if err := i.startGuard(); err != nil {
		return err
	}
	if err := i.startLog(); err != nil {
		return err
	}
	if err := i.Command("start"); err != nil {
		return err
	}
	return waitFor(i.SMTP)
}

// startGuard starts a shell that stops the instance and removes its files when its pipe from
// this process is closed.
func (i *Instance) startGuard() error {
	if i.guard != nil {
		return nil
	}
	const script = `cat; test ! -e "$0" || { postfix -c "$0/etc" stop; rm -rf "$0"; } >/dev/null 2>&1`
	guard := exec.Command("sh", "-c", script, i.Dir)
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := guard.StdinPipe()
	if err != nil {
		return err
	}
	i.guard = pipe
	if err := guard.Start(); err != nil {
		return err
	}
	go guard.Wait()
	return nil
}

// startLog receives what the instance logs, in Dir/maillog, unless its configuration says that
// another service does.
func (i *Instance) startLog() (err error) {
	if i.log != nil || i.main["maillog_file"] == "" || i.main["postlog_service_name"] != logService {
		return nil
	}
	public := filepath.Join(i.main["queue_directory"], "public") // as "postfix start" makes it
	if err := os.Mkdir(public, 0o710); err != nil {
		return err
	}
	if err := chown(public, "postfix", "postdrop"); err != nil {
		return err
	}
	i.log, err = startLogReceiver(filepath.Join(public, logService), i.path("maillog"))
	return err
}

// Send sends messages of 1 kB over this number of parallel connections.
func (i *Instance) Send(ctx context.Context, messages, connections int, recipient string) error {
	cmd := exec.CommandContext(ctx, "smtp-source",
		"-m", strconv.Itoa(messages), "-s", strconv.Itoa(connections),
		"-l", "1024", "-f", "sender@scache.test", "-t", recipient, i.SMTP)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("smtp-source: %w: %s%s", err, out, i.tail())
	}
	return nil
}

// Sent returns how many messages were delivered so far, and over how many new connections.
// The log line of a delivery over a reused connection has conn_use=.
func (i *Instance) Sent() (messages, connections int) {
	messages = len(i.Grep("status=sent"))
	return messages, messages - len(i.Grep("status=sent", "conn_use="))
}

// WaitSent waits until this number of messages has been delivered. The queue is no measure:
// after a reload, the queue manager may keep files of delivered mail for a minute.
func (i *Instance) WaitSent(ctx context.Context, messages int) error {
	return i.wait(ctx, func() bool { sent, _ := i.Sent(); return sent >= messages })
}

// WaitEmpty waits until all mail has left the queue.
func (i *Instance) WaitEmpty(ctx context.Context) error { return i.wait(ctx, i.empty) }

// wait waits until done returns true. Deferred mail is an error, because it would stay in the
// queue for minutes.
func (i *Instance) wait(ctx context.Context, done func() bool) error {
	for !done() {
		if i.queued("deferred") {
			return fmt.Errorf("mail is deferred\n%s", i.tail())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("mail is left in the queue: %w\n%s", ctx.Err(), i.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// empty reports whether all queues are empty. It checks them in the order in which mail passes
// through, and twice, because a file may move from one to the next meanwhile.
func (i *Instance) empty() bool {
	for range 2 {
		for _, queue := range []string{"incoming", "active", "deferred"} {
			if i.queued(queue) {
				return false
			}
		}
	}
	return true
}

func (i *Instance) queued(queue string) (found bool) {
	filepath.WalkDir(i.path("queue/"+queue), func(_ string, e os.DirEntry, err error) error {
		found = found || err == nil && !e.IsDir()
		return nil
	})
	return found
}

// Log returns the lines of Dir/maillog.
func (i *Instance) Log() []string {
	data, err := os.ReadFile(i.path("maillog"))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

// Grep returns the lines of the log that contain all these texts.
func (i *Instance) Grep(texts ...string) []string {
	var found []string
lines:
	for _, line := range i.Log() {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		found = append(found, line)
	}
	return found
}

// Kill kills all processes of the instance.
func (i *Instance) Kill() {
	text, err := os.ReadFile(i.path("queue/pid/master.pid"))
	if err != nil {
		return
	}
	// In a namespace of its own, master may be process 1, which is another one here.
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
		syscall.Kill(-pid, syscall.SIGKILL) // master leads a process group
	}
}

// Close stops the instance, if it runs, and removes it.
func (i *Instance) Close() error {
	if _, err := os.Stat(i.path("queue/pid/master.pid")); err == nil && i.Command("stop") != nil {
		i.Kill()
	}
	if i.log != nil {
		i.log.close()
	}
	err := os.RemoveAll(i.Dir)
	if i.guard != nil {
		i.guard.Close()
	}
	return err
}

// waitFor waits until connections to an address are accepted.
func waitFor(address string) (err error) {
	for end := time.Now().Add(commandTimeout); time.Now().Before(end); {
		var conn net.Conn
		if conn, err = net.Dial("tcp", address); err == nil {
			conn.Close()
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func chown(path, owner, group string) error {
	u, err := user.Lookup(owner)
	if err != nil {
		return err
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(g.Gid)
	return os.Chown(path, uid, gid)
}
