// SPDX-License-Identifier: EPL-2.0

package attr

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// An Encoder writes lists to a stream. Its methods append attributes to the
// list in progress, and End completes and writes it:
//
//	enc.String("request", "find_dest")
//	enc.String("label", destination)
//	err := enc.End()
//
// If a name or a value cannot be encoded, End returns the first such error and
// writes nothing of the list.
type Encoder struct {
	w   io.Writer
	buf []byte
	max int
	err error
}

// NewEncoder returns an encoder that writes to w.
func NewEncoder(w io.Writer) *Encoder {
	return &Encoder{w: w, max: DefaultMaxSize}
}

// SetMaxSize limits the size of the lists from now on, in bytes on the wire.
func (e *Encoder) SetMaxSize(n int) { e.max = n }

// String appends an attribute with this value, which must not contain NUL.
func (e *Encoder) String(name, value string) {
	e.name(name)
	if i := strings.IndexByte(value, 0); i >= 0 {
		e.fail(fmt.Errorf("attribute %s: NUL in the value, at byte %d", name, i))
	}
	e.buf = append(e.buf, value...)
	e.buf = append(e.buf, 0)
}

// Int appends a C int. On the wire it is an unsigned decimal number.
func (e *Encoder) Int(name string, value int32) {
	e.decimal(name, uint64(uint32(value)))
}

// Long appends a 64-bit number. On the wire it is an unsigned decimal number.
func (e *Encoder) Long(name string, value int64) {
	e.decimal(name, uint64(value))
}

func (e *Encoder) decimal(name string, value uint64) {
	e.name(name)
	e.buf = strconv.AppendUint(e.buf, value, 10)
	e.buf = append(e.buf, 0)
}

// Bool appends a boolean, as 0 or 1.
func (e *Encoder) Bool(name string, value bool) {
	if value {
		e.decimal(name, 1)
	} else {
		e.decimal(name, 0)
	}
}

// Data appends bytes of any kind. On the wire they are in base64.
func (e *Encoder) Data(name string, value []byte) {
	e.name(name)
	e.buf = base64.StdEncoding.AppendEncode(e.buf, value)
	e.buf = append(e.buf, 0)
}

// Table appends a table with the names and values of these attributes.
func (e *Encoder) Table(pairs List) {
	e.buf = append(e.buf, openTable+"\x00"...)
	for _, a := range pairs {
		if string(a.Name) == closeTable {
			e.fail(fmt.Errorf("a table cannot have the name %q", a.Name))
		}
		e.String(string(a.Name), string(a.Value))
	}
	e.buf = append(e.buf, closeTable+"\x00"...)
}

// Attrs appends attributes as a decoder returns them.
func (e *Encoder) Attrs(list List) {
	for _, a := range list {
		if a.Table != nil {
			e.Table(a.Table)
		} else {
			e.String(string(a.Name), string(a.Value))
		}
	}
}

// End completes the list and writes it with one call of Write.
func (e *Encoder) End() error {
	msg, err := append(e.buf, 0), e.err
	e.buf, e.err = msg[:0], nil
	if cap(e.buf) > usualSize && len(msg) <= usualSize {
		e.buf = nil // lists have their usual size again
	}
	if err == nil && len(msg) > e.max {
		err = ErrTooLong
	}
	if err != nil {
		return err
	}
	_, err = e.w.Write(msg)
	return err
}

func (e *Encoder) name(name string) {
	switch {
	case name == "":
		e.fail(errors.New("an attribute has no name"))
	case strings.IndexByte(name, 0) >= 0:
		e.fail(fmt.Errorf("NUL in the attribute name %q", name))
	}
	e.buf = append(e.buf, name...)
	e.buf = append(e.buf, 0)
}

func (e *Encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}
