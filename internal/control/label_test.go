// SPDX-License-Identifier: EPL-2.0

package control

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "plain text ~": "plain text ~", "a\nb\\": `a\nb\\`, "größe 東京": "größe 東京",
		"\x1b[31m\x7f": `\x1b[31m\x7f`, "\u009b": `\xc2\x9b`,
		"\u202e\u2066\u200f": `\xe2\x80\xae\xe2\x81\xa6\xe2\x80\x8f`,
		"\u2028\ufeff":       `\xe2\x80\xa8\xef\xbb\xbf`, "\xff\xc3": `\xff\xc3`, "\ufffd": "\ufffd",
	} {
		if got := Escape(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"smtp\n192.0.2.1\n25\n0\n", "\xff", "\\x41", "é", "\x00", "\u202e",
		"a\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		shown := Escape(text)
		if back, err := Unescape(shown); back != text || err != nil {
			t.Fatalf("%q is shown as %q, which is %q, %v", text, shown, back, err)
		}
		if !utf8.ValidString(shown) || strings.ContainsFunc(shown,
			func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q is shown as %q", text, shown)
		}
		if back, err := Unescape(text); err == nil && len(back) > len(text) {
			t.Fatalf("%q is %q", text, back)
		}
	})
}
