// SPDX-License-Identifier: EPL-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"scache/internal/control"
	"scache/internal/postfix"
)

func newReportCommand(c *site) *cobra.Command {
	output, labels := "", false
	cmd := withoutArgs("report", "Collect what a fault report needs", func(cmd *cobra.Command) error {
		if c.socket != "" {
			return errSocket
		}
		if _, err := os.Lstat(output); output != "" && err == nil {
			return hintError(fmt.Errorf("%s: %w", output, os.ErrExist), "name a file that does not exist")
		}
		text := c.report()
		if !labels {
			text = newRedactor().redact(text)
		}
		out := cmd.OutOrStdout()
		if _, err := io.WriteString(out, text); err != nil || output == "" {
			return err
		}
		if err := writeNew(output, text); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "written to %s\n", output)
		return err
	})
	cmd.Long = `report prints versions, doctor's findings, the configuration, the status, the busiest
destinations, the entry in master.cf, the limits of master(8) and the last log lines of
the server, as a fault report needs them. Names and addresses are replaced, each always
by the same word, unless --labels is given. Please read it before you send it.

With --output, it is written to a new file, too, which only you can read.`
	cmd.Flags().StringVar(&output, "output", "", "also write it to this new `file`")
	cmd.Flags().BoolVar(&labels, "labels", false, "leave labels, names and addresses as they are")
	cmd.MarkFlagFilename("output", "txt")
	return cmd
}

// writeNew writes a file that must not exist.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	return errors.Join(err, f.Close())
}

// report returns the report. If a section cannot be written, it has the error.
func (c *site) report() string {
	var b strings.Builder
	section := func(title string, write func(w io.Writer) error) {
		fmt.Fprintf(&b, "== %s ==\n", title)
		if err := write(&b); err != nil {
			fmt.Fprintf(&b, "error: %v\n", err)
		}
		b.WriteString("\n")
	}
	system, err := c.open()
	if err != nil {
		section("mail system", func(io.Writer) error { return err })
		system = &postfix.System{}
	}
	section("versions", func(w io.Writer) error { return writeVersions(w, system) })
	if err != nil {
		return b.String()
	}
	section("doctor", c.writeFindings)
	section("config", func(w io.Writer) error { return writeConfig(w, system) })
	section("status", c.writeStatus)
	for _, level := range []string{control.LevelDestination, control.LevelEndpoint} {
		section("hits by "+level, func(w io.Writer) error { return c.writeHits(w, level) })
	}
	section("entry in master.cf", func(w io.Writer) error { return writeEntry(w, system) })
	section("limits of master(8)", func(w io.Writer) error { return writeLimits(w, system) })
	section("log", func(w io.Writer) error { return writeLog(w, system) })
	return b.String()
}

func (c *site) writeFindings(w io.Writer) error {
	d, err := c.examine()
	if err != nil {
		return err
	}
	return printFindings(w, d.findings)
}

func writeConfig(w io.Writer, system *postfix.System) error {
	conf, err := system.ServerConfig()
	if err != nil {
		return err
	}
	settings, problems := readSettings(conf)
	return errors.Join(printSettings(w, settings), problems)
}

func (c *site) writeStatus(w io.Writer) error {
	s, err := c.status()
	if err != nil {
		return err
	}
	path, err := c.path()
	return errors.Join(err, fullStatus{Status: s}.print(w, path))
}

// writeHits writes the labels of a level that were looked up most often.
func (c *site) writeHits(w io.Writer, level string) error {
	all, _, err := c.hits(level)
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b control.LabelCounts) int {
		return cmp.Compare(lookups(b), lookups(a))
	})
	shown := all[:min(len(all), 20)]
	return hitsTable(level, shown, naming{}).print(w, len(all)-len(shown))
}

func writeVersions(w io.Writer, system *postfix.System) error {
	fmt.Fprintf(w, "scachectl %s, %s, %s/%s\n", version, runtime.Version(), runtime.GOOS,
		runtime.GOARCH)
	for _, path := range []string{"/etc/os-release", "/proc/sys/kernel/osrelease"} {
		text, _ := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			name, value, isSetting := strings.Cut(line, "=")
			if !isSetting || name == "PRETTY_NAME" {
				fmt.Fprintln(w, control.Escape(strings.Trim(cmp.Or(value, name), "\"\n")))
			}
		}
	}
	if system.Config == nil {
		return nil
	}
	v, err := system.Version()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Postfix %s\n", control.Escape(fmt.Sprint(v)))
	path, installed, err := system.Installed()
	if errors.Is(err, postfix.ErrNotEnabled) {
		_, err = fmt.Fprintln(w, "scache is not enabled")
		return err
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "scache %s at %s\n", control.Escape(installed), path)
	return err
}

func writeEntry(w io.Writer, system *postfix.System) error {
	e, err := system.Entry()
	if err != nil {
		return err
	}
	words := []string{
		e.Name, e.Type, e.Private, e.Unprivileged, e.Chroot, e.Wakeup, e.ProcessLimit, e.Command,
	}
	words = append(words, e.Arguments...)
	_, err = fmt.Fprintln(w, control.Escape(strings.Join(words, " ")))
	return err
}

func writeLimits(w io.Writer, system *postfix.System) error {
	pid, running := system.MasterPID()
	if !running {
		_, err := fmt.Fprintln(w, "it is not running, or only root may look")
		return err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// Bounds of the part of the log that is in a report.
const (
	reportLines = 100
	reportLine  = 1000 // bytes of one line
)

// writeLog writes the last lines of the server, escaped, and where they are from.
func writeLog(w io.Writer, system *postfix.System) error {
	name, lines, err := system.Log(true, system.ServerTags()...)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "from %s:\n", name)
	if len(lines) == 0 {
		fmt.Fprintln(w, "no line of the server")
	}
	for _, l := range lines[max(0, len(lines)-reportLines):] {
		line := control.Escape(l.Line[:min(len(l.Line), reportLine)])
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
