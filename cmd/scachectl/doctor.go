// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/postfix"
)

// A finding is one line of doctor or explain.
type finding struct {
	Level string `json:"level"` // ok, note or problem
	About string `json:"about"`
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"`
}

func newDoctorCommand(c *site) *cobra.Command {
	asJSON := false
	const short = "Look for what is wrong or unusual, and say what to do"
	cmd := withoutArgs("doctor", short, func(cmd *cobra.Command) error {
		d, err := c.examine()
		if err != nil {
			return err
		}
		if asJSON {
			err = writeJSON(cmd.OutOrStdout(), d.findings)
		} else {
			err = printFindings(cmd.OutOrStdout(), d.findings)
		}
		if n := d.count("problem"); n > 0 {
			return errors.Join(err, fmt.Errorf("problems: %d", n))
		}
		return err
	})
	cmd.Long = `doctor checks the entry in master.cf, the configuration, each delivery agent, the
versions, the socket, limits, rates and the log, and says of each whether it is ok,
worth a note, or a problem, and what to do. It changes nothing. Some checks require
root. If there is a problem, it fails.`
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// A doctor examines one mail system.
type doctor struct {
	system    *postfix.System
	site      *site
	entry     postfix.Entry
	status    control.Status
	statusErr error // why status is not set
	running   bool  // Postfix
	findings  []finding
}

// examine makes all checks, in the order in which one leads to the next.
func (c *site) examine() (*doctor, error) {
	if c.socket != "" {
		return nil, errSocket
	}
	system, err := c.open()
	if err != nil {
		return nil, err
	}
	d := &doctor{system: system, site: c}
	if d.running, err = d.system.Running(); err != nil && os.Geteuid() == 0 {
		return nil, err
	}
	if d.running || err != nil {
		d.status, d.statusErr = c.statusWithin(quickTimeout)
		d.running = d.running || d.answered() || d.stock()
	} else {
		d.statusErr = errors.New("the mail system is not running")
	}
	d.checkEntry()
	d.checkValues() // Probe has its own timeout
	for _, c := range []struct {
		about string
		check func(*doctor)
	}{
		{"names", (*doctor).checkNames},
		{"agents", (*doctor).checkAgents},
		{"receivers", (*doctor).checkReceivers},
		{"versions", (*doctor).checkVersions},
		{"socket", (*doctor).checkSocket},
		{"answer", (*doctor).checkAnswer},
		{"confinement", (*doctor).checkConfinement},
		{"limits", (*doctor).checkLimits},
		{"rates", (*doctor).checkRates},
		{"log", (*doctor).checkLog},
	} {
		d.within(checkTimeout, c.about, c.check)
	}
	return d, nil
}

// checkTimeout is how long a check may take.
const checkTimeout = 2 * time.Second

// within makes a check with a timeout: the check may wait for a file or a process that does
// not answer. After the timeout, the goroutine of the check is left behind.
func (d *doctor) within(timeout time.Duration, about string, check func(*doctor)) {
	one := *d
	one.findings = nil
	done := make(chan struct{})
	go func() {
		check(&one)
		close(done)
	}()
	select {
	case <-done:
		d.findings = append(d.findings, one.findings...)
	case <-time.After(timeout):
		d.note(about, "see what keeps the machine busy, and run this again",
			"could not be checked within %v", timeout)
	}
}

func (d *doctor) ok(about, format string, args ...any) { d.say("ok", about, "", format, args...) }
func (d *doctor) note(about, do, format string, args ...any) {
	d.say("note", about, do, format, args...)
}
func (d *doctor) problem(about, do, format string, args ...any) {
	d.say("problem", about, do, format, args...)
}

func (d *doctor) say(level, about, do, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	d.findings = append(d.findings, finding{level, about, text, do})
}

func (d *doctor) count(level string) (n int) {
	for _, f := range d.findings {
		if f.Level == level {
			n++
		}
	}
	return n
}

func printFindings(w io.Writer, findings []finding) error {
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%-8s %-13s %s\n", f.Level, f.About, f.Text); err != nil {
			return err
		}
		if f.Do != "" {
			fmt.Fprintf(w, "%22s → %s\n", "", f.Do)
		}
	}
	return nil
}

// enabled reports whether the entry names this server.
func (d *doctor) enabled() bool { return postfix.IsOurs(d.entry.Command) }

// answered reports whether this server has answered with its status.
func (d *doctor) answered() bool { return d.statusErr == nil }

// stock reports whether the server that answers is the stock one.
func (d *doctor) stock() bool { return errors.Is(d.statusErr, client.ErrStock) }
