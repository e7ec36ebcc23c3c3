package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Request is the kind of packet a client opens a connection with. These
// packets have no type letter: a length word, counting itself, and a code.
type Request uint8

// The kinds of first packets.
const (
	StartupMessage Request = iota + 1 // asks for a session; the code is a protocol version
	SSLRequest
	GSSENCRequest
	CancelRequest
)

func (r Request) String() string {
	return [...]string{"unknown request", "StartupMessage", "SSLRequest", "GSSENCRequest", "CancelRequest"}[r]
}

// The codes of first packets that are not protocol versions.
const (
	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSSENC = 80877104
)

// The protocol versions the proxy speaks: major in the upper half.
const (
	Version30 = 3 << 16
	Version32 = 3<<16 | 2
)

// MaxStartup is the largest length word of a first packet a server accepts.
const MaxStartup = 10004

// Errors of first packets.
var (
	ErrFirstLength = errors.New("invalid length of first packet")
	ErrTerminator  = errors.New("start-up packet does not end in a terminator")
)

// FirstLen returns the length in bytes of the first packet, its length word
// included. b holds at least that word.
func FirstLen(b []byte) (int, error) {
	if len(b) < 4 {
		return 0, ErrFirstLength
	}
	n := binary.BigEndian.Uint32(b)
	if n < 8 || n > MaxStartup {
		return 0, fmt.Errorf("%w: %d", ErrFirstLength, n)
	}
	return int(n), nil
}

// First says what kind of packet this is and gives its code. packet is whole,
// as FirstLen measured it. A StartupMessage may be of any protocol version,
// even one nobody speaks.
func First(packet []byte) (r Request, code uint32, err error) {
	n, err := FirstLen(packet)
	if err != nil {
		return 0, 0, err
	}
	if n != len(packet) {
		return 0, 0, ErrFirstLength
	}
	code = binary.BigEndian.Uint32(packet[4:])
	switch code {
	case codeSSL, codeGSSENC:
		if n != 8 {
			return 0, code, ErrFirstLength
		}
		if code == codeSSL {
			return SSLRequest, code, nil
		}
		return GSSENCRequest, code, nil
	case codeCancel:
		if key := n - 12; key < 4 || key > 256 {
			return 0, code, ErrFirstLength
		}
		return CancelRequest, code, nil
	}
	return StartupMessage, code, nil
}

// CancelKey returns what a CancelRequest names: process id and secret, in the
// form of a BackendKeyData body. It aliases packet.
func CancelKey(packet []byte) []byte { return packet[8:] }

// Major and Minor split a protocol version.
func Major(version uint32) uint32 { return version >> 16 }

// Minor is the lower half of a protocol version.
func Minor(version uint32) uint32 { return version & 0xffff }

// A Param is one name and value of a StartupMessage.
type Param struct{ Name, Value []byte }

// StartupParams reads the parameters of a StartupMessage in the order sent,
// repetitions included; a server takes the last of a name. They alias packet.
// The terminator must be the last byte.
func StartupParams(packet []byte) ([]Param, error) {
	var params []Param
	if len(packet) < 8 {
		return nil, ErrFirstLength
	}
	b := packet[8:]
	for {
		name, rest, ok := CString(b)
		if !ok {
			return params, ErrTerminator
		}
		if len(name) == 0 {
			if len(rest) != 0 {
				return params, ErrTerminator
			}
			return params, nil
		}
		value, rest, ok := CString(rest)
		if !ok {
			return params, ErrTerminator
		}
		params = append(params, Param{name, value})
		b = rest
	}
}

// AppendStartup appends a StartupMessage.
func AppendStartup(dst []byte, version uint32, params []Param) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, version)
	for _, p := range params {
		dst = append(append(dst, p.Name...), 0)
		dst = append(append(dst, p.Value...), 0)
	}
	dst = append(dst, 0)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}
