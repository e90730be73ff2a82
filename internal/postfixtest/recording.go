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
//	C1: request\0find_dest\0…\0\0   client 1 sends a list
//	S1: status\02\0…\0\0            the server replies to client 1
//	C1: descriptor a                a NUL byte with a descriptor
//	wait 3s                         time passes
//	restart                         the server ends and loses all that it has, and a new
//	                                one starts
//
// The lines of all clients are in the order in which they were sent, one list in each line. A
// client connects at its first line. Descriptors have names, in the order of their arrival,
// because it matters which client gets which descriptor.
type Line struct {
	Side       byte // 'C', 'S', or 0 for a line that is not a message
	Client     int
	Text       string // the bytes of the list
	Descriptor string // the name of a descriptor, in place of a list
	Wait       time.Duration
	Restart    bool
}

// Bytes are written as in descriptions of the protocol. Other bytes that are not printable do
// not occur.
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

// ParseRecording reads the lines of a recording. Lines that begin with # are comments.
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
