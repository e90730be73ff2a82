// SPDX-License-Identifier: EPL-2.0

package master

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"scache/internal/mailconf"
	"scache/internal/maillog"
)

// earlySinks returns the sinks for lines before main.cf is read: the log of master(8).
func (p *Process) earlySinks() []maillog.Sink {
	tag := p.tag(cmp.Or(p.env("MAIL_LOGTAG"), "postfix"))
	if service := p.env("POSTLOG_SERVICE"); service != "" {
		return p.withStderr(tag, maillog.Postlog(p.env("POSTLOG_HOSTNAME"), tag, service))
	}
	sink, err := maillog.Syslog("mail", tag)
	if err != nil {
		panic(err) // there is a facility "mail"
	}
	return p.withStderr(tag, sink)
}

// sinks returns the sinks that main.cf sets.
func (p *Process) sinks() ([]maillog.Sink, error) {
	r := p.Config.Reader()
	name := p.tag(r.String("syslog_name"))
	file, prefixes := r.String("maillog_file"), r.String("maillog_file_prefixes")
	queue, service := r.String("queue_directory"), r.String("postlog_service_name")
	host, facility := r.String("myhostname"), r.String("syslog_facility")
	if r.Err != nil {
		return nil, r.Err
	}
	if file == "" {
		sink, err := maillog.Syslog(facility, name)
		if err != nil {
			return nil, fmt.Errorf("parameter syslog_facility: %w", err)
		}
		return p.withStderr(name, sink), nil
	}
	if !hasPrefixOf(file, prefixes) {
		return nil, fmt.Errorf(
			"parameter maillog_file: %q does not match any prefix in maillog_file_prefixes (%s)",
			file, prefixes)
	}
	// In the jail, only the second path, which is relative, leads to the socket.
	socket := filepath.Join("public", service)
	return p.withStderr(name, maillog.Postlog(host, name, filepath.Join(queue, socket), socket)), nil
}

func hasPrefixOf(file, prefixes string) bool {
	for _, prefix := range mailconf.Fields(prefixes) {
		if strings.HasPrefix(file, prefix) {
			return true
		}
	}
	return false
}

func (p *Process) tag(name string) string { return name + "/" + p.name }

func (p *Process) withStderr(tag string, sink maillog.Sink) []maillog.Sink {
	if p.Options.Stderr {
		return []maillog.Sink{sink, maillog.Stream(os.Stderr, tag)}
	}
	return []maillog.Sink{sink}
}
