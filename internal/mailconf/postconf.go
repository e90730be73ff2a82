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

// carrier is a parameter that every Postfix knows, takes any text for, and that no
// text of ours is likely to refer to.
const carrier = "lmtp_lhlo_name"

// postconfLimit is how long postconf may take.
const postconfLimit = 5 * time.Second

// AskPostconf has postconf(1) asked for the value of a parameter that this package
// does not understand: Postfix of a later version may know what it means. Each
// value that comes from there is told to log.
func (c *Config) AskPostconf(log func(format string, args ...any)) { c.log = log }

// ask returns what Postfix makes of a parameter that cause keeps from being
// expanded here.
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
	s.value = strings.ReplaceAll(value, "$", "$$") // it is final
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
	ctx, cancel := context.WithTimeout(context.Background(), postconfLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(directory, "postconf"), args...)
	cmd.WaitDelay = time.Second // for what it may have started
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		lines := strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
		err = fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	return strings.TrimSuffix(string(out), "\n"), err
}
