package redact

import (
	"encoding/binary"

	"github.com/pgnotary/pgnotary/internal/wire"
)

// Frames returns protocol messages with the passwords in the texts of Query and
// Parse replaced, and the frame lengths to fit; found is false, and the result
// frames itself, if there are none. It does not change frames.
func Frames(frames []byte, o Options) (out []byte, found bool) {
	for at := 0; at < len(frames); {
		typ, length, ok := wire.Header(frames[at:])
		if !ok || length < 4 || length+1 > len(frames)-at {
			break
		}
		frame := frames[at : at+length+1]
		from, to := textOf(typ, frame)
		var spans []Span
		if to > from {
			spans = Passwords(nil, frame[from:to], o)
		}
		if len(spans) > 0 {
			if out == nil {
				out = append(make([]byte, 0, len(frames)+64), frames[:at]...)
			}
			start := len(out)
			out = Replace(append(out, frame[:from]...), frame[from:to], spans)
			out = append(out, frame[to:]...)
			binary.BigEndian.PutUint32(out[start+1:], uint32(len(out)-start-1))
		} else if out != nil {
			out = append(out, frame...)
		}
		at += length + 1
	}
	if out == nil {
		return frames, false
	}
	return out, true
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

// Error returns the ErrorResponse to a statement that had a password in it, without
// the texts that may quote from the statement: the message, which becomes Mark,
// detail, hint, context and the like. Severity, code and positions stay.
func Error(frame []byte) []byte {
	if len(frame) < wire.HeaderLen {
		return frame
	}
	out := append(make([]byte, 0, len(frame)), frame[:wire.HeaderLen]...)
	for body := frame[wire.HeaderLen:]; len(body) > 0 && body[0] != 0; {
		field := body[0]
		text, rest, ok := wire.CString(body[1:])
		switch field {
		case 'S', 'V', 'C', 'P', 'p', 'F', 'L', 'R':
			out = append(append(append(out, field), text...), 0)
		case 'M':
			out = append(append(append(out, field), Mark...), 0)
		}
		if body = rest; !ok {
			break
		}
	}
	out = append(out, 0)
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	return out
}
