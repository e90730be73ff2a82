// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// describe writes a row as text, with the attributes in braces where they change.
func describe(row []cell) string {
	var b strings.Builder
	var last attributes
	for _, c := range row {
		if c.attributes != last {
			last = c.attributes
			fmt.Fprintf(&b, "{%s %s", last.ink(), last.paper())
			if last.bold {
				b.WriteString(" bold")
			}
			b.WriteString("}")
		}
		b.WriteRune(c.char)
	}
	return b.String()
}

func TestParseTerminal(t *testing.T) {
	t.Parallel()
	plain := "{" + ink + " }"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", nil},
		{"plain", "a b\n\n c\n\n\n", []string{"a b", "", " c"}},
		{"spaces at the end", "a  \n   \n", []string{"a"}},
		{"tab", "a\tb", []string{"a       b"}},
		{"colour", "\x1b[32mgo\x1b[39mod", []string{"{#56d364 }go" + plain + "od"}},
		{"reset", "\x1b[1;33ma\x1b[mb", []string{"{#e3b341  bold}a" + plain + "b"}},
		{"bold and faint end", "\x1b[1ma\x1b[22;2mb\x1b[22mc",
			[]string{"{" + ink + "  bold}a{" + muted + " }b" + plain + "c"}},
		{"reverse", "\x1b[7ma \x1b[27m ", []string{"{" + paper + " " + ink + "}a "}},
		{"reverse of colours", "\x1b[7;31;42ma\x1b[49mb",
			[]string{"{#56d364 #ff7b72}a{" + paper + " #ff7b72}b"}},
		{"bright", "\x1b[91;102ma", []string{"{#ffa198 #7ee787}a"}},
		{"256 colours", "\x1b[38;5;196ma\x1b[38:5:244mb\x1b[38;5;9mc",
			[]string{"{#ff0000 }a{#808080 }b{#ffa198 }c"}},
		{"any colour", "\x1b[38;2;1;2;3;48;2;255;254;253ma", []string{"{#010203 #fffefd}a"}},
		{"colour over lines", "\x1b[31ma\nb", []string{"{#ff7b72 }a", "{#ff7b72 }b"}},
		{"cut short", "\x1b[38;5ma\x1b[38;2;1mb\x1b[", []string{"ab"}},
		{"not SGR", "\x1b[2J\x1b[1;1Ha\x1b(B\x1b]8;;http://example.com\x1b\\b\x1b]0;t\ac\x1b=d\x0e\r\x00",
			[]string{"abcd"}},
		{"endless", "a\x1b]8;;", []string{"a"}},
		{"end in the middle", "a\x1b", []string{"a"}},
		{"beyond ASCII", "→ 20 ms… é", []string{"→ 20 ms… é"}},
	} {
		var got []string
		for _, row := range parseTerminal(c.text) {
			got = append(got, describe(row))
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") || len(got) != len(c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// A picture is what a reader of the file finds in it.
type picture struct {
	Width  int    `xml:"width,attr"`
	Height int    `xml:"height,attr"`
	Title  string `xml:"title"`
	G      struct {
		Rect []struct {
			X, Y  string `xml:",attr"`
			Width string `xml:"width,attr"`
			Fill  string `xml:"fill,attr"`
		} `xml:"rect"`
		Text []struct {
			X      string `xml:"x,attr"`
			Y      string `xml:"y,attr"`
			Length string `xml:"textLength,attr"`
			Fill   string `xml:"fill,attr"`
			Weight string `xml:"font-weight,attr"`
			Text   string `xml:",chardata"`
		} `xml:"text"`
	} `xml:"g"`
}

func parsePicture(t *testing.T, svg []byte) (p picture) {
	t.Helper()
	if err := xml.Unmarshal(svg, &p); err != nil {
		t.Fatalf("%v\n%s", err, svg)
	}
	return p
}

func TestWriteSVG(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	rows := parseTerminal("ab  \x1b[1;32m<&>\x1b[0mx\n\n\x1b[7mok   \n")
	if err := writeSVG(&b, `a "title" <b>`, rows); err != nil {
		t.Fatal(err)
	}
	p := parsePicture(t, b.Bytes())
	// Eight columns, three rows, a margin and a bar.
	if p.Width != 95 || p.Height != 115 || p.Title != `a "title" <b>` {
		t.Errorf("got %d × %d %q", p.Width, p.Height, p.Title)
	}
	var got []string
	for _, text := range p.G.Text[1:] { // after the title
		got = append(got, strings.Join([]string{
			text.X, text.Y, text.Length, text.Fill, text.Weight, text.Text}, " "))
	}
	want := []string{
		"14.0 58.0 16.8 " + ink + "  ab",
		"47.6 58.0 25.2 #56d364 bold <&>",
		"72.8 58.0 8.4 " + ink + "  x",
		"14.0 96.0 16.8 " + paper + "  ok",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(p.G.Rect) != 1 || p.G.Rect[0].Width != "42.0" || p.G.Rect[0].Fill != ink {
		t.Errorf("backgrounds: got %v, want one of five columns", p.G.Rect)
	}
}

type failingWriter struct{}

var errFull = errors.New("full")

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

func TestWriteSVG_fails(t *testing.T) {
	t.Parallel()
	if err := writeSVG(failingWriter{}, "", nil); !errors.Is(err, errFull) {
		t.Errorf("got %v, want %v", err, errFull)
	}
}

// FuzzWriteSVG: whatever a terminal shows, the picture is XML.
func FuzzWriteSVG(f *testing.F) {
	f.Add("a\x1b[1;38;5;300m<\x1b[48;2;-1;2mb\x1b]\x00\ufffe\xff")
	f.Fuzz(func(t *testing.T, text string) {
		var b bytes.Buffer
		if err := writeSVG(&b, text, parseTerminal(text)); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(&b)
		for {
			if _, err := d.Token(); err == io.EOF {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestDemoTable(t *testing.T) {
	t.Parallel()
	long := "  → this scache: " + strings.Repeat("better in all rows, ", 5) + "and so on"
	table, err := demoTable("1 of 1, plain: mail\n\n" +
		"2026-01-01, Postfix 3.7.11, scache 1.1.0; 60 s in all\n\n" +
		"        stock  ours\nplain: mail\n  seconds  1  2\n  → no advantage\nfar: away\n" + long +
		"\n\n$ scachectl status\nnothing\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range parseTerminal(table) {
		got = append(got, describe(row))
	}
	want := []string{
		"{#6cc7d9 }        stock  ours",
		"", "{" + ink + "  bold}plain: mail", "  seconds  1  2", "{" + muted + " }  → no advantage",
		"", "{" + ink + "  bold}far: away",
		"{#56d364 }  → this scache: " + strings.Repeat("better in all rows, ", 3) + "better in all",
		"{#56d364 }    rows, better in all rows, and so on",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, bad := range []string{"", "no table", "60 s in all\n\nnothing after the table"} {
		if _, err := demoTable(bad); err == nil {
			t.Errorf("%q: got no error, want one", bad)
		}
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, line string }{
		{"no space", strings.Repeat("x", 3*wide)},
		{"spaces first", "    " + strings.Repeat("x", wide)},
		{"just fits", strings.Repeat("é", wide)},
	} {
		if got := wrap(c.line); len(got) != 1 || got[0] != c.line {
			t.Errorf("%s: got %q, want one line", c.name, got)
		}
	}
	if got := wrap(strings.Repeat("é", wide) + " b"); len(got) != 2 || got[1] != "    b" {
		t.Errorf("got %q, want two lines", got)
	}
}

// TestPicture_top makes the picture from real mail.
func TestPicture_top(t *testing.T) {
	testenv.SkipShort(t)
	postfixtest.NeedPostfix(t)
	for _, tool := range []string{"tmux", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("SKIPPED: this test needs %s: %v", tool, err)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"scache", "scachectl", "scachebench"} {
		if err := postfixtest.Build(filepath.Join(dir, name), "scache/cmd/"+name); err != nil {
			t.Fatal(err)
		}
	}
	picture := func(scachectl string) ([]byte, string, error) {
		cmd := postfixtest.Command(filepath.Join(dir, "scachebench"),
			"--scache", filepath.Join(dir, "scache"),
			"--scachectl", scachectl, "--traffic", "8s", "picture", "top")
		var out, errOut bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errOut
		err := cmd.Run()
		return out.Bytes(), errOut.String(), err
	}
	svg, errOut, err := picture(filepath.Join(dir, "scachectl"))
	if err != nil {
		t.Fatalf("%v: %s", err, errOut)
	}
	var words []string
	for _, text := range parsePicture(t, svg).G.Text {
		words = append(words, text.Text)
	}
	got := strings.Join(words, " ")
	for _, want := range []string{
		"hit rate ", "smtp example.com smtp 192.0.2.10", "bakery.example +2",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %s", want, got)
		}
	}
	if svg, errOut, err := picture("/nosuch"); err == nil || len(svg) > 0 ||
		!strings.Contains(errOut, "scachectl top has ended") {
		t.Errorf("without scachectl: got %d bytes, %v, %s; want an error alone", len(svg), err, errOut)
	}
}
