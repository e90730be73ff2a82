// SPDX-License-Identifier: EPL-2.0

// Command record records the conversations between the clients of the installed Postfix and
// its stock connection cache, one file for each scenario. It needs root, and runs in a
// separate root directory: see .ci/record.
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM,
		syscall.SIGHUP)
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

// Values that differ in each recording. Their lengths do not.
var (
	moment      = regexp.MustCompile(`(expire_time=)\d{10}`)
	fingerprint = regexp.MustCompile(`fingerprint=[0-9A-F:]*`)
	hexadecimal = regexp.MustCompile(`[0-9A-F]{2}`)
)

const legend = "# C1 is what client 1 says, and S1 what it hears: " +
	"see internal/postfixtest/recording.go.\n"

// limit bounds the time for a scenario.
const limit = time.Minute

func (s *scenario) record(ctx context.Context, dir string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f := &fixture{scenario: s, ctx: ctx, sinks: map[string]*postfixtest.Sink{}}
	defer f.close()
	if err := f.build(); err != nil {
		return err
	}
	for _, step := range s.steps {
		if err := f.do(step); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
	}
	lines, err := f.recorder.Lines()
	if err != nil {
		return err
	}
	text := legend + "# " + strings.ReplaceAll(s.about, "\n", "\n# ") + "\n"
	for _, line := range lines {
		text += line.String() + "\n"
	}
	text = moment.ReplaceAllString(text, "${1}1000000000")
	text = fingerprint.ReplaceAllStringFunc(text,
		func(s string) string { return hexadecimal.ReplaceAllString(s, "00") })
	return os.WriteFile(filepath.Join(dir, s.name), []byte(text), 0o644)
}

// A fixture is all that a scenario needs: mail system, cache and sinks.
type fixture struct {
	*scenario
	ctx      context.Context
	dir      string
	instance *postfixtest.Instance
	server   *postfixtest.Master
	recorder *postfixtest.Recorder
	sinks    map[string]*postfixtest.Sink
}

// masterCF has an smtp(8) without chroot, which knows the name localhost, and an smtpd(8) that
// receives mail with TLS and discards it.
const masterCF = `smtp unix - - n - - smtp
127.0.0.1:2526 inet n - n - - smtpd
  -o myhostname=tls.test
  -o smtpd_tls_security_level=encrypt
  -o smtpd_tls_chain_files=%s
  -o smtpd_recipient_restrictions=check_client_access,static:discard
`

func (f *fixture) build() (err error) {
	if f.dir, err = os.MkdirTemp("", "scache-record-"); err != nil {
		return err
	}
	certificate := filepath.Join(f.dir, "certificate")
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
	maps.Copy(config.Main, f.settings)
	if f.instance, err = postfixtest.NewInstance(config); err != nil {
		return err
	}
	for name := range sinks {
		if err := f.startSink(name); err != nil {
			return err
		}
	}
	stock, err := postfixtest.Stock()
	if err != nil {
		return err
	}
	if f.server, err = postfixtest.StartMaster(stock, "connection_cache_ttl_limit = 60s"); err != nil {
		return err
	}
	if err := f.instance.Start(); err != nil {
		return err
	}
	f.recorder, err = postfixtest.StartRecorder(filepath.Join(f.instance.Dir, "queue/private/scache"),
		f.server)
	return err
}

func (f *fixture) close() {
	if f.instance != nil {
		f.instance.Close()
	}
	if f.recorder != nil {
		f.recorder.Close()
	}
	if f.server != nil {
		f.server.Close()
	}
	for _, sink := range f.sinks {
		sink.Close()
	}
	os.RemoveAll(f.dir)
}

func (f *fixture) do(step string) error {
	what, argument, _ := strings.Cut(step, " ")
	switch what {
	case "mail":
		if err := f.instance.Send(f.ctx, 1, 1, "recipient@"+argument); err != nil {
			return err
		}
		return f.instance.WaitEmpty(f.ctx)
	case "begin":
		if err := f.instance.Send(f.ctx, 1, 1, "recipient@"+argument); err != nil {
			return err
		}
		return f.waitForMiss()
	case "stop":
		f.sinks[argument].Close()
		return nil
	case "start":
		return f.startSink(argument)
	case "wait":
		d, err := time.ParseDuration(argument)
		f.recorder.Wait(d)
		return err
	case "restart":
		return f.recorder.Restart()
	}
	return errors.New("unknown step")
}

func (f *fixture) startSink(name string) (err error) {
	f.sinks[name], err = postfixtest.StartSinkAt(sinks[name], port, f.sink...)
	return err
}

// waitForMiss waits until the only client so far has received "not found" by address.
func (f *fixture) waitForMiss() error {
	for {
		lines, err := f.recorder.Lines()
		if err != nil {
			return err
		}
		if n := len(lines); n > 1 && strings.HasPrefix(lines[n-2].Text, "request\x00find_endp") &&
			lines[n-1].Side == 'S' {
			return nil
		}
		select {
		case <-f.ctx.Done():
			return f.ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}
