// SPDX-License-Identifier: EPL-2.0

package main

import (
	"strings"

	"github.com/gdamore/tcell/v2"
)

// A line of the screen has pieces of text, each with an emphasis.
type line []piece

type piece struct {
	as   emphasis
	text string
}

// An emphasis says what a text means. It decides on the colours.
type emphasis int

const (
	plain emphasis = iota
	title
	faint   // names beside values, and hints
	number  // a value, and the name of a key
	good    // a value that is as it should be
	warning // a value or text that deserves attention
	heading // of a table
)

// styles use the colours of the terminal's own palette only: those can be read on its
// background, light or dark.
var styles = map[emphasis]tcell.Style{
	title:   tcell.StyleDefault.Bold(true).Foreground(tcell.ColorTeal),
	faint:   tcell.StyleDefault.Foreground(tcell.ColorTeal),
	number:  tcell.StyleDefault.Bold(true),
	good:    tcell.StyleDefault.Bold(true).Foreground(tcell.ColorGreen),
	warning: tcell.StyleDefault.Bold(true).Foreground(tcell.ColorOlive),
	heading: tcell.StyleDefault.Reverse(true),
}

// String returns the line without colours.
func (l line) String() string {
	var b strings.Builder
	for _, p := range l {
		b.WriteString(p.text)
	}
	return b.String()
}

// draw draws the line in row y of a screen. A heading takes the whole width.
func (l line) draw(screen tcell.Screen, y int) {
	width, _ := screen.Size()
	x, style := 0, tcell.StyleDefault
	for _, p := range l {
		style = styles[p.as]
		for text, n := p.text, 0; text != "" && x < width; x += n {
			if text, n = screen.Put(x, y, text, style); n == 0 {
				break
			}
		}
	}
	for ; len(l) > 0 && l[len(l)-1].as == heading && x < width; x++ {
		screen.Put(x, y, " ", style)
	}
}
