// Package scram holds both sides of a SCRAM-SHA-256 login that a proxy ends in
// the middle (RFC 5802, RFC 7677, and PostgreSQL's reading of them): a Server
// that checks a client against a verifier and recovers the client's key from
// its proof, a Client that logs in to the real server with that key, and a Middle
// that holds the two together, message by message.
//
// The two conversations have different nonces and, over TLS, are bound to
// different certificates (tls-server-end-point, RFC 5929); they share salt and
// iteration count, which are the server's. No password is ever seen, nor can one be
// computed from what is kept.
//
// The package does no I/O, takes randomness as an io.Reader, and bounds every
// field a peer can choose. Its errors never repeat what a peer sent. Values are not
// safe for concurrent use; whoever makes one must Erase it.
package scram

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The mechanism names of PostgreSQL's AuthenticationSASL.
const (
	Mechanism     = "SCRAM-SHA-256"
	MechanismPlus = "SCRAM-SHA-256-PLUS"
)

// Bounds on what a peer or a verifier may say. PostgreSQL makes salts of 16 bytes
// and nonces of 24 characters.
const (
	MaxMessage    = 4096
	MaxNonce      = 512 // characters
	MaxSalt       = 128 // bytes
	MaxIterations = 10_000_000
)

const (
	keySize    = sha256.Size
	nonceBytes = 18 // 24 characters
	bindType   = "tls-server-end-point"
)

// What can be wrong with a login. Match with errors.Is; the text says more.
var (
	ErrMalformed = errors.New("malformed SCRAM message")            // 08P01
	ErrDowngrade = errors.New("SCRAM channel binding was hidden")   // the client supports it and believes the server does not: 28000
	ErrBinding   = errors.New("SCRAM channel binding check failed") // bound to another certificate: 28000
	ErrProof     = errors.New("SCRAM proof does not match")         // wrong password, or an unknown user: 28P01
	ErrVerifier  = errors.New("the server has another SCRAM verifier")
	ErrSignature = errors.New("SCRAM server signature does not match")
	ErrRefused   = errors.New("the server refused the SCRAM proof")
	ErrState     = errors.New("SCRAM message out of order")
)

func malformed(why string) error { return fmt.Errorf("%w: %s", ErrMalformed, why) }

// A key is a SHA-256 or HMAC-SHA-256 value.
type key = [keySize]byte

func mac(k *key, message string) (out key) {
	h := hmac.New(sha256.New, k[:])
	h.Write([]byte(message))
	h.Sum(out[:0])
	return out
}

func xor(a, b *key) (out key) {
	for i := range out {
		out[i] = a[i] ^ b[i]
	}
	return out
}

var strict = base64.StdEncoding.Strict()

func encode(b []byte) string { return strict.EncodeToString(b) }

// decode reads canonical base64 only: Go's decoder would skip line breaks.
func decode(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := strict.DecodeString(s)
	return b, err == nil
}

func decodeKey(s string) (k key, ok bool) {
	if len(s) != base64.StdEncoding.EncodedLen(keySize) {
		return k, false
	}
	b, ok := decode(s)
	if !ok || len(b) != keySize {
		return k, false
	}
	copy(k[:], b)
	clear(b)
	return k, true
}

func newNonce(random io.Reader) (string, error) {
	var b [nonceBytes]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("read nonce: %w", err)
	}
	return encode(b[:]), nil
}

// field cuts the attribute "letter=value" off the front of s; more says
// that a comma, and so another attribute, follows.
func field(s string, letter byte) (value, rest string, more, ok bool) {
	if len(s) < 2 || s[0] != letter || s[1] != '=' {
		return "", "", false, false
	}
	value, rest, more = strings.Cut(s[2:], ",")
	return value, rest, more, true
}

// extensions checks the optional attributes s: each a letter, '=' and a value.
func extensions(s string) error {
	for more := true; more; {
		if s == "" || !letter(s[0]) {
			return malformed("attribute without a letter")
		}
		if s[0] == 'm' {
			return fmt.Errorf("%w: it needs an extension nobody has", ErrMalformed)
		}
		var ok bool
		if _, s, more, ok = field(s, s[0]); !ok {
			return malformed("attribute without a value")
		}
	}
	return nil
}

func letter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// checkNonce holds a nonce to RFC 5802: printable ASCII but the comma.
func checkNonce(s string) error {
	if s == "" || len(s) > MaxNonce {
		return malformed("length of nonce")
	}
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e || s[i] == ',' {
			return malformed("character in nonce")
		}
	}
	return nil
}

// checkMessage bounds a message as a whole.
func checkMessage(b []byte) (string, error) {
	if len(b) > MaxMessage {
		return "", malformed("message too long")
	}
	s := string(b)
	if strings.IndexByte(s, 0) >= 0 {
		return "", malformed("message with a zero byte")
	}
	return s, nil
}
