// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Line is one line of a recorded conversation:
//
//	C1: request\0find_dest\0…\0\0   what client 1 says
//	S1: status\02\0…\0\0            what it hears
//	C1: descriptor a                a NUL byte with a descriptor beside it
//	wait 3s                         time passes
//	restart                         the server ends, with all its connections and all
//	                                that it holds, and another one begins
//
// The lines of all clients are in the order in which they were said. A client
// connects at its first line, and says one list in a line. Descriptors have names,
// in the order in which they came: who gets which one is part of the answer.
type Line struct {
	Side       byte // 'C', 'S', or 0 where nobody speaks
	Client     int
	Text       string // the list, in bytes
	Descriptor string // its name, where there is one in place of a list
	Wait       time.Duration
	Restart    bool
}

// Bytes are written as in descriptions of the protocol. Whatever else cannot be read
// as it is does not occur.
var (
	toNotation   = strings.NewReplacer(`\`, `\\`, "\x00", `\0`, "\n", `\n`)
	fromNotation = strings.NewReplacer(`\\`, `\`, `\0`, "\x00", `\n`, "\n")
	unreadable   = regexp.MustCompile(`[^\x00\n -~]`)
)

const (
	descriptorMark = "descriptor "
	waitMark       = "wait "
	restartMark    = "restart"
)

func (l Line) String() string {
	speaker := fmt.Sprintf("%c%d: ", l.Side, l.Client)
	switch {
	case l.Restart:
		return restartMark
	case l.Wait > 0:
		return waitMark + l.Wait.String()
	case l.Descriptor != "":
		return speaker + descriptorMark + l.Descriptor
	}
	return speaker + toNotation.Replace(l.Text)
}

var spoken = regexp.MustCompile(`^([CS])([1-9][0-9]*): (?:descriptor ([a-z])|(.*\\0))$`)

// ParseRecording reads the lines of a recording. Those that begin with # are for
// people.
func ParseRecording(text string) (lines []Line, err error) {
	for i, s := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		var l Line
		m := spoken.FindStringSubmatch(s)
		switch wait, isWait := strings.CutPrefix(s, waitMark); {
		case strings.HasPrefix(s, "#"):
			continue
		case s == restartMark:
			l.Restart = true
		case isWait:
			l.Wait, err = time.ParseDuration(wait)
		case m != nil:
			l.Side, l.Descriptor, l.Text = m[1][0], m[3], fromNotation.Replace(m[4])
			l.Client, err = strconv.Atoi(m[2])
		default:
			err = fmt.Errorf("%q is no line of a recording", s)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}
