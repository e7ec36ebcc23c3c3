package checkpoint

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	k, priv, err := parsePrivate(skey)
	if err != nil {
		return nil, err
	}
	return SignerOf(k.name, priv)
}

// SignerOf returns the signer of the log with that origin whose Ed25519 key is
// priv. The key need not be in this process: priv may ask an agent. That is the
// interface for keys kept elsewhere: Public returns the ed25519.PublicKey, and
// Sign, called with the whole message and crypto.Hash(0), its signature, 64
// bytes. It may be called concurrently and may take its time, but statements
// may be waiting for it. A wrong signature is noticed and is an error.
func SignerOf(origin string, priv crypto.Signer) (Signer, error) {
	k, err := keyOf(origin, algEd25519, priv)
	if err != nil {
		return nil, err
	}
	return signer{k, priv}, nil
}

// signer implements note.Signer.
type signer struct {
	key  key
	priv crypto.Signer
}

func (s signer) Name() string                    { return s.key.name }
func (s signer) KeyHash() uint32                 { return s.key.id }
func (s signer) Sign(msg []byte) ([]byte, error) { return sign(s.priv, msg) }

// VKey returns the verifier key that belongs to a log's private key.
func VKey(skey string) (string, error) {
	k, _, err := parsePrivate(skey)
	if err == nil && k.alg != algEd25519 {
		err = fmt.Errorf("%w: it is the key of a witness, not of a log", ErrKey)
	}
	if err != nil {
		return "", err
	}
	return k.String(), nil
}

// parsePrivate takes a private key apart; one line feed may follow it.
func parsePrivate(skey string) (key, ed25519.PrivateKey, error) {
	bad := fmt.Errorf("%w: not a private key as keygen writes it", ErrKey)
	rest, ok := strings.CutPrefix(strings.TrimSuffix(skey, "\n"), "PRIVATE+KEY+")
	name, rest, ok2 := strings.Cut(rest, "+")
	id, b64, ok3 := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.Strict().DecodeString(b64)
	if !ok || !ok2 || !ok3 || err != nil || !validName(name) || len(raw) != 1+ed25519.SeedSize ||
		raw[0] != algEd25519 && raw[0] != algCosignature || strings.ContainsAny(b64, "\r\n") {
		return key{}, nil, bad
	}
	priv := ed25519.NewKeyFromSeed(raw[1:])
	k := newKey(name, raw[0], priv.Public().(ed25519.PublicKey))
	if fmt.Sprintf("%08x", k.id) != id {
		return key{}, nil, bad
	}
	return k, priv, nil
}

// Origin returns the name in a verifier key, which is its log's origin.
func Origin(vkey string) (string, error) {
	k, err := parseKey(vkey)
	return k.name, err
}

// LogOrigin is Origin for the key of a log: that of a witness is an error.
func LogOrigin(vkey string) (string, error) {
	k, err := parseKey(vkey)
	if err == nil && k.alg != algEd25519 {
		err = fmt.Errorf("%w: %.300q is the key of a witness, not of a log", ErrKey, vkey)
	}
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
	t, sig, ok := timestamp(sig)
	return int64(t), ok && ed25519.Verify(k.pub, cosigned(text, t), sig)
}

// validName reports whether s can name a key.
func validName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) &&
		strings.IndexFunc(s, func(r rune) bool { return r == '+' || unicode.IsSpace(r) || unicode.IsControl(r) }) < 0
}
