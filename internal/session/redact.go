package session

import (
	"encoding/binary"
	"strings"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/redact"
	"github.com/pgnotary/pgnotary/internal/wire"
)

// settings is what the server last told of how it reads texts. A change lags
// behind the statement that makes it.
type settings struct {
	encoding    string // client_encoding
	nonStandard bool   // standard_conforming_strings is off
}

// redacted returns the frames of a run as they are recorded: with the
// passwords in statement texts replaced, and the frame lengths to fit. The
// frames that pass on are not touched. The entry says so in a fact.
func (s *Session) redacted(frames []byte, outstanding bool) []byte {
	opt := redact.Options{StandardConforming: !s.settings.nonStandard, Encoding: s.settings.encoding, Unsure: outstanding}
	var out []byte // nil until something is replaced
	for at := 0; at < len(frames); {
		typ, length, ok := wire.Header(frames[at:])
		if !ok || length < 4 || length+1 > len(frames)-at {
			break
		}
		frame := frames[at : at+length+1]
		from, to := textOf(typ, frame)
		var spans []redact.Span
		if to > from {
			spans = redact.Passwords(nil, frame[from:to], opt)
		}
		if len(spans) > 0 {
			if out == nil {
				out = append(make([]byte, 0, len(frames)+64), frames[:at]...)
				s.client.run.facts = append(s.client.run.facts, event.Fact{Key: "redacted", Val: "password"})
			}
			start := len(out)
			out = redact.Replace(append(out, frame[:from]...), frame[from:to], spans)
			out = append(out, frame[to:]...)
			binary.BigEndian.PutUint32(out[start+1:], uint32(len(out)-start-1))
		} else if out != nil {
			out = append(out, frame...)
		}
		at += length + 1
	}
	if out == nil {
		return frames
	}
	return out
}

// textOf returns where the statement text lies in a Query or Parse.
func textOf(typ byte, frame []byte) (from, to int) {
	body := frame[wire.HeaderLen:]
	switch typ {
	case 'Q':
		text, _, _ := wire.CString(body)
		return wire.HeaderLen, wire.HeaderLen + len(text)
	case 'P':
		name, rest, ok := wire.CString(body)
		if !ok {
			return 0, 0
		}
		text, _, _ := wire.CString(rest)
		from = wire.HeaderLen + len(name) + 1
		return from, from + len(text)
	}
	return 0, 0
}

// learn keeps a setting the server told.
func (t *settings) learn(name, val string) {
	switch name {
	case "client_encoding":
		t.encoding = val
	case "standard_conforming_strings":
		t.nonStandard = val == "off"
	}
}

// foreign returns the encoding of texts if readers must be told: if it is
// neither UTF8, which they take for granted, nor SQL_ASCII, which is none.
func (t *settings) foreign() string {
	if e := t.encoding; e != "" && !strings.EqualFold(e, "UTF8") && !strings.EqualFold(e, "SQL_ASCII") {
		return e
	}
	return ""
}
