// SPDX-License-Identifier: EPL-2.0

// The checks of doctor.

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"scache/internal/mailconf"
	"scache/internal/postfix"
)

func (d *doctor) checkEntry() {
	var err error
	if d.entry, err = d.system.Entry(); err != nil {
		do := "Postfix has it in the master.cf that it installs: scache unix - - y - 1 scache"
		if d.system.Interrupted() {
			do = "scachectl enable or disable puts it back: one of them was interrupted"
		}
		d.problem("entry", do, "%v", err)
		return
	}
	if lines := d.system.Duplicates(); lines != nil {
		d.note("entry", "remove the others", "%s", describeDuplicates(d.system, lines))
	}
	if err := d.system.CheckEntry(d.entry); err != nil {
		d.problem("entry", "correct the column that is named, and run postfix reload", "%v", err)
	}
	if d.system.HasSaved() && !d.enabled() {
		d.note("entry", "if configuration management writes master.cf, it needs the line of "+
			"scachectl enable --print; else scachectl disable removes the file",
			"%s is there, and the entry is another server: "+
				"master.cf was written back since scachectl enable", d.system.SavedPath())
	}
	if d.enabled() {
		d.ok("entry", "%s unix is this server: %s", d.entry.Name, d.entry.Command)
	} else {
		d.note("entry", "scachectl enable switches to this server",
			"%s unix is another server: %s", d.entry.Name, d.entry.Command)
	}
}

// checkValues runs the binary in a trial. Without root, it checks the values of the
// parameters itself.
func (d *doctor) checkValues() {
	if d.entry.Command == "" {
		return
	}
	const do = "correct what is named, and run postfix reload"
	c, err := d.system.Columns(d.entry)
	if err != nil {
		return // which checkEntry has reported
	}
	if os.Geteuid() != 0 {
		conf, err := d.system.ServerConfig()
		if err == nil {
			_, err = readSettings(conf)
		}
		if err != nil {
			d.problem("configuration", do, "%v", err)
		} else {
			d.ok("configuration", "the server takes all values; the process limit is %d",
				c.ProcessLimit)
		}
		return
	}
	path, err := d.system.CommandPath(d.entry.Command)
	if !d.enabled() {
		s := &switcher{site: d.site, system: d.system}
		_, path, err = s.findServer()
	}
	if err == nil {
		err = d.system.Probe(path, d.entry, trialClients()...)
	}
	if err != nil {
		d.problem("configuration", do, "%v", err)
	} else {
		d.ok("configuration", "the server serves with it in a trial; the process limit is %d",
			c.ProcessLimit)
	}
}

// agentParameters are the parameters of delivery agents about the cache, without smtp_
// or lmtp_.
var agentParameters = []string{
	"connection_cache_on_demand", "connection_cache_destinations", "connection_cache_time_limit",
	"connection_reuse_count_limit", "connection_reuse_time_limit", "tls_connection_reuse",
}

// aboutCaching matches the names of parameters about this service.
var aboutCaching = regexp.MustCompile("connection_(cache|reuse)(_|$)")

// replacedParameters are parameters of earlier versions of Postfix that guides still show, and
// the parameters that replaced them.
var replacedParameters = map[string]string{
	"smtp_connection_cache_reuse_limit": "smtp_connection_reuse_time_limit, " +
		"or smtp_connection_reuse_count_limit",
	"lmtp_connection_cache_reuse_limit": "lmtp_connection_reuse_time_limit, " +
		"or lmtp_connection_reuse_count_limit",
	"lmtp_cache_connection": "lmtp_connection_cache_on_demand",
}

// knownParameters returns the names of all parameters that this server or a delivery agent reads.
func knownParameters() []string {
	known := []string{"connection_cache_service_name", "connection_cache_protocol_timeout"}
	for _, p := range mailconf.Parameters {
		known = append(known, p.Name)
	}
	for _, protocol := range []string{"smtp_", "lmtp_"} {
		for _, name := range agentParameters {
			known = append(known, protocol+name)
		}
	}
	return known
}

// setParameters returns the names of the parameters that main.cf or an entry of master.cf sets.
func setParameters(system *postfix.System) []string {
	names := system.Config.Names()
	all, _ := system.Entries()
	for _, e := range all {
		for _, option := range e.Options() {
			name, _, _ := strings.Cut(option, "=")
			names = append(names, strings.TrimSpace(name))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkNames looks for parameters that no program reads.
func (d *doctor) checkNames() {
	known := knownParameters()
	found := 0
	for _, name := range setParameters(d.system) {
		if d.system.RefersTo(name) {
			continue
		}
		if replaced := replacedParameters[name]; replaced != "" {
			found++
			d.problem("names", "set "+replaced,
				"%s is set, which this version of Postfix does not know", name)
		} else if aboutCaching.MatchString(name) && !slices.Contains(known, name) {
			found++
			d.problem("names", "scachectl config shows the names of all parameters",
				"unknown parameter %s is set", name)
		}
	}
	if found == 0 {
		d.ok("names", "all connection_cache parameters that are set are known")
	}
}

func (d *doctor) checkVersions() {
	postfixVersion, err := d.system.Version()
	if err != nil {
		d.problem("versions", "see whether Postfix is installed completely", "%v", err)
		return
	}
	if d.answered() {
		if d.status.Announces != postfixVersion.AtLeast(3, 6) {
			d.problem("versions",
				"leave connection_cache_announce_protocol at auto, and run postfix reload",
				"clients of Postfix %s do not expect what the server says first: announcement %s",
				postfixVersion, onOff(d.status.Announces))
		}
	}
	i, err := findInstalled(d.system, d.status)
	switch {
	case !d.enabled():
		d.ok("versions", "Postfix %s", postfixVersion)
	case err != nil:
		d.problem("versions", "install it again", "%v", err)
	case d.answered() && !i.Running:
		d.note("versions", "scachectl restart puts it in place, and loses nothing",
			"scache %s runs, and another binary is installed: scache %s", d.status.Version, i.Version)
	default:
		d.ok("versions", "Postfix %s, scache %s", postfixVersion, i.Version)
	}
}

// checkSocket checks who may reach the server.
func (d *doctor) checkSocket() {
	path, err := d.system.Socket()
	if err != nil {
		d.problem("socket", "correct main.cf", "%v", err)
		return
	}
	owner, _ := d.system.Owner()
	uid, err := ownerID(owner)
	if err != nil {
		d.problem("socket", "correct mail_owner in main.cf", "%v", err)
		return
	}
	private, err := os.Stat(filepath.Dir(path))
	if err != nil {
		d.note("socket", "start Postfix, which makes it", "%v", err)
		return
	}
	have := int(private.Sys().(*syscall.Stat_t).Uid)
	if private.Mode().Perm()&0o077 != 0 || have != uid {
		d.problem("socket", "postfix set-permissions puts it right",
			"%s belongs to %s, with mode %v; want %s only",
			filepath.Dir(path), nameOf(have), private.Mode().Perm(), owner)
		return
	}
	st, err := os.Lstat(path)
	switch {
	case os.IsPermission(err):
		d.note("socket", "run this as root", "%v", err)
	case os.IsNotExist(err) && !d.running:
		d.ok("socket", "%s is made when Postfix starts", path)
	case err != nil:
		d.problem("socket", "run postfix reload; see whether the entry is in master.cf", "%v", err)
	case st.Mode().Type() != fs.ModeSocket:
		d.problem("socket", "remove it, and run postfix reload", "%s is not a socket", path)
	default:
		d.ok("socket", "%s, in a directory for %s only", path, owner)
	}
}

// nameOf returns the name of a user, or its number if /etc/passwd does not have it.
func nameOf(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// ownerID returns the uid of a user. If the user is not in /etc/passwd, it asks id(1), which
// asks every source of names.
func ownerID(name string) (uid int, err error) {
	if u, err := user.Lookup(name); err == nil {
		return strconv.Atoi(u.Uid)
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout/2)
	defer cancel()
	out, err := exec.CommandContext(ctx, "id", "-u", "--", name).Output()
	if err != nil {
		return 0, fmt.Errorf("mail_owner: there is no user %s", name)
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}

// checkAnswer checks whether the right server answers.
func (d *doctor) checkAnswer() {
	switch {
	case !d.running:
		d.note("answer", "postfix start", "%v", d.statusErr)
	case d.answered() && d.enabled(), d.stock() && !d.enabled():
		d.ok("answer", "the server of the entry answers")
	case d.answered() || d.stock():
		d.problem("answer", "postfix reload", "another server than that of the entry answers")
	default:
		d.problem("answer", "see the mail log for its last words; "+
			"master(8) pauses for a minute after a failure, which scachectl enable or disable ends",
			"the server does not answer, and may be throttled: %v", d.statusErr)
	}
}

// checkConfinement looks for mandatory access control of master(8).
func (d *doctor) checkConfinement() {
	pid, running := d.system.MasterPID()
	if !running {
		return
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", pid))
	label := strings.Trim(string(text), "\x00\n ")
	if err != nil || label == "" || strings.Contains(label, "unconfined") || label == "kernel" {
		d.ok("confinement", "no mandatory access control confines master(8)")
		return
	}
	d.note("confinement", "if the server does not start: label its binary as the stock one "+
		"(SELinux: semanage fcontext -a -e STOCK OURS; restorecon OURS), "+
		"or allow it in the profile of master (AppArmor)",
		"mandatory access control confines master(8): %s", label)
}

// checkLimits compares the limits with the numbers that are in use.
func (d *doctor) checkLimits() {
	d.checkProcessLimits()
	if !d.answered() {
		return
	}
	s := d.status
	const do = "raise the limit of open files of the master process " +
		"(systemd: LimitNOFILE of the service), " +
		"or lower connection_cache_session_limit if it is meant"
	switch {
	case s.EvictedForMemory > 0:
		d.note("limits", "raise connection_cache_memory_limit, if clients are to be trusted",
			"%d sessions and bindings had to make room for others in the memory of the cache: "+
				"%d of %d bytes are in use", s.EvictedForMemory, s.Memory, s.MemoryLimit)
	case s.Evicted > 0:
		d.note("limits", do,
			"%d sessions had to make room for others: %d fit at present, with %d clients",
			s.Evicted, s.SessionLimit, s.Clients)
	case s.PeakSessions*10 > s.SessionLimit*9:
		d.note("limits", do, "at most %d sessions were cached, and %d fit",
			s.PeakSessions, s.SessionLimit)
	default:
		d.ok("limits", "%d sessions fit, at most %d were cached; %d clients",
			s.SessionLimit, s.PeakSessions, s.Clients)
	}
	if s.Refused > 0 {
		d.note("limits", "find out who: the mail log has uid and pid",
			"%d clients of other users were refused", s.Refused)
	}
}

// Percentages of the saved sessions above which doctor and explain make a note.
const (
	muchDead    = 20
	muchExpired = 50
)

// enoughSaved is how many sessions must have been saved before doctor judges their rates.
const enoughSaved = 100

func (d *doctor) checkRates() {
	if !d.answered() {
		return
	}
	s := d.status
	share := func(n int64) int64 { return 100 * n / max(s.Saved, 1) }
	hits := s.DestinationHits + s.EndpointHits
	switch {
	case s.Saved < enoughSaved:
		d.ok("rates", "%d connections were saved in %v: too few to judge",
			s.Saved, round(max(s.Counted, s.Uptime)))
	case share(s.Dead) > muchDead:
		d.note("rates", "lower smtp_connection_cache_time_limit: receivers hang up earlier",
			"%d %% of the saved connections were dead when they were wanted", share(s.Dead))
	case share(s.Expired) > muchExpired:
		d.note("rates", "nothing, if mail comes rarely; "+
			"else see whether smtp_connection_cache_destinations names more than what has much mail",
			"%d %% of the saved connections were not used again", share(s.Expired))
	default:
		d.ok("rates", "%d connections saved, %d reused, %d dead, %d expired",
			s.Saved, hits, s.Dead, s.Expired)
	}
	if s.Saved >= enoughSaved {
		d.ok("rates", "lookups that hit: destinations %s, addresses %s; "+
			"the latter come after a miss of the former, and mostly miss, too",
			percent(s.DestinationHits, s.DestinationHits+s.DestinationMisses),
			percent(s.EndpointHits, s.EndpointHits+s.EndpointMisses))
	}
}

// checkLog looks for the last fatal error of the server in the log.
func (d *doctor) checkLog() {
	serves := d.answered() || d.stock()
	name, lines, err := d.system.Log(!serves, d.system.ServerTags()...)
	if err != nil {
		d.note("log", "look for the lines of scache in the mail log, wherever that goes",
			"the log cannot be read: %v", err)
		return
	}
	fatal := lastFatal(lines)
	switch {
	case fatal == "":
		d.ok("log", "no fatal error of the server in %s", name)
	case serves:
		d.note("log", "nothing, if that is over", "the last fatal error in %s: %s", name, fatal)
	default:
		d.problem("log", "correct what it names; scache-go(8) explains each line",
			"the last fatal error in %s: %s", name, fatal)
	}
}

// lastFatal returns the last line with which a server ended. After a panic, lines with its stack
// follow, which do not count.
func lastFatal(lines []postfix.LogLine) (last string) {
	for _, l := range lines {
		if l.Fatal() && !strings.HasPrefix(l.Text, "panic: at ") {
			last = l.Line
		}
	}
	return last
}
