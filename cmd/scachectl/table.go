// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"scache/internal/control"
)

// A table is printed with columns of equal width. Numbers and times are right-aligned.
type table struct {
	heading []string
	rows    [][]string
	size    int // of the cells
}

// newTable returns a table with these headings, separated by "|". One that begins with
// ">" is of a right-aligned column.
func newTable(heading string) *table { return &table{heading: strings.Split(heading, "|")} }

func (t *table) add(cells ...any) {
	var row []string
	for _, cell := range cells {
		text := fmt.Sprint(cell)
		row = append(row, text)
		t.size += len(text)
	}
	t.rows = append(t.rows, row)
}

// print prints the table, how many more rows there are, and an empty line.
func (t *table) print(w io.Writer, more int) error {
	var b strings.Builder
	for _, line := range t.lines() {
		fmt.Fprintln(&b, line)
	}
	if more > 0 {
		fmt.Fprintf(&b, "… %d more\n", more)
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}

// lines returns the table as text.
func (t *table) lines() (lines []string) {
	heading, right := make([]string, len(t.heading)), make([]bool, len(t.heading))
	for i, name := range t.heading {
		heading[i], right[i] = strings.CutPrefix(name, ">")
	}
	all := append([][]string{heading}, t.rows...)
	width := make([]int, len(heading))
	for _, row := range all {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range all {
		var b strings.Builder
		for i, cell := range row {
			space := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if right[i] {
				cell = space + cell
			} else if i+1 < len(row) {
				cell += space
			}
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(cell)
		}
		lines = append(lines, b.String())
	}
	return lines
}

// age writes a time in at most two units, such as 12s, 3m20s or 2d4h.
func age(s control.Seconds) string {
	d := time.Duration(s).Round(time.Second)
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}
