// SPDX-License-Identifier: EPL-2.0

// Package maillog logs as Postfix daemons do.
//
// The methods of a [Logger] return at once: a separate goroutine writes the lines
// to the sinks. If a sink is slow, lines wait in a queue. If it is stuck, the queue
// becomes full, and further lines are lost and counted: the caller never waits.
//
// Lines with the same format are of one kind. The number of lines of one kind is
// limited within a second, so that a client cannot fill the log. A line with the
// number of suppressed lines follows.
package maillog

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
)

// A Level is the severity of a line.
type Level int

// The levels, and the words that begin their lines.
const (
	Info    Level = iota // no word
	Warning              // "warning: "
	Fatal                // "fatal: ": the process ends
	Panic                // "panic: ": the process ends because of a bug
)

var prefixes = [...]string{"", "warning: ", "fatal: ", "panic: "}

// A Sink is where lines go. A line has only printable characters and no line end.
// Write may block. A sink that is an io.Closer is closed when it is replaced.
type Sink interface {
	Write(level Level, line string) error
}

const (
	queueSize = 1000
	maxLine   = 2000
)

// A Logger writes lines to its sinks. Its methods are safe for concurrent use.
type Logger struct {
	queue   chan entry
	lost    atomic.Int64 // lines, since the last line about it
	lostAll atomic.Int64
	sinks   atomic.Pointer[[]Sink]
	verbose atomic.Int32
	rate    rateLimiter
}

type entry struct {
	level Level
	line  string
	do    func() // if not nil, called instead of writing the line
}

// New returns a logger that writes to these sinks.
func New(sinks ...Sink) *Logger {
	l := &Logger{queue: make(chan entry, queueSize)}
	l.SetSinks(sinks...)
	go l.run()
	return l
}

// Lost returns how many lines were lost because the receiver was too slow.
func (l *Logger) Lost() int { return int(l.lostAll.Load()) }

// SetSinks replaces the sinks, for all lines that are not written yet. It closes
// the former sinks that implement io.Closer.
func (l *Logger) SetSinks(sinks ...Sink) {
	former := l.sinks.Swap(&sinks)
	if former == nil {
		return
	}
	select {
	case l.queue <- entry{do: func() { closeAll(*former) }}:
	default: // the garbage collector will close them
	}
}

func closeAll(sinks []Sink) {
	for _, sink := range sinks {
		if c, ok := sink.(io.Closer); ok {
			c.Close()
		}
	}
}

// SetVerbose makes Debug log, for a level above zero.
func (l *Logger) SetVerbose(level int) { l.verbose.Store(int32(level)) }

// Verbose reports whether Debug logs.
func (l *Logger) Verbose() bool { return l.verbose.Load() > 0 }

func (l *Logger) run() {
	for e := range l.queue {
		if e.do != nil {
			e.do()
			continue
		}
		if n := l.lost.Swap(0); n > 0 {
			const lost = "warning: %d log lines were lost: the log receiver was too slow"
			l.write(Warning, fmt.Sprintf(lost, n))
		}
		l.write(e.level, e.line)
	}
}

// write writes a line to the sinks. Errors are ignored: a sink tries again with the
// next line.
func (l *Logger) write(level Level, line string) {
	for _, sink := range *l.sinks.Load() {
		sink.Write(level, line)
	}
}

// log queues a line and returns its text.
func (l *Logger) log(level Level, format string, args ...any) (text string) {
	line := prefixes[level] + fmt.Sprintf(format, args...)
	if len(line) > maxLine {
		line = line[:maxLine]
	}
	line = printable(line)
	select {
	case l.queue <- entry{level: level, line: line}:
	default:
		l.lost.Add(1)
		l.lostAll.Add(1)
	}
	return line
}

// printable replaces characters that are not printable by question marks, as Postfix does:
// invalid UTF-8, control characters (also of C1), and characters that change the direction
// of the text or have no width.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// Debug logs a line for debugging, if the logger is verbose. The number of these lines is
// not limited.
func (l *Logger) Debug(format string, args ...any) {
	if l.Verbose() {
		l.log(Info, format, args...)
	}
}

// Info logs a line of ordinary operation.
func (l *Logger) Info(format string, args ...any) { l.limited(Info, format, args) }

// Warning logs a problem that the process handles.
func (l *Logger) Warning(format string, args ...any) { l.limited(Warning, format, args) }

// WarningRarely is Warning, except that it logs one line of a kind in a minute, and no count of
// the others.
func (l *Logger) WarningRarely(format string, args ...any) {
	if l.rate.isRare(format) {
		l.log(Warning, format, args...)
	}
}

// LogFatal logs the problem that ends the process. The caller ends it.
func (l *Logger) LogFatal(format string, args ...any) { l.log(Fatal, format, args...) }

// ExitOnPanic must be deferred at the top of every goroutine: it logs a panic
// with its stack, a line for each frame, and ends the process.
func (l *Logger) ExitOnPanic() {
	reason := recover()
	if reason == nil {
		return
	}
	l.Panic(reason)
	l.Flush(time.Second)
	os.Exit(2)
}

// Panic logs the reason of a panic and the stack, a line for each frame. It is called by the
// deferred function that has recovered from the panic.
func (l *Logger) Panic(reason any) {
	l.log(Panic, "%v", reason)
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		l.log(Panic, "at %s (%s:%d)", f.Function, f.File, f.Line)
	}
}

// Flush waits until all lines so far are written, at most for the timeout.
func (l *Logger) Flush(timeout time.Duration) {
	l.report(time.Now())
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	done := make(chan struct{})
	select {
	case l.queue <- entry{do: func() { close(done) }}:
	case <-timer.C:
		return
	}
	select {
	case <-done:
	case <-timer.C:
	}
}
