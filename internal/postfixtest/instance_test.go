// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"scache/internal/testenv"
)

// TestInstance_knowsHosts relays by a name that nothing but the instance knows.
func TestInstance_knowsHosts(t *testing.T) {
	t.Parallel()
	NeedPostfix(t)
	r := startReceiver(t, ReceiverConfig{Hosts: []string{"127.0.0.5"}})
	i, err := NewInstance(Config{
		Hosts: map[string][]string{"mx.receiver.test": {"127.0.0.5"}},
		Main:  map[string]string{"relayhost": r.NexthopAs("mx.receiver.test")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := i.Send(ctx, 3, 1, "recipient@example.test"); err != nil {
		t.Fatal(err)
	}
	if err := i.WaitSent(ctx, 3); err != nil {
		t.Error(err)
	}
	if got := r.Stats().Messages; got != 3 {
		t.Errorf("the receiver has %d messages, want 3", got)
	}
}

// TestInstance_reloadTakesTooLong kills the instance, as its processes wait for each other.
func TestInstance_reloadTakesTooLong(t *testing.T) {
	t.Parallel()
	NeedPostfix(t)
	i, err := NewInstance(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Start(); err != nil {
		t.Fatal(err)
	}
	path := i.path("libexec/postfix-script")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\ntest $1 = reload && exec sleep 1000\nexit 1\n"
	if err := testenv.WriteProgram(path, script); err != nil {
		t.Fatal(err)
	}
	i.reloadTimeout = 100 * time.Millisecond
	if err := i.Command("reload"); !errors.Is(err, ErrStuck) {
		t.Errorf("got %v, want %v", err, ErrStuck)
	}
	testenv.Eventually(t, "Postfix does not answer", func() bool {
		conn, err := net.Dial("tcp", i.SMTP)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}
