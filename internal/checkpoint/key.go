package checkpoint

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// A Signer signs checkpoints with the private key of a log.
type Signer = note.Signer

// maxName bounds origins and key names, in bytes.
const maxName = 255

// Types of keys, c2sp.org/signed-note.
const (
	algEd25519     = 0x01 // a log's signature
	algCosignature = 0x04 // a witness's: Ed25519 over a time and the checkpoint
)

// ErrKey is returned for a key that is not well formed. The error never
// contains the key.
var ErrKey = errors.New("malformed key")

// GenerateKey returns a new key pair of a log: skey is private, vkey is what
// others check with. The origin must not be empty nor contain white space,
// control characters or '+'.
func GenerateKey(rand io.Reader, origin string) (skey, vkey string, err error) {
	if !validName(origin) {
		return "", "", fmt.Errorf("generate key: bad origin %.80q: it must be 1 to %d bytes without white space or '+'", origin, maxName)
	}
	if skey, vkey, err = note.GenerateKey(rand, origin); err != nil {
		return "", "", fmt.Errorf("generate key: %w", err)
	}
	return skey, vkey, nil
}

// NewSigner returns the signer of a private key as GenerateKey gave it; one
// line feed may follow.
func NewSigner(skey string) (Signer, error) {
	if _, err := VKey(skey); err != nil {
		return nil, err
	}
	s, err := note.NewSigner(strings.TrimSuffix(skey, "\n"))
	if err != nil {
		return nil, fmt.Errorf("%w: private key", ErrKey)
	}
	return s, nil
}

// VKey returns the verifier key that belongs to a private key.
func VKey(skey string) (string, error) {
	bad := fmt.Errorf("%w: not a private key as keygen writes it", ErrKey)
	rest, ok := strings.CutPrefix(strings.TrimSuffix(skey, "\n"), "PRIVATE+KEY+")
	name, rest, ok2 := strings.Cut(rest, "+")
	id, b64, ok3 := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.Strict().DecodeString(b64)
	if !ok || !ok2 || !ok3 || err != nil || !validName(name) || len(raw) != 1+ed25519.SeedSize || raw[0] != algEd25519 ||
		strings.ContainsAny(b64, "\r\n") {
		return "", bad
	}
	pub := ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey)
	k := newKey(name, algEd25519, pub)
	if fmt.Sprintf("%08x", k.id) != id {
		return "", bad
	}
	return k.String(), nil
}

// Origin returns the name in a verifier key, which is its log's origin.
func Origin(vkey string) (string, error) {
	k, err := parseKey(vkey)
	return k.name, err
}

// key is a verifier key of a log or a witness.
type key struct {
	name string
	id   uint32
	alg  byte
	pub  ed25519.PublicKey
}

func newKey(name string, alg byte, pub ed25519.PublicKey) key {
	sum := sha256.Sum256(append(append([]byte(name), '\n', alg), pub...))
	return key{name, binary.BigEndian.Uint32(sum[:]), alg, pub}
}

// String returns the key in the form of a vkey: name+id+base64(type || key).
func (k key) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.name, k.id, base64.StdEncoding.EncodeToString(append([]byte{k.alg}, k.pub...)))
}

// parseKey accepts exactly what key.String writes.
func parseKey(vkey string) (key, error) {
	name, rest, ok := strings.Cut(vkey, "+")
	_, b64, ok2 := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(b64)
	switch {
	case !ok || !ok2 || err != nil || !validName(name) || len(raw) == 0:
		return key{}, fmt.Errorf("%w: %.300q is not a verifier key", ErrKey, vkey)
	case raw[0] != algEd25519 && raw[0] != algCosignature:
		return key{}, fmt.Errorf("%w: %.300q is of unknown type %#x", ErrKey, vkey, raw[0])
	case len(raw) != 1+ed25519.PublicKeySize:
		return key{}, fmt.Errorf("%w: %.300q has the wrong length", ErrKey, vkey)
	}
	k := newKey(name, raw[0], raw[1:])
	if k.String() != vkey {
		return key{}, fmt.Errorf("%w: %.300q has the wrong key id or spelling", ErrKey, vkey)
	}
	return k, nil
}

// verify reports whether sig, without the key id, is k's over text. For a
// witness it also returns the time it signed, in Unix seconds.
func (k key) verify(text string, sig []byte) (time int64, ok bool) {
	if k.alg == algEd25519 {
		return 0, ed25519.Verify(k.pub, []byte(text), sig)
	}
	// c2sp.org/tlog-cosignature: the time, then the signature over both.
	if len(sig) != 8+ed25519.SignatureSize {
		return 0, false
	}
	t := binary.BigEndian.Uint64(sig)
	if t > math.MaxInt64 {
		return 0, false
	}
	msg := "cosignature/v1\ntime " + strconv.FormatUint(t, 10) + "\n" + text
	return int64(t), ed25519.Verify(k.pub, []byte(msg), sig[8:])
}

// validName reports whether s can name a key.
func validName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) &&
		strings.IndexFunc(s, func(r rune) bool { return r == '+' || unicode.IsSpace(r) || unicode.IsControl(r) }) < 0
}
