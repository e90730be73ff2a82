// SPDX-License-Identifier: EPL-2.0

package main

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"scache/internal/client"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// TestRecorder_writesDownWhatIsSaid, and disturbs neither side. Recordings of the stock
// server are tests of internal/server.
func TestRecorder_writesDownWhatIsSaid(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := startMaster(t, binary, "connection_cache_announce_protocol = yes")
	socket := filepath.Join(t.TempDir(), "socket")
	r, err := postfixtest.StartRecorder(socket, m)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var clients []*client.Client
	for range 2 {
		c, err := postfixtest.Dial(socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	saved, rest, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	defer rest.Close()
	if status, err := clients[0].SaveEndpoint(2, "e\n", "p", int(rest.Fd())); status != client.OK ||
		err != nil {
		t.Fatal(status, err)
	}
	rest.Close()
	f, err := clients[1].FindEndpoint("e\n")
	if f.Code != client.OK || err != nil {
		t.Fatal(f, err)
	}
	unix.Close(f.FD)
	saved.SetReadDeadline(time.Now().Add(longWait))
	if _, err := saved.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a copy of the descriptor is open: %v", err)
	}
	if f, err := clients[1].FindEndpoint("e\n"); f.Code != client.NotFound || err != nil {
		t.Fatal(f, err)
	}
	want, err := postfixtest.ParseRecording(`S1: protocol\0connection_cache_protocol\0\0
S2: protocol\0connection_cache_protocol\0\0
C1: request\0save_endp\0ttl\02\0label\0e\n\0property\0p\0\0
S1: dummy\0\0\0
C1: descriptor a
S1: status\00\0\0
C2: request\0find_endp\0label\0e\n\0\0
S2: status\00\0property\0p\0\0
C2: dummy\0\0\0
S2: descriptor a
C2: dummy\0\0\0
C2: request\0find_endp\0label\0e\n\0\0
S2: status\02\0property\0\0\0`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Lines(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("recorded %v, %v", got, err)
	}
}
