// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseRecording_readsWhatStringWrites(t *testing.T) {
	t.Parallel()
	lines := []Line{
		{Side: 'S', Client: 1, Text: "\x00"},
		{Side: 'C', Client: 12, Text: "label\x00a\n\\0\\\\n\\\n\x00\x00"},
		{Side: 'C', Client: 1, Text: "descriptor a\x00\x00\x00"},
		{Side: 'C', Client: 1, Descriptor: "a"},
		{Wait: 1500 * time.Millisecond},
		{Restart: true},
		{Side: 'S', Client: 1, Descriptor: "z"},
	}
	text := "# a remark\n"
	for _, l := range lines {
		text += l.String() + "\n"
	}
	got, err := ParseRecording(text)
	if err != nil || !reflect.DeepEqual(got, lines) {
		t.Errorf("got %v, %v of\n%s", got, err, text)
	}
}

func TestParseRecording_refusesOtherLines(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "C1 x\\0", "C0: \\0", "C: \\0", "X1: \\0", "C1: x",
		"C1: descriptor", "C1: descriptor ab",
		"wait", "wait long", "restarts", " restart", "restart\n\nrestart",
	} {
		lines, err := ParseRecording(text)
		if err == nil || !strings.HasPrefix(err.Error(), "line ") {
			t.Errorf("%q: got %v, %v, want an error with the line", text, lines, err)
		}
	}
}
