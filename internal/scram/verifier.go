package scram

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Verifier is what a server keeps of a password (pg_authid.rolpassword). It
// lets its holder check logins, and pass for the server; it does not let
// him log in.
type Verifier struct {
	Iterations int
	Salt       []byte
	StoredKey  [sha256.Size]byte
	ServerKey  [sha256.Size]byte
	mock       bool // of nobody: no proof is good
}

var errVerifier = errors.New("not a SCRAM-SHA-256 verifier")

// ParseVerifier reads PostgreSQL's text of a verifier:
//
//	SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
//
// with salt and keys in base64. Only the text that PostgreSQL itself would write is accepted.
// The error does not repeat the text, which is a secret.
func ParseVerifier(text string) (*Verifier, error) {
	if len(text) > MaxMessage {
		return nil, fmt.Errorf("%w: too long", errVerifier)
	}
	scheme, rest, _ := strings.Cut(text, "$")
	params, keys, ok := strings.Cut(rest, "$")
	count, salt, ok1 := strings.Cut(params, ":")
	stored, server, ok2 := strings.Cut(keys, ":")
	if scheme != Mechanism || !ok || !ok1 || !ok2 {
		return nil, fmt.Errorf("%w: form", errVerifier)
	}
	var v Verifier
	if v.Iterations, ok = iterations(count); !ok {
		return nil, fmt.Errorf("%w: iteration count is not between 1 and %d", errVerifier, MaxIterations)
	}
	if v.Salt, ok = decode(salt); !ok || len(v.Salt) == 0 || len(v.Salt) > MaxSalt {
		return nil, fmt.Errorf("%w: salt is not 1 to %d bytes of base64", errVerifier, MaxSalt)
	}
	if v.StoredKey, ok = decodeKey(stored); !ok {
		return nil, fmt.Errorf("%w: StoredKey is not 32 bytes of base64", errVerifier)
	}
	if v.ServerKey, ok = decodeKey(server); !ok {
		v.Erase()
		return nil, fmt.Errorf("%w: ServerKey is not 32 bytes of base64", errVerifier)
	}
	return &v, nil
}

// iterations reads a decimal count without sign or leading zeros.
func iterations(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 1 && n <= MaxIterations && strconv.Itoa(n) == s
}

// Encode returns the text ParseVerifier reads.
func (v *Verifier) Encode() string {
	return fmt.Sprintf("%s$%d:%s$%s:%s", Mechanism, v.Iterations, encode(v.Salt), encode(v.StoredKey[:]), encode(v.ServerKey[:]))
}

// String and GoString keep the secret out of diagnostics.
func (v *Verifier) String() string { return Mechanism + " verifier" }

// GoString is String.
func (v *Verifier) GoString() string { return v.String() }

// Nobody returns the verifier of a user without one, for the salt and count that the server
// made up for him: every proof fails against it, after the same work.
func Nobody(salt []byte, count int) *Verifier {
	return &Verifier{Iterations: count, Salt: salt, mock: true}
}

// Erase overwrites the keys.
func (v *Verifier) Erase() {
	clear(v.StoredKey[:])
	clear(v.ServerKey[:])
}

// Keys is what a finished login leaves with a server: enough to log in as
// the user wherever the verifier is the same, until Erase.
type Keys struct {
	ClientKey [sha256.Size]byte
	ServerKey [sha256.Size]byte
}

// Erase overwrites the keys.
func (k *Keys) Erase() { *k = Keys{} }

// String keeps the secret out of diagnostics.
func (k *Keys) String() string { return "SCRAM keys" }

// GoString is String.
func (k *Keys) GoString() string { return k.String() }
