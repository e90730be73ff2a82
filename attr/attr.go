// SPDX-License-Identifier: EPL-2.0

// Package attr speaks the Postfix attribute protocol ("attr0"), the language
// of the UNIX-domain sockets between Postfix daemons.
//
// A message is a list of attributes. An attribute is a name and a value, and
// both travel as bytes that end in a NUL; the empty name ends the list:
//
//	name NUL value NUL name NUL value NUL … NUL
//
// The type of a value is not on the wire: the two ends agree on it, as they agree
// on the names, their number and their order. Postfix reads strictly: a name that
// is missing, unexpected or in another place is an error. [List.Expect] checks a
// list in that way.
//
// A [Decoder] turns a stream of bytes, in pieces of any size, into lists; an
// [Encoder] does the reverse, with one write for each list. Both reuse their
// memory, and both limit the size of a list.
//
// From Postfix 3.6 on, most daemons speak first and announce their protocol,
// as a list with the attribute "protocol". The manual pages of the daemons,
// such as verify(8) or scache(8), name requests and attributes.
package attr

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
)

// DefaultMaxSize limits the size of a list, in bytes on the wire, until SetMaxSize
// is called.
const DefaultMaxSize = 64 << 10

// ErrTooLong is the error for a list above the limit of size.
var ErrTooLong = errors.New("attribute list is too long")

// The names that enclose a table. Neither has a value.
const (
	openTable  = "{"
	closeTable = "}"
)

// An Attr is one attribute of a list. For a table, Name is "{", Value is nil
// and Table holds its pairs.
type Attr struct {
	Name, Value []byte
	Table       List
}

// A List is one message: attributes in the order of the wire. Names may
// repeat.
type List []Attr

// Lookup returns the first attribute with this name.
func (l List) Lookup(name string) (a Attr, found bool) {
	for _, a := range l {
		if string(a.Name) == name {
			return a, true
		}
	}
	return Attr{}, false
}

// Expect checks that the list has exactly these names in this order. The error
// names the first difference.
func (l List) Expect(names ...string) error {
	for i, want := range names {
		if i == len(l) {
			return fmt.Errorf("missing attribute %s", want)
		}
		if string(l[i].Name) != want {
			return fmt.Errorf("unexpected attribute %.100q (expecting: %s)", l[i].Name, want)
		}
	}
	if len(l) > len(names) {
		return fmt.Errorf("unexpected attribute %.100q (expecting: end of list)", l[len(names)].Name)
	}
	return nil
}

// Int returns the value as a C int. On the wire it is an unsigned decimal number:
// -1 is sent as 4294967295.
func (a Attr) Int() (int32, error) {
	n, err := a.decimal(32)
	return int32(n), err
}

// Long returns the value as a 64-bit number. Negative numbers are sent as in Int.
func (a Attr) Long() (int64, error) {
	n, err := a.decimal(64)
	return int64(n), err
}

func (a Attr) decimal(bits int) (uint64, error) {
	n, err := strconv.ParseUint(string(a.Value), 10, bits)
	if err != nil {
		return 0, fmt.Errorf("malformed numerical value of attribute %s: %.100q", a.Name, a.Value)
	}
	return n, nil
}

// Bool returns the value as a boolean, 0 or 1 on the wire.
func (a Attr) Bool() (bool, error) {
	switch string(a.Value) {
	case "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, fmt.Errorf("malformed boolean value of attribute %s: %.100q", a.Name, a.Value)
}

// Data returns the value as bytes, which are in base64 on the wire.
func (a Attr) Data() ([]byte, error) {
	data, err := base64.StdEncoding.AppendDecode(nil, a.Value)
	if err != nil {
		return nil, fmt.Errorf("malformed base64 value of attribute %s: %w", a.Name, err)
	}
	return data, nil
}
