// SPDX-License-Identifier: EPL-2.0

package mailconf

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// functions are the functions that an expression may call, as of Postfix 3.11.
var functions = map[string]func(string) (string, error){
	"domain_to_ascii": domainToASCII,
	"domain_to_utf8":  domainToUTF8,
}

// call applies a function to the text in braces behind its name.
func (c *Config) call(name, argument string, depth int) (string, error) {
	text, rest, err := cutOperand(argument)
	switch function := functions[name]; {
	case function == nil:
		return "", fmt.Errorf("unknown function: %.100q", name)
	case err != nil:
		return "", err
	case rest != "":
		return "", fmt.Errorf("unexpected input at: %.100q", rest)
	default:
		if text, err = c.expand(text, depth+1); err != nil {
			return "", err
		}
		value, err := function(strings.Trim(text, space))
		if err != nil {
			return "", fmt.Errorf("bad domain argument in: %s{%.100q}: %w", name, text, err)
		}
		return value, nil
	}
}

// profile translates domain names as Postfix does: without the transitional rules of
// IDNA 2003, and with few checks, because isHostname checks the result.
var profile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false),
	idna.CheckHyphens(false), idna.CheckJoiners(false))

var errNotHostname = errors.New("not a host name")

// domainToASCII translates a name to ASCII. It does not change a name in ASCII.
func domainToASCII(name string) (string, error) {
	if name == "" {
		return "", errNotHostname
	}
	if isASCII(name) {
		return name, nil
	}
	ascii, err := profile.ToASCII(name)
	if err != nil {
		return "", err
	}
	utf8, err := profile.ToUnicode(name)
	if err == nil && (!isHostname(ascii) || hasOuterHyphen(utf8)) {
		err = errNotHostname
	}
	return ascii, err
}

// domainToUTF8 translates a name to UTF-8. It does not change a name that is not in ASCII.
func domainToUTF8(name string) (string, error) {
	if name == "" || !isASCII(name) {
		return name, nil
	}
	utf8, err := profile.ToUnicode(name)
	if err == nil && !isHostname(strings.ToLower(name)) {
		err = errNotHostname
	}
	return utf8, err
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// isHostname reports whether a name in lower case is a valid host name. A label has up to 63
// letters, digits, underscores, and hyphens inside. The name must not be digits only.
func isHostname(name string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyz0123456789-_"
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, allowed) != "" {
			return false
		}
	}
	return len(name) <= 255 && !hasOuterHyphen(name) && strings.Trim(name, "0123456789.") != ""
}

// hasOuterHyphen reports whether a label of a name begins or ends with a hyphen.
func hasOuterHyphen(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if strings.Trim(label, "-") != label {
			return true
		}
	}
	return false
}
