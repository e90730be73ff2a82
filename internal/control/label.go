// SPDX-License-Identifier: EPL-2.0

package control

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape writes any text on one line, so that Unescape returns it. A line end becomes \n, and a
// backslash \\. A byte that is not UTF-8, or belongs to a character that is not printable,
// becomes \xNN. Terminal escapes, C1 controls and characters that change the
// direction of text are not printable.
func Escape(text string) string {
	if isPlain(text) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && size == 1, !unicode.IsPrint(r):
			for _, c := range []byte(text[:size]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteString(text[:size])
		}
		text = text[size:]
	}
	return b.String()
}

// isPlain reports whether a text has only characters that Escape does not change. It knows
// the printable characters of ASCII only.
func isPlain(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

// Unescape is the reverse of Escape.
func Unescape(text string) (string, error) {
	var b strings.Builder
	for {
		plain, rest, found := strings.Cut(text, `\`)
		b.WriteString(plain)
		switch {
		case !found:
			return b.String(), nil
		case strings.HasPrefix(rest, "n"):
			b.WriteByte('\n')
			text = rest[1:]
		case strings.HasPrefix(rest, `\`):
			b.WriteByte('\\')
			text = rest[1:]
		default:
			code, isHex := strings.CutPrefix(rest[:min(3, len(rest))], "x")
			c, err := strconv.ParseUint(code, 16, 8)
			if !isHex || len(code) != 2 || err != nil {
				return "", fmt.Errorf(`bad label %q: a backslash is followed by n, by another one, `+
					`or by x and two hexadecimal digits`, text)
			}
			b.WriteByte(byte(c))
			text = rest[3:]
		}
	}
}
