// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"net"
	"os/exec"
	"strconv"
	"sync"
	"testing"
)

// TestFreePort_givesEachPortOnce although nothing listens at it yet.
func TestFreePort_givesEachPortOnce(t *testing.T) {
	t.Parallel()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	if err := reserve(port); err == nil {
		t.Errorf("port %d was given twice", port)
	}
}

// TestFreePort_isFreeAtOnce while commands are started, whose processes begin with a copy of
// each socket.
func TestFreePort_isFreeAtOnce(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	var starting sync.WaitGroup
	defer starting.Wait()
	defer close(done)
	for range 4 {
		starting.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					exec.Command("true").Run()
				}
			}
		})
	}
	for range 100 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
}

func TestCheckFree_isInUse(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"127.0.0.1", "::1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := CheckFree(l.Addr().String()); err == nil {
			t.Errorf("%s, where a process listens: got no error, want one", l.Addr())
		}
	}
}
