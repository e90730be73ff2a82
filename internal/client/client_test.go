// SPDX-License-Identifier: EPL-2.0

package client

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/control"
	"scache/internal/fdpass"
	"scache/internal/testenv"
)

// A script is what a server does: it hears a list for each "<", says what begins with
// ">", and "fd" is a descriptor. \0 is a NUL. Then it hangs up.
func converse(t *testing.T, script ...string) *fdpass.Conn {
	t.Helper()
	x, y := testenv.ConnPair(t)
	ours, theirs := fdpass.New(x), fdpass.New(y)
	t.Cleanup(func() { ours.Close() })
	ours.SetDeadline(time.Now().Add(time.Minute))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer theirs.Close()
		for _, step := range script {
			switch {
			case step == "<fd":
				theirs.Read(make([]byte, 1))
				fd, err := theirs.Take()
				if err != nil {
					t.Errorf("no descriptor: %v", err)
					return
				}
				unix.Close(fd)
			case step[0] == '<':
				want := nul(step[1:])
				got := make([]byte, len(want))
				if _, err := io.ReadFull(theirs, got); err != nil || string(got) != want {
					t.Errorf("heard %q, %v, want %q", got, err, want)
					return
				}
			case step == ">fd":
				f, err := os.Open(os.DevNull)
				if err != nil {
					t.Error(err)
					return
				}
				theirs.Send(int(f.Fd()))
				f.Close()
			default:
				io.WriteString(theirs, nul(step[1:]))
			}
		}
	}()
	t.Cleanup(func() { <-ended })
	return ours
}

func nul(text string) string { return strings.ReplaceAll(text, `\0`, "\x00") }

const announced = `>protocol\0connection_cache_protocol\0\0`

func TestClient_savesAndFinds(t *testing.T) {
	t.Parallel()
	c := Detect(converse(t, announced,
		`<request\0save_endp\0ttl\05\0label\0e\0property\0p\0\0`, `>dummy\0\0\0`, `<fd`, `>status\00\0\0`,
		`<request\0save_dest\0ttl\05\0label\0d\0property\0p\0label\0e\0\0`, `>status\00\0\0`,
		`<request\0find_dest\0label\0d\0\0`, `>status\00\0property\0dp\0property\0ep\0\0`, `<dummy\0\0\0`,
		`>fd`, `<dummy\0\0\0`,
		`<request\0find_endp\0label\0e\0\0`, `>status\02\0property\0\0\0`,
	))
	if s, err := c.SaveEndpoint(5, "e", "p", 0); s != OK || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	if s, err := c.SaveDestination(5, "d", "p", "e"); s != OK || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	f, err := c.FindDestination("d")
	if f.Code != OK || f.DestinationProperty != "dp" || f.Property != "ep" || err != nil {
		t.Fatalf("%+v, %v", f, err)
	}
	if err := unix.Close(f.FD); err != nil {
		t.Error(err)
	}
	if f, err := c.FindEndpoint("e"); f.Code != NotFound || err != nil {
		t.Errorf("%+v, %v", f, err)
	}
}

// TestClient_wrongReplies end in errors that say so.
func TestClient_wrongReplies(t *testing.T) {
	t.Parallel()
	save := func(c *Client) error { _, err := c.SaveEndpoint(5, "e", "p", 0); return err }
	find := func(c *Client) error { _, err := c.FindEndpoint("e"); return err }
	for name, test := range map[string]struct {
		script []string
		do     func(*Client) error
		want   string
	}{
		"hangs up":           {nil, find, "unexpected EOF"},
		"hangs up in a list": {[]string{`>status\00`}, find, "unexpected EOF"},
		"another protocol":   {[]string{`>protocol\0smtp\0\0`}, find, `"smtp"`},
		"no status":          {[]string{`>dummy\0\0\0`}, find, "status"},
		"a bad status":       {[]string{`>status\0x\0property\0\0\0`}, find, "status"},
		"no property":        {[]string{`>status\00\0\0`}, find, "property"},
		"no descriptor": {[]string{`>status\00\0property\0p\0\0`,
			`<request\0find_endp\0label\0e\0\0dummy\0\0\0`, ">x"}, find, "descriptor"},
		"none at all":    {[]string{`>status\00\0property\0p\0\0`}, find, "EOF"},
		"a save without": {[]string{`>property\0\0\0`}, save, "status"},
		"after the save": {[]string{`>dummy\0\0\0`,
			`<request\0save_endp\0ttl\05\0label\0e\0property\0p\0\0`, "<fd"}, save, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.do(Detect(converse(t, test.script...)))
			if err == nil || !strings.Contains(err.Error(), test.want) &&
				!errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestSaveEndpoint_refused(t *testing.T) {
	t.Parallel()
	c := Detect(converse(t, announced, `<request\0save_endp\0ttl\00\0label\0e\0property\0p\0\0`,
		`>status\01\0\0`))
	if s, err := c.SaveEndpoint(0, "e", "p", 0); s != Bad || err != nil {
		t.Errorf("%v, %v", s, err)
	}
}

func TestClient_requestsOfOperators(t *testing.T) {
	t.Parallel()
	c := Detect(converse(t,
		`<request\0status\0\0`, `>status\00\0version\01.2\0pid\017\0odd\0x\0\0`,
		`<request\0list\0\0`,
		`>status\00\0\0entry\0session\0endpoint\0b\0\0`+
			`entry\0binding\0destination\0d\0endpoint\0e\0\0`+
			`entry\0session\0endpoint\0a\0\0entry\0end\0\0`,
		`<request\0hits\0level\0endpoint\0\0`,
		`>status\00\0\0entry\0hits\0label\0y\0misses\03\0\0entry\0hits\0label\0x\0\0entry\0end\0\0`,
		`<request\0flush\0label\0a\0label\0b\0\0`, `>status\00\0sessions\02\0bindings\01\0\0`,
		`<request\0flush\0\0`, `>status\00\0sessions\07\0\0`,
		`<request\0restart\0\0`, `>status\00\0\0`,
		`<request\0status\0\0`, `>status\01\0\0`,
		`<request\0status\0\0`, `>status\02\0\0`,
	))
	if s, err := c.Status(); s.Version != "1.2" || s.PID != 17 || err != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if b, s, err := c.List(); len(b) != 1 || len(s) != 2 || s[0].Endpoint != "a" || err != nil {
		t.Errorf("%+v, %+v, %v", b, s, err)
	}
	want := []control.LabelCounts{{Label: "x"}, {Label: "y", Misses: 3}}
	if h, err := c.LabelCounts(control.LevelEndpoint); !slices.Equal(h, want) || err != nil {
		t.Errorf("%+v, %v", h, err)
	}
	if f, err := c.Flush("a", "b"); f != (control.Flushed{Sessions: 2, Bindings: 1}) || err != nil {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := c.Flush(); f != (control.Flushed{}) || err != nil {
		t.Errorf("nothing to flush: %+v, %v", f, err)
	}
	if f, err := c.FlushAll(); f != (control.Flushed{Sessions: 7}) || err != nil {
		t.Errorf("%+v, %v", f, err)
	}
	if err := c.Restart(); err != nil {
		t.Error(err)
	}
	if _, err := c.Status(); err != ErrStock {
		t.Errorf("stock: %v", err)
	}
	if _, err := c.Status(); err == nil || !strings.Contains(err.Error(), "status 2") {
		t.Errorf("%v", err)
	}
	if _, _, err := c.List(); err == nil {
		t.Error("the server has hung up")
	}
}

func TestList_endsEarly(t *testing.T) {
	t.Parallel()
	for _, rest := range []string{``, `entry\0session\0endpoint\0b\0\0`, `entry\0odd\0\0`} {
		c := Detect(converse(t, `<request\0list\0\0`, `>status\00\0\0`+rest))
		if _, _, err := c.List(); err == nil {
			t.Errorf("%q was taken for a list", rest)
		}
	}
}

// TestAsk_withoutServer has servers that are not there, or do not answer.
func TestAsk_withoutServer(t *testing.T) {
	t.Parallel()
	status := func(c *Client) error { _, err := c.Status(); return err }
	path := filepath.Join(t.TempDir(), "socket")
	if err := Ask(path, time.Second, status); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Ask(path, 50*time.Millisecond, status); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("without a server: %v", err)
	}
}
