// SPDX-License-Identifier: EPL-2.0

package control

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"scache/attr"
	"scache/internal/histogram"
)

// fill sets every field of a struct to a value that is not zero.
func fill(t *testing.T, x any) {
	t.Helper()
	i := 0
	fields(x, func(name string, field any) error {
		i++
		switch field := field.(type) {
		case *string:
			*field = "smtp\nexample.com\n"
		case *int64:
			*field = math.MaxInt32 + int64(i)
		case *bool:
			*field = true
		case *Seconds:
			*field = Seconds(i) * Seconds(time.Hour)
		case *histogram.Values:
			field.Counts[3], field.Sum = 7, time.Second
		default:
			t.Fatalf("%s: Encode does not know fields of type %T", name, field)
		}
		return nil
	})
}

func TestEncode_allFields(t *testing.T) {
	t.Parallel()
	for _, x := range []any{&Status{}, &Binding{}, &Session{}, &Flushed{}, &LabelCounts{}} {
		fill(t, x)
		got := reflect.New(reflect.TypeOf(x).Elem()).Interface()
		if err := Decode(encoded(t, reflect.ValueOf(x).Elem().Interface(), Encode), got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, x) {
			t.Errorf("got %+v, want %+v", got, x)
		}
	}
}

// TestMarshalFields_asHelp has each field of a Status in JSON, under the name by which it
// is explained, and in that order.
func TestMarshalFields_asHelp(t *testing.T) {
	t.Parallel()
	var s Status
	fill(t, &s)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	at := 0
	for _, h := range Help(&s) {
		next := strings.Index(string(text), `"`+h[0]+`":`)
		if next < at || h[0] == "" || !strings.HasSuffix(h[1], ".") {
			t.Errorf("field %q: got %q at %d after %d of %s", h[0], h[1], next, at, text)
		}
		at = next
		delete(all, h[0])
	}
	if len(all) > 0 {
		t.Errorf("got fields that are not explained: %v", all)
	}
	if got, err := MarshalFields(&struct {
		Present *int `json:"present"`
		Absent  *int `json:"absent"`
	}{Present: new(int)}); string(got) != `{"present":0}` || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestEncodeEntry_doesNotAllocate(t *testing.T) {
	e := attr.NewEncoder(io.Discard)
	s := any(Session{Endpoint: "smtp\n192.0.2.1\n25\n", Property: "p"})
	encode := func() {
		EncodeEntry(e, s)
		e.End()
	}
	if n := testing.AllocsPerRun(100, encode); n > 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func TestDecodeEntry(t *testing.T) {
	t.Parallel()
	for _, x := range []any{
		Binding{Destination: "d", Remaining: Seconds(1500 * time.Millisecond)},
		Session{Remote: "192.0.2.1:25"},
		LabelCounts{Label: "l", Error: 3},
		End{},
	} {
		got, err := DecodeEntry(encoded(t, x, EncodeEntry))
		if err != nil || got != x {
			t.Errorf("got %+v, %v, want %+v", got, err, x)
		}
	}
	if got, err := DecodeEntry(attr.List{{Name: []byte("entry"), Value: []byte("x")}}); err == nil {
		t.Errorf("got %+v, want an error", got)
	}
}

func TestDecode_malformedValues(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pid", "goodbye", "uptime_seconds", "took"} {
		if err := Decode(attr.List{{Name: []byte(name), Value: []byte("x")}}, &Status{}); err == nil {
			t.Errorf("%s=x: got no error", name)
		}
	}
}

func encoded(t *testing.T, x any, encode func(*attr.Encoder, any)) attr.List {
	t.Helper()
	var b bytes.Buffer
	e := attr.NewEncoder(&b)
	encode(e, x)
	if err := e.End(); err != nil {
		t.Fatal(err)
	}
	list, err := attr.NewDecoder(&b).Decode()
	if err != nil {
		t.Fatal(err)
	}
	return list
}
