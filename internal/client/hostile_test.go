// SPDX-License-Identifier: EPL-2.0

package client

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"scache/internal/control"
)

// hostile is what a terminal or a log must not be given: an escape sequence, a C1 control,
// characters that reverse the direction of text, a line end, bytes that are not UTF-8.
const hostile = "\x1b]0;x\x07\u009b31m\u202e\u2066evil\u200f\r\n\xff\xc3"

func wantHarmless(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(text, "evil") || !utf8.ValidString(text) ||
			strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("got %q, want it escaped", text)
		}
		if back, err := control.Unescape(text); back != hostile || err != nil {
			t.Errorf("got %q, %v, want %q", back, err, hostile)
		}
	}
}

func TestClient_escapesAllThatAServerSays(t *testing.T) {
	t.Parallel()
	list := strings.NewReplacer("@", hostile)
	c := Detect(converse(t,
		`<request\0status\0\0`, list.Replace(`>status\00\0version\0@\0pid\017\0\0`),
		`<request\0list\0\0`,
		list.Replace(`>status\00\0\0`+
			`entry\0binding\0destination\0@\0endpoint\0@\0property\0@\0\0`+
			`entry\0session\0endpoint\0@\0property\0@\0remote\0@\0receiver\0@\0\0entry\0end\0\0`),
		`<request\0hits\0level\0endpoint\0\0`,
		list.Replace(`>status\00\0\0entry\0hits\0label\0@\0receiver\0@\0\0entry\0end\0\0`),
		`<request\0status\0\0`, list.Replace(`>status\0@\0\0`),
	))
	s, err := c.Status()
	if err != nil {
		t.Fatal(err)
	}
	wantHarmless(t, s.Version)
	b, ss, err := c.List()
	if err != nil || len(b) != 1 || len(ss) != 1 {
		t.Fatalf("got %+v, %+v, %v, want one of each", b, ss, err)
	}
	wantHarmless(t, b[0].Destination, b[0].Endpoint, b[0].Property)
	wantHarmless(t, ss[0].Endpoint, ss[0].Property, ss[0].Remote, ss[0].Receiver)
	h, err := c.LabelCounts(control.LevelEndpoint)
	if err != nil || len(h) != 1 {
		t.Fatalf("got %+v, %v, want one", h, err)
	}
	wantHarmless(t, h[0].Label, h[0].Receiver)
	if _, err := c.Status(); err == nil || strings.ContainsAny(err.Error(), "\x1b\u009b\u202e\n") {
		t.Errorf("got %q, want an escaped error", err)
	}
}

// TestClient_errorsAreHarmless has names and values that are quoted in errors.
func TestClient_errorsAreHarmless(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		`>protocol\0@\0\0`, `>@\0x\0\0`, `>status\0@\0\0`, `>status\00\0\0entry\0@\0\0`,
		`>status\00\0\0@\0x\0\0`,
	} {
		c := Detect(converse(t, `<request\0list\0\0`, strings.ReplaceAll(reply, "@", hostile)))
		_, _, err := c.List()
		if err == nil || strings.ContainsFunc(err.Error(),
			func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q: got %q, want an error that a terminal can show", reply, err)
		}
	}
}

// endless is an answer of n entries, without an end.
func endless(n int, entry string) string {
	var b strings.Builder
	b.WriteString(`>status\00\0\0`)
	for i := range n {
		fmt.Fprintf(&b, entry, i)
	}
	return b.String()
}

func TestClient_boundsWhatItCollects(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ entries, bytes, want int }{
		"entries":         {10, 1 << 20, 10},
		"bytes":           {1 << 20, 100, 7}, // of 14 each
		"bytes in escape": {1 << 20, 28, 2},
	} {
		c := Detect(converse(t, `<request\0list\0\0`, endless(50, `entry\0session\0endpoint\0e%06d\0\0`)))
		c.maxEntries, c.maxBytes = test.entries, test.bytes
		if _, sessions, err := c.List(); len(sessions) != test.want || !errors.Is(err, ErrTruncated) {
			t.Errorf("%s: got %d sessions, %v, want %d, %v", name, len(sessions), err, test.want,
				ErrTruncated)
		}
		c = Detect(converse(t, `<request\0hits\0level\0endpoint\0\0`,
			endless(50, `entry\0hits\0label\0label%05d\0\0`)))
		c.maxEntries, c.maxBytes = test.entries, test.bytes
		if all, err := c.LabelCounts(control.LevelEndpoint); len(all) == 0 || len(all) > test.want ||
			!errors.Is(err, ErrTruncated) {
			t.Errorf("%s: got %d, %v, want up to %d, %v", name, len(all), err, test.want, ErrTruncated)
		}
	}
}

// TestClient_eachHoldsNothing is beyond the bounds, and ended by who asks.
func TestClient_eachHoldsNothing(t *testing.T) {
	t.Parallel()
	c := Detect(converse(t, `<request\0list\0\0`, endless(50, `entry\0session\0endpoint\0e%06d\0\0`)))
	c.maxEntries = 1
	enough, n, extended := errors.New("enough"), 0, 0
	c.extend = func() { extended++ }
	err := c.Each(func(any) error {
		if n++; n == 40 {
			return enough
		}
		return nil
	})
	if n != 40 || extended != 40 || !errors.Is(err, enough) {
		t.Errorf("got %d entries, %d extensions, %v, want 40, 40, %v", n, extended, err, enough)
	}
}

func TestClient_hitsHaveEachLabelOnce(t *testing.T) {
	t.Parallel()
	c := Detect(converse(t, `<request\0hits\0level\0endpoint\0\0`,
		`>status\00\0\0entry\0hits\0label\0a\0hits\01\0\0entry\0hits\0label\0a\0hits\02\0\0`+
			`entry\0hits\0label\0b\0\0entry\0end\0\0`))
	all, err := c.LabelCounts(control.LevelEndpoint)
	want := []control.LabelCounts{{Label: "a", Hits: 1}, {Label: "b"}}
	if err != nil || len(all) != 2 ||
		all[0] != want[0] || all[1] != want[1] {
		t.Errorf("got %+v, %v, want %+v", all, err, want)
	}
}
