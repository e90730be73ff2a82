// SPDX-License-Identifier: EPL-2.0

// "make mutants PKG=attr" has no survivors. Changes that make an encoder's or a decoder's loop
// endless time out, which counts as noticed.

package attr

import (
	"bytes"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// wire holds messages observed on running Postfix systems, and the lists that they
// encode.
var wire = []struct {
	name, bytes string
	list        List
}{
	{"empty", "\x00", List{}},
	{"announcement", "protocol\x00connection_cache_protocol\x00\x00",
		List{pair("protocol", "connection_cache_protocol")}},
	{"repeated names", "status\x002\x00property\x00\x00property\x00\x00\x00",
		List{pair("status", "2"), pair("property", ""), pair("property", "")}},
	{"newlines", "request\x00find_dest\x00label\x00smtp\n[127.0.0.1]:3074\n\x00\x00",
		List{pair("request", "find_dest"), pair("label", "smtp\n[127.0.0.1]:3074\n")}},
	{"table", "{\x00a\x001\x00{\x00\x00}\x00z\x00y\x00\x00",
		List{{Name: []byte("{"), Table: List{pair("a", "1"), pair("{", "")}}, pair("z", "y")}},
	{"empty table", "{\x00}\x00\x00", List{{Name: []byte("{"), Table: List{}}}},
	{"table with an empty name", "{\x00\x00v\x00}\x00\x00",
		List{{Name: []byte("{"), Table: List{pair("", "v")}}}},
	{"end without a table", "}\x00v\x00\x00", List{pair("}", "v")}},
}

func pair(name, value string) Attr {
	return Attr{Name: []byte(name), Value: []byte(value)}
}

func TestDecode_messages(t *testing.T) {
	t.Parallel()
	for _, test := range wire {
		t.Run(test.name, func(t *testing.T) {
			got, err := NewDecoder(strings.NewReader(test.bytes)).Decode()
			if err != nil || !reflect.DeepEqual(got, test.list) {
				t.Errorf("got %q, %v, want %q", got, err, test.list)
			}
		})
	}
}

// stream returns all messages one after another.
func stream() (s string) {
	for _, test := range wire {
		s += test.bytes
	}
	return s
}

func TestDecode_inPieces(t *testing.T) {
	t.Parallel()
	readers := map[string]func(io.Reader) io.Reader{
		"whole":        func(r io.Reader) io.Reader { return r },
		"byte by byte": iotest.OneByteReader,
		"halves":       iotest.HalfReader,
		"data and EOF": iotest.DataErrReader,
	}
	for name, reader := range readers {
		d := NewDecoder(reader(strings.NewReader(stream())))
		for _, test := range wire {
			got, err := d.Decode()
			if err != nil || !reflect.DeepEqual(got, test.list) {
				t.Errorf("%s: %s: got %q, %v", name, test.name, got, err)
			}
		}
		if _, err := d.Decode(); err != io.EOF {
			t.Errorf("%s: got %v at the end, want io.EOF", name, err)
		}
	}
}

func TestDecode_endWithinAList(t *testing.T) {
	t.Parallel()
	for _, test := range wire {
		for n := 1; n < len(test.bytes); n++ {
			_, err := NewDecoder(strings.NewReader(test.bytes[:n])).Decode()
			if err != io.ErrUnexpectedEOF {
				t.Errorf("%s: %d bytes: got %v, want %v", test.name, n, err, io.ErrUnexpectedEOF)
			}
		}
	}
}

func TestDecode_continuesAfterATemporaryError(t *testing.T) {
	t.Parallel()
	r := iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("a\x00b\x00\x00")))
	d := NewDecoder(r)
	if _, err := d.Decode(); !errors.Is(err, iotest.ErrTimeout) || d.Buffered() != 1 {
		t.Fatalf("got %v with %d bytes, want a time-out with 1", err, d.Buffered())
	}
	if got, err := d.Decode(); err != nil || !reflect.DeepEqual(got, List{pair("a", "b")}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDecode_longLists(t *testing.T) {
	t.Parallel()
	long := func(size int) string {
		return "a\x00" + strings.Repeat("x", size-4) + "\x00\x00"
	}
	for size, want := range map[int]error{99: nil, 100: nil, 101: ErrTooLong, 5000: ErrTooLong} {
		d := NewDecoder(strings.NewReader(long(size)))
		d.SetMaxSize(100)
		if _, err := d.Decode(); err != want {
			t.Errorf("%d bytes: got %v, want %v", size, err, want)
		}
	}
	endless := &endlessReader{}
	if _, err := NewDecoder(endless).Decode(); err != ErrTooLong {
		t.Errorf("endless: got %v, want %v", err, ErrTooLong)
	}
	if endless.n > 2*DefaultMaxSize {
		t.Errorf("endless: got %d bytes read, want at most %d", endless.n, 2*DefaultMaxSize)
	}
}

type endlessReader struct{ n int }

func (r *endlessReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	r.n += len(p)
	return len(p), nil
}

func TestDecoder_returnsToItsUsualSize(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("a\x00b\x00", 10_000) + "\x00"
	d := NewDecoder(iotest.HalfReader(strings.NewReader(big + "a\x00b\x00\x00")))
	for range 2 {
		if _, err := d.Decode(); err != nil {
			t.Fatal(err)
		}
	}
	d.Decode()
	if len(d.buf) != usualSize || cap(d.list) > usualAttrs {
		t.Errorf("got room for %d bytes and %d attributes, want %d and %d",
			len(d.buf), cap(d.list), usualSize, usualAttrs)
	}
}

func TestReadByte_betweenLists(t *testing.T) {
	t.Parallel()
	d := NewDecoder(iotest.OneByteReader(strings.NewReader("a\x00b\x00\x00\x07a\x00c\x00\x00")))
	d.Decode()
	if b, err := d.ReadByte(); b != 7 || err != nil {
		t.Errorf("got %d, %v", b, err)
	}
	if got, err := d.Decode(); err != nil || !reflect.DeepEqual(got, List{pair("a", "c")}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestExpect_reportsTheFirstDifference(t *testing.T) {
	t.Parallel()
	list := List{pair("status", "0"), pair("property", "")}
	for _, test := range []struct {
		names []string
		want  string
	}{
		{[]string{"status", "property"}, "<nil>"},
		{[]string{"status", "property", "label"}, "missing attribute label"},
		{[]string{"status"}, `unexpected attribute "property" (expecting: end of list)`},
		{[]string{"property", "status"}, `unexpected attribute "status" (expecting: property)`},
		{nil, `unexpected attribute "status" (expecting: end of list)`},
	} {
		got := "<nil>"
		if err := list.Expect(test.names...); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%q: got %s, want %s", test.names, got, test.want)
		}
	}
}

func TestEncoder_everyType(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	e := NewEncoder(&out)
	e.String("s", "a\nb")
	e.Int("i", -1)
	e.Long("l", math.MinInt64)
	e.Bool("t", true)
	e.Bool("f", false)
	e.Data("d", []byte{0, 1, 255})
	e.Table(List{pair("k", "v")})
	if err := e.End(); err != nil {
		t.Fatal(err)
	}
	want := "s\x00a\nb\x00i\x004294967295\x00l\x009223372036854775808\x00t\x001\x00f\x000\x00" +
		"d\x00AAH/\x00{\x00k\x00v\x00}\x00\x00"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	list, err := NewDecoder(&out).Decode()
	if err != nil {
		t.Fatal(err)
	}
	i, ierr := list[1].Int()
	l, lerr := list[2].Long()
	yes, terr := list[3].Bool()
	no, ferr := list[4].Bool()
	d, derr := list[5].Data()
	if i != -1 || l != math.MinInt64 || !yes || no || !bytes.Equal(d, []byte{0, 1, 255}) {
		t.Errorf("got %v %v %v %v %v", i, l, yes, no, d)
	}
	if err := errors.Join(ierr, lerr, terr, ferr, derr); err != nil {
		t.Error(err)
	}
	if a, found := list.Lookup("t"); !found || string(a.Value) != "1" {
		t.Errorf("Lookup: got %q, %v", a, found)
	}
	if _, found := list.Lookup("k"); found {
		t.Error("Lookup found a name inside a table")
	}
}

func TestAttr_malformedValues(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"", "x", "-1", "+1", " 1", "5x", "4294967296"} {
		if n, err := pair("ttl", value).Int(); err == nil {
			t.Errorf("Int(%q): got %d", value, n)
		}
	}
	if n, err := pair("n", "18446744073709551616").Long(); err == nil {
		t.Errorf("Long: got %d", n)
	}
	if b, err := pair("b", "2").Bool(); err == nil {
		t.Errorf("Bool: got %v", b)
	}
	if d, err := pair("d", "?").Data(); err == nil {
		t.Errorf("Data: got %q", d)
	}
}

func TestEncoder_refusesWhatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(*Encoder){
		"NUL in a value":     func(e *Encoder) { e.String("a", "x\x00y") },
		"NUL in a name":      func(e *Encoder) { e.Int("a\x00", 1) },
		"empty name":         func(e *Encoder) { e.String("", "x") },
		"table with its end": func(e *Encoder) { e.Table(List{pair("}", "")}) },
		"too long":           func(e *Encoder) { e.String("a", strings.Repeat("x", DefaultMaxSize)) },
	} {
		var out bytes.Buffer
		e := NewEncoder(&out)
		put(e)
		if err := e.End(); err == nil || out.Len() > 0 {
			t.Errorf("%s: got error %v and %q", name, err, out.String())
		}
		e.Bool("next", true)
		if err := e.End(); err != nil || out.String() != "next\x001\x00\x00" {
			t.Errorf("after %s: got error %v and %q", name, err, out.String())
		}
	}
}

// TestDecoder_boundsAttributes counts those of tables, too.
func TestDecoder_boundsAttributes(t *testing.T) {
	for text, want := range map[string]error{
		strings.Repeat("a\x00b\x00", 10) + "\x00":                                       nil,
		strings.Repeat("a\x00b\x00", 11) + "\x00":                                       ErrTooLong,
		openTable + "\x00" + strings.Repeat("a\x00b\x00", 11) + closeTable + "\x00\x00": ErrTooLong,
	} {
		d := NewDecoder(strings.NewReader(text))
		d.SetMaxAttrs(10)
		if _, err := d.Decode(); err != want {
			t.Errorf("%d bytes: got %v, want %v", len(text), err, want)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, test := range wire {
		f.Add([]byte(test.bytes), uint8(3))
	}
	f.Add([]byte(stream()), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		whole := NewDecoder(bytes.NewReader(data))
		pieces := NewDecoder(&pieceReader{data, int(cut)%7 + 1})
		whole.SetMaxSize(200)
		pieces.SetMaxSize(200)
		var again bytes.Buffer
		e, seen := NewEncoder(&again), 0
		for {
			list, err := whole.Decode()
			other, otherErr := pieces.Decode()
			if err != otherErr || !reflect.DeepEqual(list, other) {
				t.Fatalf("whole: %q, %v; in pieces: %q, %v", list, err, other, otherErr)
			}
			if err != nil {
				break
			}
			if e.Attrs(list); e.End() == nil { // fails for an empty name in a table
				rest := whole.Buffered() + whole.r.(*bytes.Reader).Len()
				if !bytes.HasSuffix(data[:len(data)-rest], again.Bytes()[seen:]) {
					t.Fatalf("%q became %q", list, again.Bytes()[seen:])
				}
				seen = again.Len()
			}
		}
	})
}

type pieceReader struct {
	data []byte
	size int
}

func (r *pieceReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data[:min(r.size, len(r.data))])
	r.data = r.data[n:]
	return n, nil
}

func BenchmarkDecode(b *testing.B) {
	msg := []byte("request\x00find_dest\x00label\x00smtp\n[127.0.0.1]:3074\n\x00\x00")
	r := bytes.NewReader(nil)
	d := NewDecoder(r)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(msg)
		if _, err := d.Decode(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	e := NewEncoder(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		e.Int("status", 0)
		e.String("property", "destination=[127.0.0.1]:3074\nhost_name=127.0.0.1\n")
		if err := e.End(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestScanner_discard cuts a list at each byte, and finds its end nevertheless.
func TestScanner_discard(t *testing.T) {
	t.Parallel()
	const list = "name\x00{\x00{\x00a\x00{\x00}x\x00}\x00\x00}\x00}}\x00}}\x00b\x00\x00\x00"
	var whole Scanner
	size := whole.Size([]byte(list + "rest"))
	for cut := range size {
		for next := cut; next < size; next++ {
			var s Scanner
			short := []byte(list[:cut])
			if n := s.Size(short); n != 0 {
				t.Fatalf("got the end at %d", n)
			}
			short = append(s.Discard(short), list[cut:next]...)
			if n := s.Size(short); n != 0 {
				t.Fatalf("got the end at %d of %q", n, short)
			}
			short = append(s.Discard(short), list[next:size]...)
			if n := s.Size(append(short, "rest"...)); n != len(short) {
				t.Errorf("cut at %d and %d: got size %d of %q, want %d", cut, next, n, short, len(short))
			}
		}
	}
}
