// SPDX-License-Identifier: EPL-2.0

// What happens to mail when the cache fails. README.md has the figures that these tests log.

package main

import (
	"context"
	"syscall"
	"testing"
	"time"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// outageMessages is how much mail is sent while the cache fails.
const outageMessages = 500

// startRelay starts a mail system that relays to a sink and caches all connections to it.
func startRelay(t *testing.T, scache, chroot string) *postfixtest.Instance {
	t.Helper()
	main := relayTo(startSink(t).Port, nil)
	return startInstance(t, postfixtest.Config{Scache: scache, Chroot: chroot, Main: main})
}

// timeMail sends mail, runs meanwhile, and waits until all is delivered. It logs how long that
// took, and fails unless each message was delivered once.
func timeMail(t *testing.T, i *postfixtest.Instance, meanwhile func()) {
	t.Helper()
	before, connectionsBefore := i.Sent()
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	start := time.Now()
	sent := make(chan error, 1)
	go func() { sent <- i.Send(ctx, outageMessages, 10, "recipient@example.test") }()
	meanwhile()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err := i.WaitSent(ctx, before+outageMessages); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	messages, connections := i.Sent()
	t.Logf("%d messages in %.1f s over %d connections; agents logged %d problems with the cache, "+
		"and %d gave it up", messages-before, took.Seconds(), connections-connectionsBefore,
		len(i.Grep("problem talking to service private/scache")),
		len(i.Grep("disabling connection caching")))
	if got := messages - before; got != outageMessages {
		t.Errorf("got %d messages, want %d", got, outageMessages)
	}
}

func TestMail_whenTheCacheWorks(t *testing.T) {
	testenv.SkipShort(t)
	postfixtest.NeedPostfix(t)
	t.Parallel()
	i := startRelay(t, binary, "y")
	timeMail(t, i, func() {})
}

// TestMail_whenTheCacheIsKilled kills the daemon twice: master(8) starts it again at once.
func TestMail_whenTheCacheIsKilled(t *testing.T) {
	testenv.SkipShort(t)
	postfixtest.NeedPostfix(t)
	t.Parallel()
	i := startRelay(t, binary, "y")
	timeMail(t, i, func() {
		for _, after := range []int{outageMessages / 4, outageMessages / 2} {
			var pid int
			testenv.Eventually(t, "part of the mail is delivered, and the cache runs",
				func() (running bool) {
					messages, _ := i.Sent()
					pid, running = findCache(i)
					return running && messages >= after
				})
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	if n := len(i.Grep("disabling connection caching")); n > 0 {
		t.Errorf("%d agents disabled caching", n)
	}
}

// TestMail_whenTheCacheCannotStart has a command that fails, which master(8) throttles.
func TestMail_whenTheCacheCannotStart(t *testing.T) {
	testenv.SkipShort(t)
	postfixtest.NeedPostfix(t)
	t.Parallel()
	i := startRelay(t, "/bin/false", "n")
	timeMail(t, i, func() {})
	wantCachingDisabled(t, i)
}

// TestMail_whenTheCacheHangs stops the daemon by a signal.
func TestMail_whenTheCacheHangs(t *testing.T) {
	testenv.SkipShort(t)
	postfixtest.NeedPostfix(t)
	t.Parallel()
	i := startRelay(t, binary, "y")
	deliver(t, i, 1, "recipient@example.test") // starts the daemon
	pid := pidOf(t, i)
	syscall.Kill(pid, syscall.SIGSTOP)
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGCONT) })
	timeMail(t, i, func() {})
	wantCachingDisabled(t, i)
}

// wantCachingDisabled fails unless agents have given up the cache.
func wantCachingDisabled(t *testing.T, i *postfixtest.Instance) {
	t.Helper()
	if len(i.Grep("disabling connection caching")) == 0 {
		t.Error("no agent disabled caching")
	}
}
