// SPDX-License-Identifier: EPL-2.0

package mailconf

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// carrier is the parameter whose value postconf(1) is asked to expand. Every version of
// Postfix has it, accepts any text as its value, and no text is likely to refer to it.
const carrier = "lmtp_lhlo_name"

// postconfTimeout is how long postconf may take.
const postconfTimeout = 5 * time.Second

// AskPostconf allows this package to ask postconf(1) for a value that it cannot expand:
// a later version of Postfix may have other expressions. It calls log for each value
// that it gets from there.
func (c *Config) AskPostconf(log func(format string, args ...any)) { c.log = log }

// ask returns the value of a parameter as postconf(1) expands it. cause is the error
// of expand.
func (c *Config) ask(name string, cause error) (string, error) {
	if c.log == nil {
		return "", cause
	}
	value, err := c.postconf(c.settings[name].value)
	if err != nil {
		return "", fmt.Errorf("%w; nor does postconf know: %v", cause, err)
	}
	c.log("%v; the value %q is what postconf says", cause, value)
	s := c.settings[name]
	s.value = strings.ReplaceAll(value, "$", "$$") // it is not expanded again
	c.settings[name] = s
	return value, nil
}

func (c *Config) postconf(text string) (string, error) {
	directory, err := c.value("command_directory", 0)
	if err != nil {
		directory = lookup("command_directory").Default
	}
	args := []string{"-c", c.settings["config_directory"].value}
	for name, s := range c.settings {
		if s.source == CommandLine {
			args = append(args, "-o", name+"="+s.value)
		}
	}
	args = append(args, "-o", carrier+"="+text, "-xh", carrier)
	ctx, cancel := context.WithTimeout(context.Background(), postconfTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(directory, "postconf"), args...)
	cmd.WaitDelay = time.Second // for processes that it may have started
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		lines := strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
		err = fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	return strings.TrimSuffix(string(out), "\n"), err
}
