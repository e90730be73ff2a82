// SPDX-License-Identifier: EPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"scache/internal/client"
	"scache/internal/control"
	"scache/internal/postfix"
)

// A finding is what doctor says about one thing.
type finding struct {
	Level string `json:"level"` // ok, note or problem
	About string `json:"about"`
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"`
}

func newDoctorCommand(c *site) *cobra.Command {
	asJSON := false
	cmd := terse("doctor", "Look for what is wrong or unusual, and say what to do", func(cmd *cobra.Command) error {
		d, err := c.examine()
		if err != nil {
			return err
		}
		if asJSON {
			err = writeJSON(cmd.OutOrStdout(), d.findings)
		} else {
			err = d.print(cmd.OutOrStdout())
		}
		if n := d.count("problem"); n > 0 {
			return errors.Join(err, fmt.Errorf("problems: %d", n))
		}
		return err
	})
	cmd.Long = `doctor looks at the entry in master.cf, the configuration, the versions, the socket,
limits and rates, and says of each whether it is ok, worth a note, or a problem, and
what to do. It changes nothing. Some of it takes root. With a problem, it fails.`
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

// A doctor examines one mail system.
type doctor struct {
	*postfix.System
	site      *site
	entry     postfix.Entry
	status    control.Status
	statusErr error // why there is none
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
	d := &doctor{System: system, site: c}
	if d.running, err = d.Running(); err != nil && os.Geteuid() == 0 {
		return nil, err
	}
	if d.running || err != nil {
		c.patience = promptly
		d.status, d.statusErr = c.status()
		d.running = d.running || d.answered() || d.stock()
	} else {
		d.statusErr = errors.New("the mail system is not running")
	}
	for _, check := range []func(){
		d.checkEntry, d.checkValues, d.checkNames, d.checkAgents, d.checkVersions, d.checkSocket, d.checkAnswer,
		d.checkConfinement, d.checkLimits, d.checkRates, d.checkLog,
	} {
		check()
	}
	return d, nil
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

func (d *doctor) print(w io.Writer) error {
	for _, f := range d.findings {
		if _, err := fmt.Fprintf(w, "%-8s %-13s %s\n", f.Level, f.About, f.Text); err != nil {
			return err
		}
		if f.Do != "" {
			fmt.Fprintf(w, "%22s → %s\n", "", f.Do)
		}
	}
	return nil
}

// enabled tells whether the entry is this server's.
func (d *doctor) enabled() bool { return postfix.IsOurs(d.entry.Command) }

// answered tells whether this server has said how it does.
func (d *doctor) answered() bool { return d.statusErr == nil }

// stock tells whether it is the stock server that answers.
func (d *doctor) stock() bool { return errors.Is(d.statusErr, client.ErrStock) }
