package session

import (
	"bytes"
	"testing"
)

// TestPlain: what an Execute's leaf says alone is not kept again in a value, and
// whatever says more is kept as it came.
func TestPlain(t *testing.T) {
	none := msg('B', "", "s", int16(0), int16(0), int16(0))
	d, e, h := describe('P', ""), execute("", 0), flush()
	sql := query("prepare s as select 1")
	for _, tt := range []struct {
		name  string
		run   [][]byte
		plain bool
	}{
		{"libpq", [][]byte{msg('B', "", "s", int16(0), int16(0), int16(1), int16(0)), d, e}, true},
		{"no format of results", [][]byte{none, e}, true},
		{"flush", [][]byte{none, h, d, h, e, h}, true},
		{"a result in binary", [][]byte{msg('B', "", "s", int16(0), int16(0), int16(1), int16(1)), d, e}, false},
		{"formats of two results", [][]byte{msg('B', "", "s", int16(0), int16(0), int16(2), int16(0), int16(0)), e}, false},
		{"a format of parameters", [][]byte{msg('B', "", "s", int16(1), int16(0), int16(0), int16(0)), e}, false},
		{"a parameter", [][]byte{bind("", "s"), e}, false},
		{"bytes behind", [][]byte{msg('B', "", "s", int16(0), int16(0), int16(0), 0), e}, false},
		{"cut short", [][]byte{msg('B', "", "s", int16(0), int16(0)), e}, false},
		{"a name without an end", [][]byte{msg('B', "", []byte("s")), e}, false},
		{"a named portal", [][]byte{msg('B', "p", "s", int16(0), int16(0), int16(0)), execute("p", 0)}, false},
		{"a row limit", [][]byte{none, execute("", 1)}, false},
		{"a longer Execute", [][]byte{none, msg('E', "", 0, 0)}, false},
		{"the statement described", [][]byte{none, describe('S', "s"), e}, false},
		{"another portal described", [][]byte{none, describe('P', "p"), e}, false},
		{"a Close", [][]byte{none, e, closing('P', "")}, false},
		{"not executed", [][]byte{none, d}, false},
		{"an unknown statement", [][]byte{msg('B', "", "x", int16(0), int16(0), int16(0)), e}, false},
		{"the Parse is in it", [][]byte{parse("", "select 1"), msg('B', "", "", int16(0), int16(0), int16(0)), e}, false},
		{"prepared by SQL", [][]byte{sql, none, e}, false},
		{"perhaps changed by SQL", [][]byte{query("do 'x'"), none, e}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := loggedIn(t)
			w.play(client(parse("s", "select 1"), syncMsg()), server(parsed(), ready('I')))
			run := tt.run
			switch {
			case bytes.Equal(run[0], sql):
				w.play(client(closing('S', "s"), syncMsg()), server(closed(), ready('I')), client(sql), server(tag("PREPARE"), ready('I')))
				run = run[1:]
			case run[0][0] == 'Q':
				w.play(client(run[0]), server(tag("DO"), ready('I')))
				run = run[1:]
			}
			in := bytes.Join(append(run[:len(run):len(run)], syncMsg()), nil)
			w.play(client(in))
			last := w.log.entries[len(w.log.entries)-1]
			if got, want := string(last.Msgs), letters(in, true); got != want {
				t.Fatalf("the last entry has the messages %q, want %q", got, want)
			}
			switch {
			case tt.plain && (last.HasValue || last.Parse == 0):
				t.Errorf("it has a value of %d bytes and goes back to %d, want none, and the Parse", len(last.value), last.Parse)
			case !tt.plain && !bytes.Equal(last.value, in):
				t.Errorf("value %q, want %q", last.value, in)
			}
		})
	}
}

// The body of a Sync says nothing, but it came.
func TestPlainSync(t *testing.T) {
	w := loggedIn(t)
	w.play(client(parse("s", "select 1"), syncMsg()), server(parsed(), ready('I')))
	w.play(client(msg('B', "", "s", int16(0), int16(0), int16(0)), execute("", 0), msg('S', byte(1))))
	if last := w.log.entries[len(w.log.entries)-1]; !last.HasValue {
		t.Errorf("%s has no value", &last)
	}
}
