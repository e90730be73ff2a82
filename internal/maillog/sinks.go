// SPDX-License-Identifier: EPL-2.0

package maillog

import (
	"fmt"
	"io"
	"log/syslog"
	"net"
	"os"
	"strings"
	"time"
)

// facilities are the names of syslog_facility.
var facilities = map[string]syslog.Priority{
	"kern": syslog.LOG_KERN, "user": syslog.LOG_USER, "mail": syslog.LOG_MAIL,
	"daemon": syslog.LOG_DAEMON, "auth": syslog.LOG_AUTH, "syslog": syslog.LOG_SYSLOG,
	"lpr": syslog.LOG_LPR, "news": syslog.LOG_NEWS, "uucp": syslog.LOG_UUCP,
	"cron": syslog.LOG_CRON, "authpriv": syslog.LOG_AUTHPRIV, "ftp": syslog.LOG_FTP,
	"local0": syslog.LOG_LOCAL0, "local1": syslog.LOG_LOCAL1, "local2": syslog.LOG_LOCAL2,
	"local3": syslog.LOG_LOCAL3, "local4": syslog.LOG_LOCAL4, "local5": syslog.LOG_LOCAL5,
	"local6": syslog.LOG_LOCAL6, "local7": syslog.LOG_LOCAL7,
}

type syslogSink struct {
	priority syslog.Priority
	tag      string
	w        *syslog.Writer // nil while there is no connection
}

// Syslog returns a sink that logs to syslogd(8), with a facility by its name
// in syslog.conf(5). It connects at once, so that it works in a chroot jail
// later, and tries again with every line if it cannot.
func Syslog(facility, tag string) (Sink, error) {
	priority, found := facilities[strings.ToLower(facility)]
	if !found {
		return nil, fmt.Errorf("unknown syslog facility: %.100q", facility)
	}
	s := &syslogSink{priority: priority, tag: tag}
	s.connect()
	return s, nil
}

func (s *syslogSink) connect() (err error) {
	s.w, err = syslog.New(s.priority, s.tag)
	return err
}

func (s *syslogSink) Write(level Level, line string) error {
	if s.w == nil {
		if err := s.connect(); err != nil {
			return err
		}
	}
	switch level { // the writer connects again if it has lost syslogd
	case Warning:
		return s.w.Warning(line)
	case Fatal, Panic:
		return s.w.Crit(line)
	}
	return s.w.Info(line)
}

func (s *syslogSink) Close() error {
	if s.w == nil {
		return nil
	}
	return s.w.Close()
}

type postlogSink struct {
	paths  []string
	header string // host and tag
	conn   net.Conn
}

// Postlog returns a sink that logs to postlogd(8), over the first of these
// sockets that it can connect to. It connects at once, so that it works in a
// chroot jail later, and tries again with every line if it cannot.
func Postlog(host, tag string, paths ...string) Sink {
	host, _, _ = strings.Cut(host, ".")
	s := &postlogSink{paths: paths, header: fmt.Sprintf("%s %s[%d]", host, tag, os.Getpid())}
	s.connect()
	return s
}

func (s *postlogSink) connect() (err error) {
	for _, path := range s.paths {
		if s.conn, err = net.Dial("unixgram", path); err == nil {
			return nil
		}
	}
	s.conn = nil
	return err
}

func (s *postlogSink) Write(_ Level, line string) error {
	if s.conn != nil && s.send(line) == nil {
		return nil
	}
	if s.conn != nil {
		s.conn.Close()
	}
	if err := s.connect(); err != nil {
		return err
	}
	return s.send(line)
}

func (s *postlogSink) Close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

func (s *postlogSink) send(line string) error {
	_, err := fmt.Fprint(s.conn, postlogLine(time.Now(), s.header, line))
	return err
}

// postlogStamp is the time in a line for postlogd(8), which adds none: the day has a leading
// zero, as all daemons of Postfix write it, and unlike time.Stamp.
const postlogStamp = "Jan 02 15:04:05"

func postlogLine(now time.Time, header, line string) string {
	return now.Format(postlogStamp) + " " + header + ": " + line
}

type streamSink struct {
	w      io.Writer
	header string
}

// Stream returns a sink that writes lines to a stream such as standard error.
func Stream(w io.Writer, tag string) Sink {
	return &streamSink{w, fmt.Sprintf("%s[%d]", tag, os.Getpid())}
}

func (s *streamSink) Write(_ Level, line string) error {
	_, err := fmt.Fprintf(s.w, "%s: %s\n", s.header, line)
	return err
}
