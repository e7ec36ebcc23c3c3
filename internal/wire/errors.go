package wire

import "encoding/binary"

// AppendError appends an ErrorResponse: severity (FATAL or ERROR), SQLSTATE,
// message and, if not empty, hint.
func AppendError(dst []byte, severity, code, message, hint string) []byte {
	at := len(dst)
	dst = append(dst, 'E', 0, 0, 0, 0)
	dst = appendField(dst, 'S', severity)
	dst = appendField(dst, 'V', severity)
	dst = appendField(dst, 'C', code)
	dst = appendField(dst, 'M', message)
	if hint != "" {
		dst = appendField(dst, 'H', hint)
	}
	dst = append(dst, 0)
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	return dst
}

func appendField(dst []byte, field byte, val string) []byte {
	return append(append(append(dst, field), val...), 0)
}

// AppendErrorV2 appends an error as clients of protocol 2.0 and before expect
// it: the letter, the text, a NUL, and no length.
func AppendErrorV2(dst []byte, message string) []byte {
	return append(append(append(dst, 'E'), message...), '\n', 0)
}

// ErrorField returns a field of the body of an ErrorResponse or NoticeResponse, nil
// if it has none. It aliases body.
func ErrorField(body []byte, field byte) []byte {
	for len(body) > 0 && body[0] != 0 {
		val, rest, ok := CString(body[1:])
		if !ok {
			break
		}
		if body[0] == field {
			return val
		}
		body = rest
	}
	return nil
}

// ErrorFields reads what decides from such a body: SQLSTATE, and the severity that
// is never translated (or, if a server sends none, the other).
func ErrorFields(body []byte) (severity, sqlstate []byte) {
	if severity = ErrorField(body, 'V'); severity == nil {
		severity = ErrorField(body, 'S')
	}
	return severity, ErrorField(body, 'C')
}

// AppendNegotiate appends a NegotiateProtocolVersion: the newest version that
// will be spoken, and the options that will not be honoured.
func AppendNegotiate(dst []byte, version uint32, refused [][]byte) []byte {
	at := len(dst)
	dst = append(dst, 'v', 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, version)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(refused)))
	for _, name := range refused {
		dst = append(append(dst, name...), 0)
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-1))
	return dst
}
