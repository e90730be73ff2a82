// SPDX-License-Identifier: EPL-2.0

package mailconf

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// maxDepth bounds the nesting of expansions: a value that refers to itself
// would never end.
const maxDepth = 100

// expand replaces the references in a text: $name, $(…), ${…} and $$.
func (c *Config) expand(text string, depth int) (string, error) {
	if depth > maxDepth {
		return "", fmt.Errorf("unreasonable nesting of $name expressions: %.100q", text)
	}
	var out strings.Builder
	for {
		plain, rest, found := strings.Cut(text, "$")
		out.WriteString(plain)
		if !found {
			return out.String(), nil
		}
		var value string
		var err error
		value, text, err = c.reference(rest, depth)
		if err != nil {
			return "", err
		}
		out.WriteString(value)
	}
}

// reference evaluates the reference after a dollar sign, and returns the text behind it.
func (c *Config) reference(text string, depth int) (value, rest string, err error) {
	switch {
	case strings.HasPrefix(text, "$"):
		return "$", text[1:], nil
	case strings.HasPrefix(text, "("), strings.HasPrefix(text, "{"):
		inner, rest, found := cutBalanced(text)
		if !found {
			return "", "", fmt.Errorf("truncated macro reference: %.100q", "$"+text)
		}
		value, err = c.expression(inner, depth)
		return value, rest, err
	}
	name, rest := cutName(text)
	if name == "" {
		return "", "", fmt.Errorf("empty macro name: %.100q", "$"+text)
	}
	value, err = c.value(name, depth)
	return value, rest, err
}

// expression evaluates the text between the brackets of a reference. It is a function
// with its argument, or a name or a comparison. One or two texts to choose from may
// follow. The choice depends on the value before expansion: a value that expands to
// nothing is not empty.
func (c *Config) expression(text string, depth int) (string, error) {
	if text == "" {
		return "", errors.New("empty macro name: \"${}\"")
	}
	text = strings.TrimLeft(text, space)
	var value, choice string
	var err error
	if strings.HasPrefix(text, "{") {
		value, choice, err = c.comparison(text, depth)
	} else {
		var name string
		name, choice = cutName(text)
		argument := strings.TrimLeft(choice, space)
		if name != "" && strings.HasPrefix(argument, "{") {
			return c.call(name, argument, depth)
		}
		value = c.settings[name].value
	}
	choice = strings.TrimLeft(choice, space)
	if err != nil {
		return "", err
	}
	if choice == "" {
		return c.expand(value, depth+1)
	}
	whenSet, whenEmpty, err := choices(choice)
	if err != nil {
		return "", err
	}
	if value != "" {
		return c.expand(whenSet, depth+1)
	}
	return c.expand(whenEmpty, depth+1)
}

// choices parses what follows a name or a comparison: ?text, :text,
// ?{text}:text. A text is in braces or lasts until the end.
func choices(text string) (whenSet, whenEmpty string, err error) {
	operator := text[0]
	first, rest, err := choiceText(text[1:])
	switch {
	case operator != '?' && operator != ':':
		return "", "", fmt.Errorf("\"?\" or \":\" expected at: %.100q", text)
	case err != nil:
		return "", "", err
	case operator == ':':
		whenEmpty = first
	case rest == "":
		return first, "", nil
	case rest[0] != ':':
		return "", "", fmt.Errorf("\":\" expected at: %.100q", rest)
	default:
		whenSet = first
		if whenEmpty, rest, err = choiceText(rest[1:]); err != nil {
			return "", "", err
		}
	}
	if rest != "" {
		return "", "", fmt.Errorf("unexpected input at: %.100q", rest)
	}
	return whenSet, whenEmpty, nil
}

func choiceText(s string) (text, rest string, err error) {
	if !strings.HasPrefix(strings.TrimLeft(s, space), "{") {
		return s, "", nil
	}
	return cutOperand(s)
}

// cutOperand cuts {text} and the white space around it off a string.
func cutOperand(s string) (text, rest string, err error) {
	s = strings.TrimLeft(s, space)
	if strings.HasPrefix(s, "{") {
		if text, rest, found := cutBalanced(s); found {
			return text, strings.TrimLeft(rest, space), nil
		}
	}
	return "", "", fmt.Errorf("\"{expression}\" expected at: %.100q", s)
}

// comparison evaluates {a} operator {b}: "true" or nothing.
func (c *Config) comparison(text string, depth int) (value, rest string, err error) {
	left, rest, err := cutOperand(text)
	if err != nil {
		return "", "", err
	}
	op, rest, err := cutOperator(rest)
	if err != nil {
		return "", "", err
	}
	right, rest, err := cutOperand(rest)
	if err != nil {
		return "", "", err
	}
	if left, err = c.expand(left, depth+1); err != nil {
		return "", "", err
	}
	if right, err = c.expand(right, depth+1); err != nil {
		return "", "", err
	}
	compare := compareValues
	if op.level {
		compare = compareLevels
	}
	order, err := compare(left, right)
	if err == nil && op.holds(order) {
		value = "true"
	}
	return value, rest, err
}

// An operator compares two values; one that ends in "level" compares two
// Postfix compatibility levels.
type operator struct {
	text  string
	holds func(order int) bool
	level bool
}

// operators are the comparison operators. A longer one comes before its prefix.
var operators = []operator{
	{text: "==", holds: func(order int) bool { return order == 0 }},
	{text: "!=", holds: func(order int) bool { return order != 0 }},
	{text: "<=", holds: func(order int) bool { return order <= 0 }},
	{text: ">=", holds: func(order int) bool { return order >= 0 }},
	{text: "<", holds: func(order int) bool { return order < 0 }},
	{text: ">", holds: func(order int) bool { return order > 0 }},
}

func cutOperator(s string) (op operator, rest string, err error) {
	for _, op := range operators {
		if rest, found := strings.CutPrefix(s, op.text); found {
			rest, op.level = strings.CutPrefix(rest, "level")
			return op, rest, nil
		}
	}
	return operator{}, "", fmt.Errorf("comparison operator expected at: %.100q", s)
}

// compareValues compares numbers if both are all digits, and text otherwise.
func compareValues(a, b string) (int, error) {
	if !isDigits(a) || !isDigits(b) {
		return strings.Compare(a, b), nil
	}
	x, err := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	return cmp.Compare(x, y), errors.Join(err, errY)
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// compareLevels compares compatibility levels, such as 2, 3.6 and 3.10.1.
func compareLevels(a, b string) (int, error) {
	x, err := parseLevel(a)
	y, errY := parseLevel(b)
	for i := range x {
		if order := cmp.Compare(x[i], y[i]); order != 0 {
			return order, errors.Join(err, errY)
		}
	}
	return 0, errors.Join(err, errY)
}

func parseLevel(s string) (level [3]int, err error) {
	parts := strings.Split(strings.TrimLeft(s, space), ".")
	for i, part := range parts {
		if !isDigits(part) || i == len(level) {
			return level, fmt.Errorf("malformed compatibility level: %.100q", s)
		}
		if level[i], err = strconv.Atoi(part); err != nil {
			return level, err
		}
	}
	return level, nil
}

// cutName cuts a parameter name off a string.
func cutName(s string) (name, rest string) {
	rest = strings.TrimLeft(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
	return s[:len(s)-len(rest)], rest
}

// cutBalanced cuts a bracketed text off a string that begins with the opening
// bracket, and strips the brackets. Only brackets of the same kind count.
func cutBalanced(s string) (inner, rest string, found bool) {
	opening, closing := byte('{'), byte('}')
	if s[0] == '(' {
		opening, closing = '(', ')'
	}
	for i, depth := 0, 0; i < len(s); i++ {
		switch s[i] {
		case opening:
			depth++
		case closing:
			if depth--; depth == 0 {
				return s[1:i], s[i+1:], true
			}
		}
	}
	return "", "", false
}
