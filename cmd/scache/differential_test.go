// SPDX-License-Identifier: EPL-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/attr"
	"scache/internal/client"
	"scache/internal/fdpass"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// A contender is one of the servers that are compared, with its clients.
type contender struct {
	*postfixtest.Master
	clients []*client.Client
}

func newContender(t *testing.T, binary string, clients int) *contender {
	t.Helper()
	c := &contender{Master: startMaster(t, binary,
		"connection_cache_ttl_limit=1h\nconnection_cache_status_update_time=1h")}
	for range clients {
		c.clients = append(c.clients, dial(t, c.Master))
	}
	return c
}

// An operation does one thing to a server and tells all that can be seen of the
// answer.
type operation func(t *testing.T, c *client.Client) string

func saveEndpoint(ttl int32, label, property string, fd int) operation {
	return func(t *testing.T, c *client.Client) string {
		status, err := c.SaveEndpoint(ttl, label, property, fd)
		return fmt.Sprint("save_endp ", status, err)
	}
}

func saveDestination(ttl int32, label, property, endpoint string) operation {
	return func(t *testing.T, c *client.Client) string {
		status, err := c.SaveDestination(ttl, label, property, endpoint)
		return fmt.Sprint("save_dest ", status, err)
	}
}

func findEndpoint(label string) operation {
	return func(t *testing.T, c *client.Client) string {
		f, err := c.FindEndpoint(label)
		return describe(t, "find_endp", f, err)
	}
}

func findDestination(label string) operation {
	return func(t *testing.T, c *client.Client) string {
		f, err := c.FindDestination(label)
		return describe(t, "find_dest", f, err)
	}
}

func describe(t *testing.T, request string, f client.Found, err error) string {
	text := fmt.Sprintf("%s %d %q %q %v", request, f.Code, f.DestinationProperty, f.Property, err)
	if err == nil && f.Code == client.OK {
		text += fmt.Sprint(" inode ", inode(t, f.FD))
	}
	return text
}

// raw sends bytes, and after the first reply possibly a byte with descriptors.
func raw(request string, then func(*fdpass.Conn)) operation {
	return func(t *testing.T, c *client.Client) string {
		in := attr.NewDecoder(c.Conn)
		c.Conn.Write([]byte(request))
		list, err := in.Decode()
		text := fmt.Sprintf("%q: %q %v", request, list, err)
		if then != nil {
			then(c.Conn.(*fdpass.Conn))
			list, err = in.Decode()
			text += fmt.Sprintf(", then %q %v", list, err)
		}
		return text
	}
}

// list returns the bytes of a list.
func list(fields ...string) string { return strings.Join(fields, "\x00") + "\x00\x00" }

// malformed requests, to which the two answer alike.
func malformed(fd int) []operation {
	noDescriptor := func(c *fdpass.Conn) { c.Write([]byte{0}) }
	twoDescriptors := func(c *fdpass.Conn) { c.WriteMsgUnix([]byte{0}, unix.UnixRights(fd, fd), nil) }
	save := list("request", "save_endp", "ttl", "9", "label", "e1", "property", "p")
	return []operation{
		raw(list("request", "nonsense", "label", "x"), nil),
		raw(list("request", "find_endp"), nil),
		raw(list("request", "find_dest", "property", "x"), nil),
		raw(list("request", "save_endp", "ttl", "0", "label", "e1", "property", "p"), nil),
		raw(list("request", "save_endp", "ttl", "4294967295", "label", "e1", "property", "p"), nil),
		raw(list("request", "save_endp", "ttl", "9x", "label", "e1", "property", "p"), nil),
		raw(list("request", "save_dest", "ttl", "0", "label", "d", "property", "p", "label", "e1"), nil),
		raw(list("request", "save_dest", "ttl", "9", "label", "d", "property", "p"), nil),
		raw(save, noDescriptor),
		raw(save, twoDescriptors),
	}
}

func TestServer_answersAsStock(t *testing.T) {
	t.Parallel()
	stock := newContender(t, postfixtest.NeedPostfix(t), 8)
	ours := newContender(t, binary, 8)
	const operations = 10_000
	seed := uint64(time.Now().UnixNano())
	t.Logf("%d operations, seed %d", operations, seed)
	r := rand.New(rand.NewPCG(seed, 0))
	label := func(kind string, n int) string { return fmt.Sprintf("smtp\n%s%d\n", kind, r.IntN(n)) }

	for i := range operations {
		fd := testenv.NewDescriptor(t)
		ttl := int32(100 + r.IntN(100_000)) // longer than the test, whatever the limit
		var op operation
		switch n := r.IntN(100); {
		case n < 30:
			op = saveEndpoint(ttl, label("e", 20), label("p", 3), fd)
		case n < 50:
			op = saveDestination(ttl, label("d", 10), label("p", 3), label("e", 20))
		case n < 75:
			op = findEndpoint(label("e", 22))
		case n < 95:
			op = findDestination(label("d", 11))
		default:
			bad := malformed(fd)
			op = bad[r.IntN(len(bad))]
		}
		who := r.IntN(len(ours.clients))
		theirs, mine := op(t, stock.clients[who]), op(t, ours.clients[who])
		unix.Close(fd)
		if theirs != mine {
			t.Fatalf("operation %d:\nstock %s\nours  %s", i, theirs, mine)
		}
	}
	theirs, mine := statistics(t, stock), statistics(t, ours)
	if !slices.Equal(theirs, mine) || len(mine) != 3 {
		t.Errorf("statistics:\nstock %q\nours  %q", theirs, mine)
	}
}

// TestStatistics_peaksAsStock compares the statistics after each single kind of request.
func TestStatistics_peaksAsStock(t *testing.T) {
	t.Parallel()
	stockBinary := postfixtest.NeedPostfix(t)
	fd := testenv.NewDescriptor(t)
	t.Cleanup(func() { unix.Close(fd) })
	for name, script := range map[string][]operation{
		"nothing":               {},
		"one binding":           {saveDestination(9, "d", "p", "e")},
		"binding, then session": {saveDestination(9, "d", "p", "e"), saveEndpoint(9, "f", "p", fd)},
		"session, then binding": {saveEndpoint(9, "f", "p", fd), saveDestination(9, "d", "p", "e")},
		"given away": {saveEndpoint(9, "f", "p", fd), findEndpoint("f"),
			saveDestination(9, "d", "p", "f")},
		"misses": {findEndpoint("f"), findDestination("d"), findDestination("e")},
		"refreshed": {saveDestination(9, "d", "p", "e"), saveDestination(9, "d", "p", "e"),
			saveDestination(9, "d", "q", "e")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stock, ours := newContender(t, stockBinary, 1), newContender(t, binary, 1)
			for _, op := range script {
				if theirs, mine := op(t, stock.clients[0]), op(t, ours.clients[0]); theirs != mine {
					t.Errorf("stock %s, ours %s", theirs, mine)
				}
			}
			if theirs, mine := statistics(t, stock), statistics(t, ours); !slices.Equal(theirs, mine) {
				t.Errorf("statistics:\nstock %q\nours  %q", theirs, mine)
			}
		})
	}
}

// statistics ends a server and returns what it logs about its life, without
// the time.
func statistics(t *testing.T, c *contender) []string {
	t.Helper()
	if err := c.HangUp(); err != nil {
		t.Errorf("%s: %v", c.Binary, err)
	}
	c.DrainLog()
	var lines []string
	for _, text := range c.Texts() {
		if strings.HasPrefix(text, "statistics: ") &&
			!strings.HasPrefix(text, "statistics: start interval ") {
			lines = append(lines, text)
		}
	}
	return lines
}
