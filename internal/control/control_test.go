// SPDX-License-Identifier: EPL-2.0

package control

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"scache/attr"
	"scache/internal/histogram"
)

// fill sets every field of a struct to something that is not zero.
func fill(t *testing.T, x any) {
	v := reflect.ValueOf(x).Elem()
	for i := range v.NumField() {
		if h, ok := v.Field(i).Addr().Interface().(*histogram.Values); ok {
			h.Counts[3], h.Sum = 7, time.Second
			continue
		}
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("smtp\nexample.com\n")
		case reflect.Int64:
			f.SetInt(int64(i+1) * int64(time.Hour))
		case reflect.Bool:
			f.SetBool(true)
		default:
			t.Fatalf("%s: fields of this kind do not travel", v.Type().Field(i).Name)
		}
	}
}

func TestAllFieldsTravel(t *testing.T) {
	t.Parallel()
	for _, x := range []any{&Status{}, &Binding{}, &Session{}, &Flushed{}, &Hits{}} {
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

func TestEntries(t *testing.T) {
	t.Parallel()
	for _, x := range []any{Binding{Destination: "d", Left: Seconds(1500 * time.Millisecond)}, Session{Remote: "192.0.2.1:25"}, Hits{Label: "l", Error: 3}, End{}} {
		got, err := DecodeEntry(encoded(t, x, EncodeEntry))
		if err != nil || got != x {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if got, err := DecodeEntry(attr.List{{Name: []byte("entry"), Value: []byte("x")}}); err == nil {
		t.Errorf("got %+v", got)
	}
}

func TestMalformedValues(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pid", "goodbye", "uptime_seconds", "took"} {
		if err := Decode(attr.List{{Name: []byte(name), Value: []byte("x")}}, &Status{}); err == nil {
			t.Errorf("%s=x was understood", name)
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
