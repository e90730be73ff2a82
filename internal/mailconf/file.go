// SPDX-License-Identifier: EPL-2.0

package mailconf

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// space is white space as main.cf knows it.
const space = " \t\n\v\f\r"

// A line is a logical line: a line of the file and those that continue it.
type line struct {
	text   string
	number int // of the first line
}

// readLines returns the logical lines of main.cf. A line that begins with white
// space continues the one before. Empty lines and comments are ignored, and may
// stand between a line and its continuation.
func readLines(r io.Reader) ([]line, error) {
	var lines []line
	in := bufio.NewReader(r)
	for number := 1; ; number++ {
		text, err := in.ReadString('\n')
		if err != nil && err != io.EOF {
			return nil, err
		}
		text = strings.TrimSuffix(text, "\n")
		bare := strings.TrimLeft(text, space)
		switch {
		case bare == "" || bare[0] == '#':
		case len(bare) < len(text) && len(lines) > 0:
			lines[len(lines)-1].text += text
		default:
			lines = append(lines, line{text, number})
		}
		if err == io.EOF {
			return lines, nil
		}
	}
}

// parse adds the settings of a file. The last one of a name counts.
func (c *Config) parse(r io.Reader, path string) error {
	lines, err := readLines(r)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	given := map[string]string{}
	for _, l := range lines {
		if text, _, found := strings.Cut(l.text, "\x00"); found {
			c.warnings = append(c.warnings, fmt.Sprintf(
				"%s, line %d: text after a null byte is ignored: %.100q", path, l.number, l.text))
			l.text = text
		}
		if strings.TrimLeft(l.text, space) != l.text {
			c.warnings = append(c.warnings, fmt.Sprintf(
				"%s, line %d: logical line must not start with whitespace, ignored: %.100q",
				path, l.number, l.text))
			continue
		}
		name, value, err := splitSetting(l.text)
		if err != nil {
			return fmt.Errorf("%s, line %d: %w", path, l.number, err)
		}
		if earlier, found := given[name]; found && earlier != value {
			c.warnings = append(c.warnings, fmt.Sprintf(
				"%s, line %d: overriding earlier entry: %s=%s", path, l.number, name, earlier))
		}
		given[name] = value
		c.set(name, value, fmt.Sprintf("%s, line %d", path, l.number))
	}
	return nil
}

// splitSetting splits "name = value".
func splitSetting(text string) (name, value string, err error) {
	name, value, found := strings.Cut(text, "=")
	name, value = strings.Trim(name, space), strings.Trim(value, space)
	switch {
	case !found || strings.ContainsAny(name, space):
		return "", "", fmt.Errorf("missing '=' after attribute name: %.100q", text)
	case name == "":
		return "", "", fmt.Errorf("missing attribute name: %.100q", text)
	}
	return name, value, nil
}
