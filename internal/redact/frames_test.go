package redact

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/pgnotary/pgnotary/internal/wire"
)

func TestRedactedFramesFit(t *testing.T) {
	frame := func(typ byte, body string) []byte {
		b := append([]byte{typ, 0, 0, 0, 0}, body...)
		binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1))
		return b
	}
	for _, tt := range []struct {
		name       string
		sent, want []byte
	}{
		{"plain", frame('Q', "select 1\x00"), frame('Q', "select 1\x00")},
		{"query", frame('Q', "alter role a password 'sesame'\x00"), frame('Q', "alter role a password '***'\x00")},
		{
			"with sync behind", append(frame('Q', "create user b password 'x'\x00"), frame('S', "")...),
			append(frame('Q', "create user b password '***'\x00"), frame('S', "")...),
		},
		{
			"parse", append(frame('P', "st\x00alter role a password 'sesame'\x00\x00\x00"), frame('S', "")...),
			append(frame('P', "st\x00alter role a password '***'\x00\x00\x00"), frame('S', "")...),
		},
		{"no terminator", frame('Q', "alter role a password 'sesame'"), frame('Q', "alter role a password '***'")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := bytes.Clone(tt.sent)
			got, found := Frames(tt.sent, Options{StandardConforming: true})
			if !bytes.Equal(got, tt.want) {
				t.Errorf("Frames = %q, want %q", got, tt.want)
			}
			if !bytes.Equal(tt.sent, before) {
				t.Error("the frames that pass on were changed")
			}
			if _, length, ok := wire.Header(got); !ok || length+1 > len(got) {
				t.Errorf("frame of length word %d in %d bytes", length, len(got))
			}
			if found == bytes.Equal(got, before) {
				t.Errorf("found %v", found)
			}
		})
	}
}

func TestError(t *testing.T) {
	sent := wire.AppendError(nil, "ERROR", "42601", `syntax error at or near "sesame"`, "sesame?")
	want := wire.AppendError(nil, "ERROR", "42601", Mark, "")
	if got := Error(sent); !bytes.Equal(got, want) {
		t.Errorf("Error = %q, want %q", got, want)
	}
}

func FuzzError(f *testing.F) {
	f.Add([]byte("E\x00\x00\x00\x0fSERROR\x00Msecret\x00\x00"))
	f.Add([]byte("E\x00\x00\x00\x0fMno end"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		out := Error(frame)
		if len(frame) < wire.HeaderLen {
			return
		}
		_, length, _ := wire.Header(out)
		if severity, state := wire.ErrorFields(out[wire.HeaderLen:]); length+1 != len(out) || !bytes.Contains(frame, severity) || !bytes.Contains(frame, state) {
			t.Errorf("Error(%q) = %q", frame, out)
		}
	})
}
