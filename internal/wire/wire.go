// Package wire knows the framing of the PostgreSQL protocol, version 3: the
// header every message begins with, the packets that open a connection, the
// limits of each message type, and the few fields the proxy reads itself.
//
// Nothing here copies, allocates or re-encodes a peer's bytes, and nothing
// panics on them. Lengths are bytes. All functions may be called concurrently.
package wire

import (
	"bytes"
	"encoding/binary"
)

// HeaderLen is the length of a message header: a type letter and a big-endian
// length that counts itself but not the letter.
const HeaderLen = 5

// The limits a server sets on the length word of frontend messages (since
// PostgreSQL 14; versions before had none).
const (
	MaxLarge = 1<<30 - 2 // Query, Parse, Bind, FunctionCall, CopyData
	MaxSmall = 10000     // every other type
	MaxAuth  = 65535     // password and SASL messages
)

// Header reads the header at the start of b. length is the length word as it
// stands, so the message is length+1 bytes long; it may be any number, even a
// negative one. ok is false if b is shorter than a header.
func Header(b []byte) (typ byte, length int, ok bool) {
	if len(b) < HeaderLen {
		return 0, 0, false
	}
	return b[0], int(int32(binary.BigEndian.Uint32(b[1:]))), true
}

// FrontendLimit returns the largest length word a server accepts for a
// message of this type from a client that has logged in. ok is false for
// letters that are no frontend message.
func FrontendLimit(typ byte) (limit int, ok bool) {
	switch typ {
	case 'Q', 'P', 'B', 'F', 'd':
		return MaxLarge, true
	case 'D', 'C', 'E', 'H', 'S', 'X', 'c', 'f':
		return MaxSmall, true
	}
	return 0, false
}

// CString cuts the string before the first NUL off b. ok is false, and s is
// all of b, if there is none.
func CString(b []byte) (s, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return b, nil, false
	}
	return b[:i], b[i+1:], true
}
