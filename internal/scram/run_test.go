package scram

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"
)

// deaf is a Host that passes everything, and counts what the client was told.
type deaf struct {
	verifier *Verifier
	told     int
}

func (h *deaf) ToClient([]byte) error { h.told++; return nil }

func (h *deaf) FromClient(frame []byte) error {
	if frame[0] != 'p' || len(frame) == 5 && frame[4] != 4 {
		return errors.New("no SASL message")
	}
	return nil
}

func (h *deaf) Verifier() (*Verifier, error) { return h.verifier, nil }

func (h *deaf) Found(string, bool, bool) {}

// both reads from one and writes to nobody.
type both struct {
	io.Reader
	io.Writer
}

// FuzzRun has two peers that send anything: no panic, no memory for what was only announced, and the client never
// hears that it is in, since nobody here knows the key.
func FuzzRun(f *testing.F) {
	v, _ := rfcVerifier(f)
	list := authentication(authSASL, offers(Mechanism))
	first := append([]byte{'p', 0, 0, 0, byte(4 + len(initial(Mechanism, rfcFirst)))}, initial(Mechanism, rfcFirst)...)
	f.Add(first, append(bytes.Clone(list), authentication(authContinue, []byte(rfcServer))...))
	f.Add(append(first, 'p', 0, 0, 0, 4), append(append(bytes.Clone(list), authentication(authContinue, []byte(rfcServer))...), authentication(authOK, nil)...))
	f.Add([]byte{'p', 0xff, 0xff, 0xff, 0xff}, []byte{'R', 0x7f, 0, 0, 0})
	f.Add([]byte{}, authentication(authOK, nil))
	f.Fuzz(func(t *testing.T, client, server []byte) {
		m := NewMiddle(nil, nil)
		defer m.Erase()
		h := &deaf{verifier: v}
		in := bytes.NewReader(server)
		rest, err := m.Run(bytes.NewReader(client), both{in, io.Discard}, rand.Reader, h)
		if err != nil {
			return
		}
		if len(rest) > len(server) || !bytes.HasSuffix(server[:len(server)-in.Len()], rest) {
			t.Errorf("of %q is left %q", server, rest)
		}
		if h.told > 0 && bytes.HasPrefix(rest, authentication(authFinal, nil)[:1]) && len(rest) > 8 && rest[8] == authFinal {
			t.Errorf("the client is to hear %q", rest)
		}
	})
}
