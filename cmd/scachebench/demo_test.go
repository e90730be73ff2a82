// SPDX-License-Identifier: EPL-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"scache/internal/postfixtest"
	"scache/internal/testenv"
)

// TestDemo_run tells the shortest stories, and looks for what stands in the table.
func TestDemo_run(t *testing.T) {
	postfixtest.NeedPostfix(t)
	dir := t.TempDir()
	for _, name := range []string{"scache", "scachectl", "scachebench"} {
		if err := postfixtest.Build(filepath.Join(dir, name), "scache/cmd/"+name); err != nil {
			t.Fatal(err)
		}
	}
	out, err := postfixtest.Command(filepath.Join(dir, "scachebench"),
		"--scache", filepath.Join(dir, "scache"),
		"--scachectl", filepath.Join(dir, "scachectl"), "demo", "hangup", "plain").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"1 of 2, hangup: ", "300 of 300 messages have arrived",
		"\nhangup: ", "dead connections", "\nplain: ", "1000         1000         1000",
		"$ scachectl status", "$ scachectl hits", "scachebench demo reload",
	} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

func TestDemo_record(t *testing.T) {
	t.Parallel()
	d := &demo{}
	d.record(&story{name: "a"}, []view{{command: "receivers"}, {command: "status"}})
	d.record(&story{name: "b"}, []view{{command: "status"}, {command: "hits"}})
	want := []view{{"receivers", "a", ""}, {"status", "b", ""}, {"hits", "b", ""}}
	if !slices.Equal(d.views, want) {
		t.Errorf("got %v, want %v", d.views, want)
	}
}

// TestTrial_isCut sends mail to a receiver that answers no SYN, so that none is delivered.
func TestTrial_isCut(t *testing.T) {
	stock := postfixtest.NeedPostfix(t)
	trial := &trial{
		story: &story{
			messages: 5,
			domains:  5,
			receiver: postfixtest.ReceiverConfig{Unreachable: true},
			limit:    2 * time.Second,
			deliver:  deliverAtOnce,
		},
		server: server{name: stockName, binary: stock},
	}
	if err := trial.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if trial.cut != trial.story.limit || trial.delivered != 0 || trial.seconds < 2 {
		t.Errorf("got %+v, want no message, and the time of the cut", trial.outcome)
	}
	text := trial.state(trial.cut)
	if want := "0 of 5 messages have arrived: cut here"; !strings.Contains(text, want) {
		t.Errorf("got %q, want %q", text, want)
	}
}

// TestTrial_endsWithItsContext as at an interrupt.
func TestTrial_endsWithItsContext(t *testing.T) {
	postfixtest.NeedPostfix(t)
	ctx, cancel := context.WithCancel(t.Context())
	trial := &trial{
		story: &story{
			messages: 1,
			limit:    time.Minute,
			deliver: func(ctx context.Context, t *trial) error {
				cancel()
				<-ctx.Done()
				return nil
			},
		},
		server: server{name: noCache},
	}
	if err := trial.run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if _, err := os.Stat(trial.instance.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mail system is left: got %v, want %v", err, os.ErrNotExist)
	}
}

// TestStory_config has a destination for each domain, and settings by server.
func TestStory_config(t *testing.T) {
	t.Parallel()
	r, err := postfixtest.StartReceiver(postfixtest.ReceiverConfig{Hosts: []string{receiverHost}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	s := &story{
		domains:   2,
		settings:  map[string]string{"a": "1"},
		withCache: map[string]string{"b": "2"},
		withOurs:  map[string]string{"c": "3"},
	}
	for name, want := range map[string]string{noCache: "1", stockName: "12", oursName: "123"} {
		c := s.config(server{name: name}, r)
		if got := c.Main["a"] + c.Main["b"] + c.Main["c"]; got != want {
			t.Errorf("%s: got settings %s, want %s", name, got, want)
		}
		if cached := c.Main["smtp_connection_cache_destinations"] != ""; cached != (name != noCache) {
			t.Errorf("%s: got a cache: %v", name, cached)
		}
		transport := "domain2.test = smtp:" + r.NexthopAs("mx.domain2.test")
		if got := c.Main["transport_maps"]; !strings.Contains(got, transport) || len(c.Hosts) != 2 {
			t.Errorf("%s: got %s and hosts %v, want %s", name, got, c.Hosts, transport)
		}
	}
}

func TestDemo_choose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		names, want []string
	}{
		{nil, storyNames()},
		{[]string{"plain", "reload"}, []string{"reload", "plain"}},
	} {
		chosen, err := (&demo{stories: c.names}).choose()
		var got []string
		for _, s := range chosen {
			got = append(got, s.name)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: got %v, %v, want %v", c.names, got, err, c.want)
		}
	}
	_, err := (&demo{stories: []string{"plian"}}).choose()
	if err == nil || !strings.Contains(err.Error(), "reload, receivers") {
		t.Errorf("unknown story: got %v, want the names", err)
	}
}

// TestKnows asks binaries that refuse a bad value, take it, and fail for another reason.
func TestKnows(t *testing.T) {
	t.Parallel()
	const refuses = "scache: fatal: bad value of parameter connection_cache_receivers: entry"
	for output, want := range map[string]bool{
		"echo '" + refuses + "' >&2; exit 1":                                   true,
		"echo 'scache: configuration OK'":                                      false,
		"echo 'scache: warning: unknown parameter connection_cache_receivers'": false,
		"echo 'scache: fatal: bad value of parameter max_idle' >&2; exit 1":    false,
		"test -e $MAIL_CONFIG/main.cf && echo '" + refuses + "' >&2":           true,
	} {
		scache := filepath.Join(t.TempDir(), "scache")
		if err := testenv.WriteProgram(scache, "#!/bin/sh\n"+output+"\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := knows(t.Context(), scache, receiversParameter); got != want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", output, got, err, want)
		}
	}
}

func TestReadLog(t *testing.T) {
	t.Parallel()
	const prefix = "Nov 25 20:00:00 scache postfix/"
	const problem = ": warning: problem talking to service private/scache: Connection reset by peer"
	const delivery = ": to=<a@b.test>, relay=x[127.0.0.4]:25, "
	const sent = "delay=1, delays=0.1/0/0/0, dsn=2.0.0, status=sent (250 done)"
	const deferred = "delay=1, delays=0.1/0/0/0, dsn=4.7.0, status=deferred (421 no)"
	l := readLog([]string{
		prefix + "smtp[11]" + problem,
		prefix + "smtp[11]" + problem,
		prefix + "smtp[12]" + problem,
		prefix + "smtp[11]: AA" + delivery +
			"delay=9, delays=5/2/1.5/0.25, dsn=2.0.0, status=sent (250 done)",
		prefix + "smtp[11]: BB" + delivery +
			"conn_use=2, delay=1, delays=0.1/0/0/0.25, dsn=2.0.0, status=sent (250 done)",
		prefix + "smtp[11]: CC" + delivery + deferred,
		prefix + "smtp[11]: DD" + delivery + deferred,
		prefix + "smtp[11]: DD" + delivery + sent,
		prefix + "smtp[11]: DD" + delivery + sent,
		prefix + "scache[13]: statistics: domain lookup hits=3 miss=2 success=60%",
		prefix + "scache[13]: statistics: address lookup hits=1 miss=2 success=33%",
		prefix + "scache[13]: warning: something",
		prefix + "qmgr[14]: warning: something else",
	})
	if l.delivered != 3 || l.deferred != 1 || l.reused != 1 || l.hits != 4 || l.problems != 2 ||
		l.warnings != 4 || l.slowest != 1.75 || len(l.complaints) != 1 {
		t.Errorf("got %+v", l)
	}
}

// TestResult_verdict compares outcomes that differ, differ by chance, and are missing.
func TestResult_verdict(t *testing.T) {
	t.Parallel()
	s := &story{measures: []measure{delivered, seconds, connections}}
	for _, c := range []struct {
		ours, stock, none *outcome
		want              []string
	}{
		{&outcome{seconds: 1.1}, &outcome{seconds: 1}, nil, []string{"no advantage"}},
		{&outcome{seconds: 1, connections: 10}, &outcome{seconds: 4, connections: 15}, nil,
			[]string{"this scache: faster"}},
		{&outcome{seconds: 4, delivered: 9}, &outcome{seconds: 1, delivered: 1}, nil,
			[]string{"this scache: more messages", "the stock one is better in seconds"}},
		{&outcome{seconds: 1}, &outcome{seconds: 1}, &outcome{seconds: 5},
			[]string{"no advantage", "5.0 times"}},
		{nil, &outcome{}, nil, []string{"did not take part: old"}},
	} {
		r := result{story: s, outcomes: map[string]*outcome{}, missing: "old"}
		for name, o := range map[string]*outcome{oursName: c.ours, stockName: c.stock, noCache: c.none} {
			if o != nil {
				r.outcomes[name] = o
			}
		}
		got := r.verdict()
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("got %q, want %q in it", got, want)
			}
		}
	}
}

func TestLost(t *testing.T) {
	t.Parallel()
	s := &story{name: "x", messages: 10}
	with := func(o *outcome) []result {
		return []result{{story: s, outcomes: map[string]*outcome{oursName: o}}}
	}
	for _, c := range []struct {
		o    *outcome
		lost bool
	}{
		{&outcome{delivered: 10}, false},
		{&outcome{delivered: 9}, true},
		{&outcome{delivered: 9, cut: 1}, false},
		{&outcome{delivered: 10, complaints: []string{"warning: x"}}, true},
	} {
		if err := lost(with(c.o)); (err != nil) != c.lost {
			t.Errorf("%+v: got %v, want an error: %v", c.o, err, c.lost)
		}
	}
}
