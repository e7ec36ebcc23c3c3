package session

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
			s := New(Config{})
			before := bytes.Clone(tt.sent)
			got := s.redacted(tt.sent, false)
			if !bytes.Equal(got, tt.want) {
				t.Errorf("redacted = %q, want %q", got, tt.want)
			}
			if !bytes.Equal(tt.sent, before) {
				t.Error("the frames that pass on were changed")
			}
			if _, length, ok := wire.Header(got); !ok || length+1 > len(got) {
				t.Errorf("frame of length word %d in %d bytes", length, len(got))
			}
			if changed := !bytes.Equal(got, before); changed != (len(s.client.run.facts) > 0) {
				t.Errorf("changed %v, facts %v", changed, s.client.run.facts)
			}
		})
	}
}
