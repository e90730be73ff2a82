// SPDX-License-Identifier: EPL-2.0

package postfixtest

import (
	"context"
	"testing"
	"time"
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
