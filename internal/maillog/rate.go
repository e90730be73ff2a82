// SPDX-License-Identifier: EPL-2.0

package maillog

import (
	"strings"
	"sync"
	"time"
)

// linesPerSecond is how many lines of one kind are logged within a second.
const linesPerSecond = 20

// maxKinds bounds the number of kinds. There are fewer formats in the program.
const maxKinds = 1000

// A rateLimiter counts lines by kind.
type rateLimiter struct {
	mu    sync.Mutex
	kinds map[string]*kind // by format
}

// A kind is the lines with one format.
type kind struct {
	start      time.Time // of the second in which lines are counted
	logged     int       // number of lines logged in this second
	suppressed int       // number of other lines
	example    string    // the line logged last
	rare       time.Time // when isRare has counted the last one
}

// limited logs a line, unless linesPerSecond lines of its kind were logged in this second.
func (l *Logger) limited(level Level, format string, args []any) {
	k := l.rate.admit(format, l.reportSuppressed)
	if k == nil {
		return
	}
	line := l.log(level, format, args...)
	l.rate.mu.Lock()
	defer l.rate.mu.Unlock()
	line = strings.TrimPrefix(line, prefixes[level])
	k.example = line[:min(len(line), maxExample)]
}

// maxExample bounds the example in the line about suppressed lines.
const maxExample = 200

// admit counts a line and returns its kind, or nil if the line must not be logged. Then
// report is called when the second is over.
func (l *rateLimiter) admit(format string, report func()) *kind {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, k := time.Now(), l.kind(format)
	if k.suppressed == 0 && now.Sub(k.start) >= time.Second {
		k.start, k.logged = now, 0
	}
	if k.logged < linesPerSecond {
		k.logged++
		return k
	}
	if k.suppressed++; k.suppressed == 1 {
		time.AfterFunc(k.start.Add(time.Second).Sub(now), report)
	}
	return nil
}

// isRare reports whether no line of this kind was rare within the last minute, and counts one.
func (l *rateLimiter) isRare(format string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, k := time.Now(), l.kind(format)
	if !k.rare.IsZero() && now.Sub(k.rare) < time.Minute {
		return false
	}
	k.rare = now
	return true
}

// kind returns the kind with this format. The caller holds mu.
func (l *rateLimiter) kind(format string) *kind {
	k := l.kinds[format]
	if k == nil {
		if l.kinds == nil || len(l.kinds) >= maxKinds {
			l.kinds = map[string]*kind{}
		}
		k = &kind{}
		l.kinds[format] = k
	}
	return k
}

// reportSuppressed logs how many lines of each kind were suppressed within a second that
// is over.
func (l *Logger) reportSuppressed() { l.report(time.Now().Add(-time.Second)) }

// report logs how many lines were suppressed in the seconds that started before until.
func (l *Logger) report(until time.Time) {
	for _, k := range l.rate.take(until) {
		const text = "%d more lines like this one within a second: %s"
		l.log(Warning, text, k.suppressed, k.example)
	}
}

// take returns the kinds with suppressed lines, and sets their numbers to zero.
func (l *rateLimiter) take(until time.Time) (all []kind) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.kinds {
		if k.suppressed > 0 && !k.start.After(until) {
			all = append(all, *k)
			k.suppressed = 0
		}
	}
	return all
}
