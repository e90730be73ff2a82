// SPDX-License-Identifier: EPL-2.0

// Agents and receivers that fail while clients wait.

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// TestReceivers_unreachable has a receiver that answers no SYN. Each message gets its turn, and
// nothing is left: no connection, no client in the line.
func TestReceivers_unreachable(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	m := limitedMail{
		receiver: postfixtest.ReceiverConfig{Unreachable: true}, limits: "connections=3",
		messages: 12, domains: 12,
		main: map[string]string{
			"smtp_connect_timeout": "1s",
			// Postfix is not to give up earlier.
			"default_destination_concurrency_failed_cohort_limit": "0",
		},
	}
	r := m.start(t)
	i := startInstance(t, m.config(r.Port))
	ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
	defer cancel()
	for d := range m.domains {
		if err := i.Send(ctx, 1, 1, fmt.Sprintf("recipient@d%d.test", d)); err != nil {
			t.Fatal(err)
		}
	}
	var s control.Receiver
	most := int64(0)
	testenv.Eventually(t, "all mail is deferred, and no client waits", func() bool {
		s = receiverStats(t, i)
		most = max(most, s.Open)
		deferred := i.Grep("status=deferred", "Connection timed out")
		return len(deferred) == m.messages && s.Waiting == 0
	})
	t.Logf("%+v", s)
	// The connection that fills the accept queue of the receiver is one of the three.
	if most > 3 || s.Overflows > 0 || s.New != int64(m.messages) {
		t.Errorf("got %d connections at once, and %+v, want at most 3, and %d new ones",
			most, s, m.messages)
	}
	begin := time.Now()
	found := askInstance(t, i, fmt.Sprintf("smtp\n127.0.0.9\n%d\n0\n", r.Port))
	if took := time.Since(begin); found.Code != client.NotFound || took > wantAtOnce {
		t.Errorf("got status %d after %v, want %d at once", found.Code, took, client.NotFound)
	}
}

// wantAtOnce is long enough for any answer that does not wait, and shorter than any wait.
const wantAtOnce = 20 * time.Second

// askInstance asks the server of an instance for an endpoint.
func askInstance(t *testing.T, i *postfixtest.Instance, label string) (found client.Found) {
	t.Helper()
	err := client.Ask(i.Dir+"/queue/private/scache", longWait, func(c *client.Client) (err error) {
		found, err = c.FindEndpoint(label)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// agentVariable has the socket of the server for a process that this binary is then: it asks
// for the endpoint that it reads, and stays.
const agentVariable = "SCACHE_TEST_AGENT"

// runAgent is the main function of the process. Its standard output says what the answer was.
func runAgent(socket string) {
	label, err := io.ReadAll(os.Stdin)
	var found client.Found
	if err == nil {
		var c *client.Client
		if c, err = postfixtest.Dial(socket); err == nil {
			found, err = c.FindEndpoint(string(label))
		}
	}
	fmt.Println(found.Code, err)
	select {}
}

// An agent is such a process.
type agent struct {
	*exec.Cmd
	answer *bufio.Reader
}

func (f *fullReceiver) startAgent(t *testing.T) *agent {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), agentVariable+"="+f.Socket)
	cmd.Stdin = strings.NewReader(f.label)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &agent{cmd, bufio.NewReader(out)}
	t.Cleanup(a.kill)
	return a
}

// kill ends the process by SIGKILL.
func (a *agent) kill() {
	a.Process.Kill()
	a.Wait()
}

// TestReceivers_agentKilled has agents killed: while one waits, and after one was told to
// connect. The others get their turns, and nothing is left.
func TestReceivers_agentKilled(t *testing.T) {
	testenv.SkipShort(t)
	t.Parallel()
	f := startFullReceiver(t)
	warmUp, _ := f.find(t)
	f.wantWaiting(t, 1)
	// The server opens what it needs to count, which may be after the client has begun to wait.
	testenv.Eventually(t, "connections are counted", func() bool {
		all, err := askReceivers(f.Socket)
		return err == nil && len(all) == 1 && all[0].Open == 1
	})
	warmUp.Close()
	f.wantWaiting(t, 0)
	before := stableDescriptors(t, f.Master)
	first := f.startAgent(t)
	f.wantWaiting(t, 1)
	second := f.startAgent(t)
	f.wantWaiting(t, 2)
	last, answer := f.find(t)
	f.wantWaiting(t, 3)
	first.kill()
	f.wantWaiting(t, 2)
	f.hangUp()
	want := fmt.Sprintf("%d <nil>\n", client.NotFound)
	if got, err := second.answer.ReadString('\n'); got != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
	second.kill() // it was about to connect
	if found := <-answer; found.Code != client.NotFound {
		t.Errorf("got status %d, want %d", found.Code, client.NotFound)
	}
	last.Close()
	f.wantWaiting(t, 0)
	testenv.Eventually(t, "no descriptor is left", func() bool {
		n, err := f.Descriptors()
		return err == nil && n <= before
	})
	wantNoWarnings(t, f.Master)
}
