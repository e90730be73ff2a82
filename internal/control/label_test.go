// SPDX-License-Identifier: EPL-2.0

package control

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"smtp\n192.0.2.1\n25\n0\n", "\xff", "\\x41", "é", "\x00", "\u202e", "a\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		shown := Escape(text)
		if back, err := Unescape(shown); back != text || err != nil {
			t.Fatalf("%q is shown as %q, which is %q, %v", text, shown, back, err)
		}
		if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q is shown as %q", text, shown)
		}
		if back, err := Unescape(text); err == nil && len(back) > len(text) {
			t.Fatalf("%q is %q", text, back)
		}
	})
}
