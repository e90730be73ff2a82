// SPDX-License-Identifier: EPL-2.0

// Command record writes down what the clients of the installed Postfix and its stock
// connection cache say to each other, one file for each scenario. It runs as root, in
// a system of its own: see .ci/record.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"scache/internal/postfixtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: record DIRECTORY")
		os.Exit(1)
	}
	for _, s := range scenarios {
		if err := s.record(ctx, os.Args[1]); err != nil {
			fmt.Fprintf(os.Stderr, "record: %s: %v\n", s.name, err)
			stop()
			os.Exit(1)
		}
	}
}

// What differs each time. Its length does not.
var (
	moment      = regexp.MustCompile(`(expire_time=)\d{10}`)
	fingerprint = regexp.MustCompile(`fingerprint=[0-9A-F:]*`)
	hexadecimal = regexp.MustCompile(`[0-9A-F]{2}`)
)

const legend = "# C1 is what client 1 says, and S1 what it hears: see internal/postfixtest/recording.go.\n"

// limit bounds the time for a scenario.
const limit = time.Minute

func (s *scenario) record(ctx context.Context, dir string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	st := &stage{scenario: s, ctx: ctx, sinks: map[string]*postfixtest.Sink{}}
	defer st.close()
	if err := st.build(); err != nil {
		return err
	}
	for _, step := range s.steps {
		if err := st.do(step); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	lines, err := st.recorder.Lines()
	if err != nil {
		return err
	}
	text := legend + "# " + strings.ReplaceAll(s.about, "\n", "\n# ") + "\n"
	for _, line := range lines {
		text += line.String() + "\n"
	}
	text = moment.ReplaceAllString(text, "${1}1000000000")
	text = fingerprint.ReplaceAllStringFunc(text, func(s string) string { return hexadecimal.ReplaceAllString(s, "00") })
	return os.WriteFile(filepath.Join(dir, s.name), []byte(text), 0o644)
}

// A stage is all that a scenario needs: mail system, cache and sinks.
type stage struct {
	*scenario
	ctx      context.Context
	dir      string
	instance *postfixtest.Instance
	server   *postfixtest.Master
	recorder *postfixtest.Recorder
	sinks    map[string]*postfixtest.Sink
}

// masterCF has an smtp(8) that knows the name localhost, and an smtpd(8) that receives
// mail with TLS and throws it away.
const masterCF = `smtp unix - - n - - smtp
127.0.0.1:2526 inet n - n - - smtpd
  -o myhostname=tls.test
  -o smtpd_tls_security_level=encrypt
  -o smtpd_tls_chain_files=%s
  -o smtpd_recipient_restrictions=check_client_access,static:discard
`

func (st *stage) build() (err error) {
	if st.dir, err = os.MkdirTemp("", "scache-record-"); err != nil {
		return err
	}
	certificate := filepath.Join(st.dir, "certificate")
	if err := postfixtest.NewCertificate(certificate); err != nil {
		return err
	}
	config := postfixtest.Config{
		Main: map[string]string{
			"compatibility_level":                "2", // all versions understand it
			"transport_maps":                     transport,
			"smtp_connection_cache_destinations": cached,
			"lmtp_connection_cache_destinations": cached,
			"smtp_connection_cache_time_limit":   "60s", // long enough for a slow machine
			"lmtp_connection_cache_time_limit":   "60s",
		},
		Master: fmt.Sprintf(masterCF, certificate),
	}
	maps.Copy(config.Main, st.settings)
	if st.instance, err = postfixtest.NewInstance(config); err != nil {
		return err
	}
	for name := range sinks {
		if err := st.startSink(name); err != nil {
			return err
		}
	}
	stock, err := postfixtest.Stock()
	if err != nil {
		return err
	}
	if st.server, err = postfixtest.StartMaster(stock, "connection_cache_ttl_limit = 60s"); err != nil {
		return err
	}
	if err := st.instance.Start(); err != nil {
		return err
	}
	st.recorder, err = postfixtest.StartRecorder(filepath.Join(st.instance.Dir, "queue/private/scache"), st.server)
	return err
}

func (st *stage) close() {
	if st.instance != nil {
		st.instance.Close()
	}
	if st.recorder != nil {
		st.recorder.Close()
	}
	if st.server != nil {
		st.server.Close()
	}
	for _, sink := range st.sinks {
		sink.Close()
	}
	os.RemoveAll(st.dir)
}

func (st *stage) do(step string) error {
	what, argument, _ := strings.Cut(step, " ")
	switch what {
	case "mail":
		if err := st.instance.Send(st.ctx, 1, 1, "recipient@"+argument); err != nil {
			return err
		}
		return st.instance.WaitEmpty(st.ctx)
	case "begin":
		if err := st.instance.Send(st.ctx, 1, 1, "recipient@"+argument); err != nil {
			return err
		}
		return st.waitForMiss()
	case "stop":
		st.sinks[argument].Close()
		return nil
	case "start":
		return st.startSink(argument)
	case "wait":
		d, err := time.ParseDuration(argument)
		st.recorder.Wait(d)
		return err
	case "restart":
		return st.recorder.Restart()
	}
	return errors.New("unknown step")
}

func (st *stage) startSink(name string) (err error) {
	st.sinks[name], err = postfixtest.StartSinkAt(sinks[name], port, st.sink...)
	return err
}

// waitForMiss waits until the only client so far has heard that there is nothing.
func (st *stage) waitForMiss() error {
	for {
		lines, err := st.recorder.Lines()
		if err != nil {
			return err
		}
		if n := len(lines); n > 1 && strings.HasPrefix(lines[n-2].Text, "request\x00find_endp") && lines[n-1].Side == 'S' {
			return nil
		}
		select {
		case <-st.ctx.Done():
			return st.ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
