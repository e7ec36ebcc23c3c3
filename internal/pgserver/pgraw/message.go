package pgraw

import (
	"encoding/binary"
	"fmt"
)

// Msg builds a message from parts: a string stands for its bytes, an int for one byte, an
// int16 or int32 for that many, []byte for itself.
func Msg(typ byte, parts ...any) []byte {
	p := append([]byte{typ, 0, 0, 0, 0}, Bytes(parts...)...)
	binary.BigEndian.PutUint32(p[1:], uint32(len(p)-1))
	return p
}

// Bytes encodes parts as Msg does, without a header.
func Bytes(parts ...any) []byte {
	var p []byte
	for _, part := range parts {
		switch v := part.(type) {
		case string:
			p = append(p, v...)
		case []byte:
			p = append(p, v...)
		case int:
			p = append(p, byte(v))
		case int16:
			p = binary.BigEndian.AppendUint16(p, uint16(v))
		case int32:
			p = binary.BigEndian.AppendUint32(p, uint32(v))
		case uint32:
			p = binary.BigEndian.AppendUint32(p, v)
		default:
			panic(fmt.Sprintf("pgraw: part of type %T", part))
		}
	}
	return p
}

// Startup builds a StartupMessage of a protocol version with names and values in turn.
func Startup(version uint32, pairs ...string) []byte {
	body := Bytes(version)
	for _, s := range pairs {
		body = append(append(body, s...), 0)
	}
	return packet(append(body, 0))
}

// Cancel builds a CancelRequest.
func Cancel(pid uint32, key []byte) []byte { return packet(Bytes(uint32(80877102), pid, key)) }

// SSLRequest asks for TLS.
func SSLRequest() []byte { return packet(Bytes(uint32(80877103))) }

// GSSENCRequest asks for GSSAPI encryption.
func GSSENCRequest() []byte { return packet(Bytes(uint32(80877104))) }

func packet(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// Query builds a Query.
func Query(sql string) []byte { return Msg('Q', sql, 0) }

// Parse builds a Parse.
func Parse(name, sql string, types ...uint32) []byte {
	parts := []any{name, 0, sql, 0, int16(len(types))}
	for _, t := range types {
		parts = append(parts, t)
	}
	return Msg('P', parts...)
}

// Bind builds a Bind with all parameters of one format (0 text, 1 binary) and results in text;
// a nil value is NULL.
func Bind(portal, statement string, format int16, values ...[]byte) []byte {
	parts := []any{portal, 0, statement, 0, int16(1), format, int16(len(values))}
	for _, v := range values {
		if v == nil {
			parts = append(parts, int32(-1))
		} else {
			parts = append(parts, int32(len(v)), v)
		}
	}
	return Msg('B', append(parts, int16(0))...)
}

// Describe builds a Describe; kind is S or P.
func Describe(kind byte, name string) []byte { return Msg('D', int(kind), name, 0) }

// CloseName builds a Close; kind is S or P.
func CloseName(kind byte, name string) []byte { return Msg('C', int(kind), name, 0) }

// Execute builds an Execute; rows 0 means all.
func Execute(portal string, rows int32) []byte { return Msg('E', portal, 0, rows) }

// Sync builds a Sync.
func Sync() []byte { return Msg('S') }

// Flush builds a Flush.
func Flush() []byte { return Msg('H') }

// CopyData builds a CopyData.
func CopyData(data []byte) []byte { return Msg('d', data) }

// CopyDone builds a CopyDone.
func CopyDone() []byte { return Msg('c') }

// CopyFail builds a CopyFail.
func CopyFail(reason string) []byte { return Msg('f', reason, 0) }

// FunctionCall builds a FunctionCall with arguments and result in text.
func FunctionCall(oid uint32, args ...[]byte) []byte {
	parts := []any{oid, int16(0), int16(len(args))}
	for _, a := range args {
		parts = append(parts, int32(len(a)), a)
	}
	return Msg('F', append(parts, int16(0))...)
}
