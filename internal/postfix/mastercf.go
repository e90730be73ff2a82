// SPDX-License-Identifier: EPL-2.0

// master.cf as master(8) splits it: lines, columns and arguments.

package postfix

import (
	"bytes"
	"fmt"
	"strings"
)

// columns is the number of columns before the arguments.
const columns = 8

const (
	// lineSpace begins a line that continues the one before.
	lineSpace = " \t\n\v\f\r"
	// wordSpace separates columns and arguments.
	wordSpace = " \t\r\n"
)

// A logicalLine is a line of the file and the lines that continue it.
type logicalLine struct {
	text   []byte
	at     []int // where each byte is in the file
	number int   // of the first line
}

// A word is a column or an argument, and where it is in the file.
type word struct {
	text       string
	start, end int
}

// A masterEntry is an entry of master.cf in words.
type masterEntry struct {
	words []word
	line  int
	err   error // why master(8) would not take the arguments
}

// is reports whether it is an entry of a service of type unix with this name.
func (e masterEntry) is(service string) bool {
	return len(e.words) > 1 && e.words[0].text == service && e.words[1].text == "unix"
}

// logicalLines returns the logical lines of master.cf. A line that begins with white space
// continues the one before; empty lines and comments may stand between them.
func logicalLines(text []byte) (all []logicalLine) {
	offset, number := 0, 0
	for line := range bytes.Lines(text) {
		number++
		kind := kindOf(line)
		if kind == firstLine {
			all = append(all, logicalLine{number: number})
		}
		if last := len(all) - 1; kind != noLine && last >= 0 {
			for i, c := range bytes.TrimSuffix(line, []byte("\n")) {
				all[last].text = append(all[last].text, c)
				all[last].at = append(all[last].at, offset+i)
			}
		}
		offset += len(line)
	}
	return all
}

// A lineKind is the part that a line has in a logical line.
type lineKind int

const (
	noLine       lineKind = iota // empty, or a comment
	firstLine                    // begins an entry
	continuation                 // continues it
)

func kindOf(line []byte) lineKind {
	bare := bytes.TrimLeft(line, lineSpace)
	switch {
	case len(bare) == 0 || bare[0] == '#':
		return noLine
	case len(bare) == len(line):
		return firstLine
	}
	return continuation
}

// entries returns the entries of master.cf.
func entries(text []byte) (all []masterEntry) {
	for _, l := range logicalLines(text) {
		if i := bytes.IndexByte(l.text, 0); i >= 0 {
			l.text = l.text[:i] // master(8) ignores the text behind a NUL
		}
		e := masterEntry{line: l.number}
		rest := 0
		for len(e.words) < columns {
			w, end, found := l.cut(rest, false)
			if !found {
				break
			}
			e.words, rest = append(e.words, w), end
		}
		for len(e.words) >= columns {
			w, end, found := l.cut(rest, true)
			if !found {
				break
			}
			var err error
			if w.text, err = stripBraces(w.text); err != nil && e.err == nil {
				e.err = err
			}
			e.words, rest = append(e.words, w), end
		}
		all = append(all, e)
	}
	return all
}

// cut returns the next word at or behind an index. White space between braces does not end
// an argument; it does end a column.
func (l logicalLine) cut(from int, argument bool) (w word, end int, found bool) {
	for from < len(l.text) && strings.IndexByte(wordSpace, l.text[from]) >= 0 {
		from++
	}
	depth := 0
	for end = from; end < len(l.text); end++ {
		c := l.text[end]
		switch {
		case argument && c == '{':
			depth++
		case argument && c == '}':
			depth = max(depth-1, 0)
		}
		if depth == 0 && strings.IndexByte(wordSpace, c) >= 0 {
			break
		}
	}
	if from == end {
		return word{}, end, false
	}
	return word{string(l.text[from:end]), l.at[from], l.at[end-1] + 1}, end, true
}

// stripBraces takes the braces off an argument that begins with one, and the white space
// inside of them.
func stripBraces(argument string) (string, error) {
	if argument[0] != '{' {
		return argument, nil
	}
	depth := 0
	for i := range len(argument) {
		switch argument[i] {
		case '{':
			depth++
		case '}':
			depth--
		}
		if depth == 0 {
			if rest := argument[i+1:]; rest != "" {
				return argument, fmt.Errorf("%q behind '}' in %.100q", rest, argument)
			}
			return strings.Trim(argument[1:i], lineSpace), nil
		}
	}
	return argument, fmt.Errorf("missing '}' in %.100q", argument)
}
