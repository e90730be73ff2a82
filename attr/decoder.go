// SPDX-License-Identifier: EPL-2.0

package attr

import (
	"bytes"
	"io"
)

// The memory of a decoder or an encoder at the beginning, and again after a long list:
// enough for the requests of most Postfix services, and little for a client that is
// idle.
const (
	usualSize  = 1 << 10
	usualAttrs = 8
)

// A Decoder reads lists from a stream. It may read more than one list at a time from
// the stream, and keeps the rest for the next calls.
type Decoder struct {
	r          io.Reader
	buf        []byte
	start, end int // of what was read and not yet returned
	size       int // of the last list
	max        int
	maxAttrs   int // in a list, or 0
	scan       Scanner
	list       List    // what Decode returns, for reuse
	one        [1]byte // what ReadByte reads
}

// NewDecoder returns a decoder that reads from r.
func NewDecoder(r io.Reader) *Decoder {
	return &Decoder{r: r, max: DefaultMaxSize}
}

// SetMaxSize limits the size of the lists from now on, in bytes on the wire.
func (d *Decoder) SetMaxSize(n int) { d.max = n }

// SetMaxAttrs bounds the number of attributes in a list from now on. A list of many short ones
// takes far more memory than bytes on the wire.
func (d *Decoder) SetMaxAttrs(n int) { d.maxAttrs = n }

// Buffered returns the number of bytes that were read from the stream and not
// yet returned by Decode or ReadByte. After an error of Decode it is zero if the
// stream stopped between two lists.
func (d *Decoder) Buffered() int { return d.end - d.start }

// Decode reads the next list. The list and all it refers to are valid until
// the next call.
//
// The error is io.EOF if the stream ended between two lists, io.ErrUnexpectedEOF
// if it ended within one, ErrTooLong, or an error of the reader. After a temporary
// error of the reader, such as a deadline, Decode may be called again and continues
// where it stopped.
func (d *Decoder) Decode() (List, error) {
	if cap(d.list) != usualAttrs {
		d.list = make(List, 0, usualAttrs)
	}
	size := d.scan.Size(d.buf[d.start:d.end])
	for ; size == 0; size = d.scan.Size(d.buf[d.start:d.end]) {
		if d.Buffered() >= d.max {
			return nil, ErrTooLong
		}
		if err := d.fill(); err != nil {
			if err == io.EOF && d.Buffered() > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	if size > d.max {
		return nil, ErrTooLong
	}
	msg := d.buf[d.start : d.start+size]
	d.start, d.size = d.start+size, size
	if d.maxAttrs > 0 && bytes.Count(msg, nul) > 2*d.maxAttrs+1 { // a name and a value each
		return nil, ErrTooLong
	}
	d.list = Parse(d.list[:0], msg)
	return d.list, nil
}

// ReadByte reads one byte outside any list, such as the one that accompanies a
// file descriptor. The list that Decode returned last stays valid.
func (d *Decoder) ReadByte() (byte, error) {
	if d.Buffered() == 0 {
		_, err := read(d.r, d.one[:])
		return d.one[0], err
	}
	b := d.buf[d.start]
	d.start++
	return b, nil
}

func (d *Decoder) fill() error {
	d.makeRoom()
	n, err := read(d.r, d.buf[d.end:])
	d.end += n
	return err
}

// read reads once: at least one byte, or an error.
func read(r io.Reader, p []byte) (int, error) {
	n, err := r.Read(p)
	switch {
	case n > 0:
		return n, nil
	case err == nil:
		return 0, io.ErrNoProgress
	}
	return 0, err
}

func (d *Decoder) makeRoom() {
	if d.start == d.end {
		d.start, d.end = 0, 0
		if len(d.buf) < usualSize || len(d.buf) > usualSize && d.size <= usualSize {
			d.buf = make([]byte, usualSize)
		}
	}
	if d.end < len(d.buf) {
		return
	}
	if d.start > 0 {
		d.end = copy(d.buf, d.buf[d.start:d.end])
		d.start = 0
		return
	}
	larger := make([]byte, 2*len(d.buf))
	copy(larger, d.buf[:d.end])
	d.buf = larger
}

// A Scanner finds the end of a list in bytes that arrive in pieces, without looking
// at a byte twice. The zero Scanner is ready for use.
//
// It is for a program that keeps the bytes itself, such as one with an event loop.
// Other programs use a [Decoder].
type Scanner struct {
	pos     int  // the bytes of the list seen before the token
	partial int  // the bytes of the token at pos seen so far
	value   bool // the token is a value
	table   bool // the token is inside a table
}

// Size returns the size of the list at the beginning of msg; the scanner is then ready
// for the next list. If msg does not contain the end of the list, Size returns 0 and
// must be called again with the same bytes and more.
func (s *Scanner) Size(msg []byte) int {
	for {
		n := bytes.IndexByte(msg[s.pos+s.partial:], 0)
		if n < 0 {
			s.partial = len(msg) - s.pos
			return 0
		}
		token := msg[s.pos : s.pos+s.partial+n]
		s.pos += len(token) + 1
		s.partial = 0
		switch {
		case s.value:
			s.value = false
		case len(token) == 0 && !s.table:
			size := s.pos
			*s = Scanner{}
			return size
		case !s.table && string(token) == openTable:
			s.table = true
		case s.table && string(token) == closeTable:
			s.table = false
		default:
			s.value = true
		}
	}
}

// Discard is for a list that is too long to be kept, after Size has returned 0 for msg. It
// returns a short list, without its end, that ends with the same bytes as msg does: Size is
// to be called with that next.
func (s *Scanner) Discard(msg []byte) (short []byte) {
	const enough = 2 // to tell a token from an empty one and from a brace
	if s.table {
		short = append(short, openTable+"\x00"...)
	}
	if s.value {
		short = append(short, "name\x00"...)
	}
	short = append(short, msg[s.pos:s.pos+min(s.partial, enough)]...)
	*s = Scanner{}
	return short
}

// Parse appends the attributes of a complete message, whose size a [Scanner] has found,
// to a list that may be empty. They refer to msg.
func Parse(list List, msg []byte) List {
	list, _ = appendAttrs(list, msg, "")
	return list
}

// appendAttrs appends the attributes of a complete message up to the name that ends
// them, and returns the bytes behind it.
func appendAttrs(list List, msg []byte, last string) (List, []byte) {
	for {
		var name, value []byte
		var more bool
		name, msg, more = bytes.Cut(msg, nul)
		switch {
		case string(name) == last, !more:
			return list, msg
		case last == "" && string(name) == openTable:
			a := Attr{Name: name}
			a.Table, msg = appendAttrs(List{}, msg, closeTable)
			list = append(list, a)
		default:
			value, msg, _ = bytes.Cut(msg, nul)
			list = append(list, Attr{Name: name, Value: value})
		}
	}
}

var nul = []byte{0}
