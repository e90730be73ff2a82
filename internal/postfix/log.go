// SPDX-License-Identifier: EPL-2.0

// The mail log as an administrator has it: a file, or the journal of systemd.

package postfix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// logTail is how much of a log is read.
	logTail = 4 << 20
	// logTimeout is how long reading it may take.
	logTimeout = 2 * time.Second
)

// syslogFiles are where syslogd writes the mail log on common systems, those with nothing else
// first.
var syslogFiles = [][]string{
	{"/var/log/mail.log", "/var/log/maillog", "/var/log/mail"},
	{"/var/log/syslog", "/var/log/messages"},
}

// A LogLine is a line of the log: the whole line, the tag of the process, and the text behind it.
type LogLine struct{ Line, Tag, Text string }

// Fatal reports whether the process ended with this line.
func (l LogLine) Fatal() bool {
	return strings.HasPrefix(l.Text, "fatal: ") || strings.HasPrefix(l.Text, "panic: ")
}

// Log returns the lines of these tags at the end of the mail log, and the name of the log. With
// rotated, it reads the log before the present one, too.
func (s *System) Log(rotated bool, tags ...string) (name string, lines []LogLine, err error) {
	path, err := s.logFile()
	if path == "" && err == nil {
		return s.journal(tags, time.Time{})
	}
	if err != nil {
		return path, nil, err
	}
	paths := []string{path}
	if rotated {
		paths = append(rotatedFrom(path), path)
	}
	for _, each := range paths {
		text, wrong := readTail(each, 0)
		if each == path {
			err = wrong
		}
		lines = append(lines, selectLines(text, tags)...)
	}
	return path, lines, err
}

// logFile returns the path of the log, or nothing if it is not in a file.
func (s *System) logFile() (string, error) {
	file, err := s.Config.String("maillog_file")
	if err != nil {
		return "", err
	}
	if file != "" {
		return file, regular(file)
	}
	for _, candidates := range syslogFiles {
		if path := newestFile(candidates); path != "" {
			return path, nil
		}
	}
	return "", nil
}

// newestFile returns the regular file that was written last, or "".
func newestFile(candidates []string) (path string) {
	newest := time.Time{}
	for _, candidate := range candidates {
		fi, err := os.Stat(candidate)
		if err == nil && regular(candidate) == nil && fi.ModTime().After(newest) {
			newest, path = fi.ModTime(), candidate
		}
	}
	return path
}

// ErrNoLogFile is the error for a log that goes to a device, a pipe or the like.
var ErrNoLogFile = errors.New("not a regular file: what was written to it cannot be read back")

// regular returns an error unless a path leads to a regular file. A path through /dev or /proc
// is an error: /dev/stdout would be the output of this process, not of the logging one.
func regular(path string) error {
	for hop, n := path, 0; n < 40; n++ {
		if strings.HasPrefix(hop, "/dev/") || strings.HasPrefix(hop, "/proc/") {
			return fmt.Errorf("%s: %w", path, ErrNoLogFile)
		}
		target, err := os.Readlink(hop)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(hop), target)
		}
		hop = target
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s: %w", path, ErrNoLogFile)
	}
	return nil
}

// rotatedFrom returns the newest file to which logrotate(8) has renamed a log. Compressed files
// are not considered.
func rotatedFrom(path string) []string {
	dated, _ := filepath.Glob(path + "-[0-9]*")
	names := append(slices.DeleteFunc(dated, func(name string) bool {
		return strings.Trim(strings.TrimPrefix(name, path+"-"), "0123456789") != ""
	}), path+".1", path+".0")
	if newest := newestFile(names); newest != "" {
		return []string{newest}
	}
	return nil
}

// readTail returns the last logTail bytes of a file, without an incomplete first line. It returns
// nothing before the offset from.
func readTail(path string, from int64) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := readTailOf(path, from)
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-time.After(logTimeout):
		return nil, fmt.Errorf("read %s: %w within %v", path, os.ErrDeadlineExceeded, logTimeout)
	}
}

func readTailOf(path string, from int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // it may have become a pipe
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, ErrNoLogFile)
	}
	if from > fi.Size() {
		from = 0 // the log was rotated: this is another file
	}
	start := max(from, fi.Size()-logTail)
	text, err := io.ReadAll(io.NewSectionReader(f, start, fi.Size()-start))
	if start > from {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return text, err
}

// journal returns the lines of these tags in the journal.
func (s *System) journal(tags []string, since time.Time) (name string, lines []LogLine, err error) {
	const journal = "the journal"
	args := []string{"--quiet", "--no-pager", "--output=short", "--lines=1000"}
	if !since.IsZero() {
		args = append(args, "--since=@"+strconv.FormatInt(since.Unix(), 10))
	}
	for _, tag := range tags {
		args = append(args, "--identifier="+tag)
	}
	ctx, cancel := context.WithTimeout(context.Background(), logTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "journalctl", args...)
	cmd.WaitDelay = logTimeout / 10
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("journalctl: no answer within %v", logTimeout)
	case errors.Is(err, exec.ErrNotFound):
		err = fmt.Errorf("there is no log file (%s) and no journalctl",
			strings.Join(slices.Concat(syslogFiles...), ", "))
	case err != nil && errOut.Len() > 0:
		err = fmt.Errorf("journalctl: %w: %s", err, strings.TrimSpace(errOut.String()))
	case err != nil:
		err = fmt.Errorf("journalctl: %w", err)
	}
	return journal, selectLines(out, tags), err
}

// selectLines returns the lines of these tags: "time host tag[pid]: text".
func selectLines(text []byte, tags []string) (lines []LogLine) {
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		for _, tag := range tags {
			if said, found := saidBy(line, tag); found {
				lines = append(lines, LogLine{string(line), tag, said})
				break
			}
		}
	}
	return lines
}

// saidBy returns the text of a line, and whether its process has this tag. Only the first word in
// front of "[" counts: a line may quote another one.
func saidBy(line []byte, tag string) (said string, found bool) {
	open := bytes.IndexByte(line, '[')
	for open >= 0 {
		before, behind := line[:open], line[open+1:]
		pid := len(behind) - len(bytes.TrimLeft(behind, "0123456789"))
		if pid > 0 && bytes.HasPrefix(behind[pid:], []byte("]: ")) {
			word := before[bytes.LastIndexByte(before, ' ')+1:]
			return string(behind[pid+len("]: "):]), string(word) == tag
		}
		next := bytes.IndexByte(behind, '[')
		if next < 0 {
			return "", false
		}
		open += 1 + next
	}
	return "", false
}

// Tags returns the tags of the lines that processes with these names log.
func (s *System) Tags(names ...string) (tags []string) {
	name, err := s.Config.String("syslog_name")
	if err != nil {
		name = "postfix"
	}
	for _, each := range names {
		tags = append(tags, name+"/"+each)
	}
	return tags
}

// ServerTags returns the tags of the lines that the connection cache logs. If syslog_name is
// set with -o, there are two: it has no effect until the options are read.
func (s *System) ServerTags() []string {
	tags := s.Tags("scache")
	if conf, err := s.ServerConfig(); err == nil {
		if name, err := conf.String("syslog_name"); err == nil {
			tags = append(tags, name+"/scache")
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}

// A logPosition is the end of the log at some time.
type logPosition struct {
	system *System
	path   string
	size   int64
	at     time.Time
}

func (s *System) logPosition() logPosition {
	p := logPosition{system: s, at: time.Now()}
	path, err := s.logFile()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return p
	}
	p.path = path
	if fi, err := os.Stat(path); err == nil {
		p.size = fi.Size()
	}
	return p
}

const (
	// maxReasons is how many lines of the log are in an error.
	maxReasons = 5
	// logDelay is how long it may take until a line is in the log.
	logDelay = 500 * time.Millisecond
)

// linesOf returns the errors that processes with these names have logged since then.
func (p logPosition) linesOf(names ...string) (said []string) {
	tags := p.system.Tags(names...)
	for end := time.Now().Add(logDelay); ; time.Sleep(logDelay / 10) {
		var lines []LogLine
		if p.path != "" {
			text, _ := readTail(p.path, p.size)
			lines = selectLines(text, tags)
		} else if file, err := p.system.Config.String("maillog_file"); err == nil && file == "" {
			_, lines, _ = p.system.journal(tags, p.at)
		}
		for _, l := range lines {
			if l.Fatal() || strings.HasPrefix(l.Text, "error: ") {
				said = append(said, l.Text)
			}
		}
		if said != nil || p.path == "" || time.Now().After(end) {
			return said[max(0, len(said)-maxReasons):]
		}
	}
}
