// SPDX-License-Identifier: EPL-2.0

// Pictures of terminals: text with colours becomes an SVG file.

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A cell is a character on a terminal. Colours are "#rrggbb", or "" for the default.
type cell struct {
	char rune
	attributes
}

type attributes struct {
	foreground, background string
	bold, faint, reverse   bool
}

// Colours of the picture: a dark terminal with a frame, readable on a light page and on a
// dark one.
const (
	ink    = "#d5dbe3"
	paper  = "#161b22"
	frame  = "#57606a"
	muted  = "#9aa4af"
	chrome = "#2a313a"
)

// palette has the 16 colours that a terminal has names for.
var palette = [16]string{
	"#6e7681", "#ff7b72", "#56d364", "#e3b341", "#79b8ff", "#d2a8ff", "#6cc7d9", "#d5dbe3",
	"#8b949e", "#ffa198", "#7ee787", "#f2cc60", "#a5d6ff", "#e2c5ff", "#96e0ee", "#ffffff",
}

// parseTerminal returns the rows of a text with SGR sequences, as "tmux capture-pane -e" and
// programs write it. Other escape sequences and control characters have no effect. Every
// character is taken to be one column wide. Spaces at the end of a row and empty rows at the
// end of the text are left out.
func parseTerminal(text string) (rows [][]cell) {
	var now attributes
	var row []cell
	for text != "" {
		if sequence, size := escape(text); size > 0 {
			if parameters, isSGR := strings.CutSuffix(sequence, "m"); isSGR {
				now.apply(parameters)
			}
			text = text[size:]
			continue
		}
		char, size := utf8.DecodeRuneInString(text)
		text = text[size:]
		switch {
		case char == '\n':
			rows, row = append(rows, trim(row)), nil
		case char == '\t':
			for row = append(row, cell{' ', now}); len(row)%8 != 0; {
				row = append(row, cell{' ', now})
			}
		case char >= ' ' && (char < 0x7f || char > 0x9f):
			row = append(row, cell{char, now})
		}
	}
	rows = append(rows, trim(row))
	for len(rows) > 0 && len(rows[len(rows)-1]) == 0 {
		rows = rows[:len(rows)-1]
	}
	return rows
}

// escape returns what follows "ESC [" in the control sequence that a text begins with, and
// the size of the sequence. The size is 0 if the text begins with none. For other escape
// sequences, what it returns is empty.
func escape(text string) (sequence string, size int) {
	if !strings.HasPrefix(text, "\x1b") {
		return "", 0
	}
	if len(text) < 2 {
		return "", 1
	}
	switch text[1] {
	case '[':
		for i := 2; i < len(text); i++ {
			if text[i] >= 0x40 && text[i] <= 0x7e {
				return text[2 : i+1], i + 1
			}
		}
		return "", len(text)
	case ']': // a string up to BEL or ESC \
		end := strings.IndexAny(text[2:], "\a\x1b")
		switch {
		case end < 0:
			return "", len(text)
		case text[2+end] == '\a':
			return "", 2 + end + 1
		}
		return "", min(2+end+2, len(text))
	case '(', ')':
		return "", min(3, len(text))
	}
	return "", 2
}

// trim leaves out what is invisible at the end of a row.
func trim(row []cell) []cell {
	for len(row) > 0 && !row[len(row)-1].visible() {
		row = row[:len(row)-1]
	}
	return row
}

func (c cell) visible() bool { return c.char != ' ' || c.paper() != "" }

// apply changes the attributes as an SGR sequence with these parameters does.
func (a *attributes) apply(parameters string) {
	var codes []int
	for _, text := range strings.FieldsFunc(parameters+" ", func(r rune) bool {
		return r == ';' || r == ':'
	}) {
		n, _ := strconv.Atoi(strings.TrimSpace(text)) // empty is 0
		codes = append(codes, n)
	}
	for len(codes) > 0 {
		n := codes[0]
		codes = codes[1:]
		switch {
		case n == 0:
			*a = attributes{}
		case n == 1:
			a.bold = true
		case n == 2:
			a.faint = true
		case n == 7:
			a.reverse = true
		case n == 22:
			a.bold, a.faint = false, false
		case n == 27:
			a.reverse = false
		case n >= 30 && n <= 37:
			a.foreground = palette[n-30]
		case n == 38:
			a.foreground, codes = longColour(codes)
		case n == 39:
			a.foreground = ""
		case n >= 40 && n <= 47:
			a.background = palette[n-40]
		case n == 48:
			a.background, codes = longColour(codes)
		case n == 49:
			a.background = ""
		case n >= 90 && n <= 97:
			a.foreground = palette[n-90+8]
		case n >= 100 && n <= 107:
			a.background = palette[n-100+8]
		}
	}
}

// longColour returns the colour that follows 38 or 48, and the codes after it: "5;index" of
// 256 colours, or "2;red;green;blue".
func longColour(codes []int) (colour string, rest []int) {
	switch {
	case len(codes) >= 2 && codes[0] == 5:
		return indexed(codes[1] & 0xff), codes[2:]
	case len(codes) >= 4 && codes[0] == 2:
		return fmt.Sprintf("#%02x%02x%02x", codes[1]&0xff, codes[2]&0xff, codes[3]&0xff), codes[4:]
	}
	return "", nil
}

// indexed returns one of xterm's 256 colours.
func indexed(n int) string {
	switch {
	case n < 16:
		return palette[n]
	case n >= 232:
		grey := 8 + 10*(n-232)
		return fmt.Sprintf("#%02x%02x%02x", grey, grey, grey)
	}
	level := func(n int) int {
		if n == 0 {
			return 0
		}
		return 55 + 40*n
	}
	n -= 16
	return fmt.Sprintf("#%02x%02x%02x", level(n/36), level(n/6%6), level(n%6))
}

// ink returns the colour of the character.
func (a attributes) ink() string {
	switch {
	case a.reverse && a.background == "":
		return paper
	case a.reverse:
		return a.background
	case a.foreground == "" && a.faint:
		return muted
	case a.foreground == "":
		return ink
	}
	return a.foreground
}

// paper returns the colour behind the character, or "" for the picture's own.
func (a attributes) paper() string {
	switch {
	case a.reverse && a.foreground == "":
		return ink
	case a.reverse:
		return a.foreground
	}
	return a.background
}

// Sizes in the picture, in pixels. The characters of most monospaced fonts are 0.6 times as
// wide as high; textLength keeps columns in place with the others.
const (
	fontSize   = 14.0
	charWidth  = 8.4
	lineHeight = 19.0
	padding    = 14.0
	barHeight  = 30.0
)

// writeSVG writes rows of a terminal as a picture with this title.
func writeSVG(w io.Writer, title string, rows [][]cell) error {
	columns := 0
	for _, row := range rows {
		columns = max(columns, len(row))
	}
	width := 2*padding + charWidth*float64(columns)
	height := barHeight + 2*padding + lineHeight*float64(len(rows))
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" `+
		`viewBox="0 0 %.0[1]f %.0[2]f" role="img">`+"\n", width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n", escaped(title))
	fmt.Fprintf(&b, `<rect x="0.5" y="0.5" width="%.0f" height="%.0f" rx="8" fill="%s" stroke="%s"/>`+
		"\n", width-1, height-1, paper, frame)
	fmt.Fprintf(&b, `<path d="M1 %.0f V9 a8 8 0 0 1 8 -8 H%.0f a8 8 0 0 1 8 8 V%.0f Z" fill="%s"/>`+
		"\n", barHeight, width-9, barHeight, chrome)
	fmt.Fprintf(&b, `<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, `+
		`'DejaVu Sans Mono', 'Liberation Mono', monospace" font-size="%.0f">`+"\n", fontSize)
	fmt.Fprintf(&b, `<text x="%.1f" y="20" text-anchor="middle" fill="%s">%s</text>`+"\n",
		width/2, muted, escaped(title))
	for y, row := range rows {
		writeRow(&b, barHeight+padding+lineHeight*float64(y), row)
	}
	b.WriteString("</g>\n</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// writeRow writes the backgrounds of a row, and its words: each is put in its column.
func writeRow(b *strings.Builder, top float64, row []cell) {
	column := func(x int) float64 { return padding + charWidth*float64(x) }
	for x := 0; x < len(row); {
		begin, colour := x, row[x].paper()
		for x < len(row) && row[x].paper() == colour {
			x++
		}
		if colour != "" {
			fmt.Fprintf(b, `<rect x="%.1f" y="%.0f" width="%.1f" height="%.0f" fill="%s"/>`+"\n",
				column(begin), top, charWidth*float64(x-begin), lineHeight, colour)
		}
	}
	for x := 0; x < len(row); x++ {
		begin, look := x, row[x].attributes
		var word strings.Builder
		for ; x < len(row) && row[x].char != ' ' && row[x].attributes == look; x++ {
			word.WriteRune(row[x].char)
		}
		if x == begin {
			continue // a space
		}
		weight := ""
		if look.bold {
			weight = ` font-weight="bold"`
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" textLength="%.1f" fill="%s"%s>%s</text>`+"\n",
			column(begin), top+fontSize, charWidth*float64(x-begin), look.ink(), weight,
			escaped(word.String()))
		if x < len(row) && row[x].char != ' ' {
			x-- // other attributes begin here
		}
	}
}

func escaped(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text)) // a strings.Builder returns no error
	return b.String()
}
