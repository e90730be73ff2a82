// SPDX-License-Identifier: EPL-2.0

package server

// What clients of real Postfix versions have said, and what the stock server of the
// same version has answered: see testdata/conversations. "make record" records it
// again.

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// TestConversation_asRecorded wants the answers of the stock server, to the byte, and
// each descriptor in the hands of the client who got it there: with the clients'
// bytes as they came, and cut in two at every place.
func TestConversation_asRecorded(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../testdata/conversations/*/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		dir, scenario := filepath.Split(file)
		version := filepath.Base(dir) // SUITE-VERSION
		t.Run(version+"/"+scenario, func(t *testing.T) {
			t.Parallel()
			var major, minor int
			if _, err := fmt.Sscanf(version[strings.Index(version, "-")+1:], "%d.%d", &major,
				&minor); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := postfixtest.ParseRecording(string(text))
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			w.Announce = func() bool { return major > 3 || major == 3 && minor >= 6 }
			worker := stillWorker(t, w)
			longest := 0
			for cut := 0; cut <= longest; cut++ {
				r := &replay{t: t, w: w, worker: worker, cut: cut, clients: map[int]*replayed{},
					pipes: map[string]*replayedPipe{}}
				r.play(lines)
				longest = max(longest, r.longest)
			}
			if lines := w.logged(); len(lines) > 0 {
				t.Errorf("logged %q", lines)
			}
		})
	}
}

// A replay plays a recording once.
type replay struct {
	t       *testing.T
	w       *world
	worker  *worker
	cut     int // where all that is said at a time is cut in two, or 0
	longest int // how much was said at a time, at most
	clients map[int]*replayed
	pipes   map[string]*replayedPipe
	line    postfixtest.Line // the present one
}

// A replayed is a client.
type replayed struct {
	c *conversation
	p *peer
}

// A replayedPipe stands for a session.
type replayedPipe struct {
	inode uint64
	r     int
	w     int // the client's copy of the descriptor, or none
}

func (r *replay) play(lines []postfixtest.Line) {
	for i := 0; i < len(lines); i++ {
		r.line = lines[i]
		switch l := r.line; {
		case l.Wait > 0:
			r.w.now.Add(int64(l.Wait))
		case l.Restart:
			r.endAll()
		case l.Side == 'S' && l.Descriptor != "":
			r.receive()
		case l.Side == 'S':
			r.hear(l.Text)
		case l.Descriptor != "":
			r.send()
		default:
			said := l.Text
			for ; i+1 < len(lines) && lines[i+1].Side == 'C' && lines[i+1].Client == l.Client &&
				lines[i+1].Text != ""; i++ {
				said += lines[i+1].Text // an acknowledgement may be glued to the next request
			}
			r.say(said)
		}
	}
	r.endAll()
	for name, pipe := range r.pipes {
		if pipe.w != fdpass.None {
			unix.Close(pipe.w)
		}
		// The server may close its copy a moment after the client is gone.
		if testenv.WantClosed(r.t, pipe.r); r.t.Failed() {
			r.fatalf("this was descriptor %s", name)
		}
		unix.Close(pipe.r)
	}
}

func (r *replay) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("cut at %d: %v\n%s", r.cut, r.line, fmt.Sprintf(format, args...))
}

// client returns that of the present line, who may have to connect.
func (r *replay) client() *replayed {
	c := r.clients[r.line.Client]
	if c == nil {
		c = &replayed{}
		c.c, c.p = r.worker.meetStill(r.t)
		r.clients[r.line.Client] = c
	}
	return c
}

func (r *replay) say(text string) {
	r.longest = max(r.longest, len(text)-1)
	client := r.client()
	said := []byte(text)
	if r.cut > 0 && r.cut < len(said) {
		client.p.Write(said[:r.cut])
		client.c.Ready()
		said = said[r.cut:]
	}
	client.p.Write(said)
	client.c.Ready()
}

// hear wants an answer that must be there already.
func (r *replay) hear(want string) {
	got := make([]byte, len(want))
	client := r.client()
	client.p.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.ReadFull(client.p, got); string(got) != want {
		r.fatalf("heard %q, %v", got[:n], err)
	}
}

// send sends a descriptor, of which the client keeps no copy.
func (r *replay) send() {
	pipe := r.pipes[r.line.Descriptor]
	if pipe == nil {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			r.t.Fatal(err)
		}
		pipe = &replayedPipe{testenv.Inode(r.t, p[0]), p[0], p[1]}
		r.pipes[r.line.Descriptor] = pipe
	}
	client := r.client()
	client.p.Send(pipe.w)
	unix.Close(pipe.w)
	pipe.w = fdpass.None
	client.c.Ready()
}

func (r *replay) receive() {
	r.hear("\x00")
	fd, err := r.client().p.Take()
	if err != nil {
		r.fatalf("%v", err)
	}
	pipe := r.pipes[r.line.Descriptor]
	if pipe.inode != testenv.Inode(r.t, fd) {
		r.fatalf("another descriptor")
	}
	pipe.w = fd
}

// endAll ends the server with all that it has, when it has no more to say.
func (r *replay) endAll() {
	for n, client := range r.clients {
		client.c.end(nil)
		if heard, _ := io.ReadAll(client.p); len(heard) > 0 {
			r.fatalf("client %d hears %q", n, heard)
		}
		client.p.Close()
		delete(r.clients, n)
	}
	r.w.Cache.Clear()
}
