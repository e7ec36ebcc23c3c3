package query

import (
	"bytes"
	"testing"
)

func TestRows(t *testing.T) {
	rows := decodeRows([]byte("T\x00\x00\x00\x06\x00\x00"+"D\x00\x00\x00\x13\x00\x03\x00\x00\x00\x01a\xff\xff\xff\xff\x00\x00\x00\x00"+"D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x01\xff"), nil)
	if got := string(appendRows(nil, rows)); got != `,"rows":[["a",null,""],["\\xff"]]` {
		t.Errorf("rows %s", got)
	}
	if rows := decodeRows([]byte("D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x01"), nil); rows != nil {
		t.Errorf("half a row gives %v", rows)
	}
}

func FuzzContent(f *testing.F) {
	f.Add([]byte("T\x00\x00\x00\x06\x00\x00D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x01x"))
	f.Add([]byte("V\x00\x00\x00\x0c\x00\x00\x00\x04\x00\x00\x00\x2a"))
	f.Fuzz(func(t *testing.T, value []byte) {
		size := 0
		for _, row := range decodeRows(value, nil) {
			size += len(row)
		}
		if size > len(value) {
			t.Errorf("%d cells of %d bytes", size, len(value))
		}
		if p := decodeResult(value, 954, 1, nil); p != nil && !bytes.Contains(value, p.Raw) {
			t.Errorf("result %q of %q", p.Raw, value)
		}
	})
}
