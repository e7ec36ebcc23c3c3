package checkpoint

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Cosigner signs checkpoints with the key of a witness
// (c2sp.org/tlog-cosignature, Ed25519).
type Cosigner struct {
	key  key
	priv crypto.Signer
}

// NewCosigner returns the cosigner of that name whose key is priv, an Ed25519
// key in memory or in an agent.
func NewCosigner(name string, priv crypto.Signer) (*Cosigner, error) {
	k, err := keyOf(name, algCosignature, priv)
	if err != nil {
		return nil, err
	}
	return &Cosigner{k, priv}, nil
}

// VKey returns the key line that others check the cosignatures with.
func (c *Cosigner) VKey() string { return c.key.String() }

// Cosign returns the signature line by which the witness says that at that
// time, in Unix seconds, the checkpoint was of the largest tree it knew.
func (c *Cosigner) Cosign(checkpoint Checkpoint, time int64) ([]byte, error) {
	if time < 0 {
		return nil, fmt.Errorf("cosign checkpoint: time %d is out of range", time)
	}
	sig, err := sign(c.priv, cosigned(checkpoint.Text(), uint64(time)))
	if err != nil {
		return nil, fmt.Errorf("cosign checkpoint: %w", err)
	}
	sig = append(binary.BigEndian.AppendUint64(nil, uint64(time)), sig...)
	return sigLine{c.key.name, c.key.id, sig}.append(nil), nil
}

// cosigned returns what a cosignature is over.
func cosigned(text string, time uint64) []byte {
	return []byte("cosignature/v1\ntime " + strconv.FormatUint(time, 10) + "\n" + text)
}

// AddCosignature returns the signed checkpoint with the cosignature of the
// witness vkey that is among lines, in place of an older one of it, and its
// time in Unix seconds. Other lines, of keys nobody asked for, are left out.
func AddCosignature(signed, lines []byte, vkey string) (cosigned []byte, time int64, err error) {
	k, err := parseKey(vkey)
	if err != nil {
		return nil, 0, err
	}
	if k.alg != algCosignature {
		return nil, 0, fmt.Errorf("add cosignature: %w: %.300q is not that of a witness", ErrKey, vkey)
	}
	n, err := parseNote(signed)
	if err != nil {
		return nil, 0, err
	}
	got := parsedNote{Checkpoint: n.Checkpoint, text: n.text}
	if len(lines) > MaxBytes {
		return nil, 0, malformed("%d bytes of cosignatures, want at most %d", len(lines), MaxBytes)
	}
	for line := range strings.Lines(string(lines)) {
		text, ok := strings.CutSuffix(line, "\n")
		if !ok {
			return nil, 0, malformed("no line feed at the end of a cosignature")
		}
		s, err := parseSigLine(text)
		if err != nil {
			return nil, 0, err
		}
		got.sigs = append(got.sigs, s)
	}
	ok, time, err := got.signedBy(k)
	if err != nil {
		return nil, 0, err
	}
	if !ok {
		return nil, 0, fmt.Errorf("add cosignature: %w: no line of key %s+%08x", ErrSignature, k.name, k.id)
	}
	ofKey := func(s sigLine) bool { return s.name == k.name && s.id == k.id }
	n.sigs = slices.DeleteFunc(n.sigs, ofKey)
	n.sigs = append(n.sigs, got.sigs[slices.IndexFunc(got.sigs, ofKey)])
	if len(n.sigs) > maxSignatures {
		return nil, 0, malformed("more than %d signatures", maxSignatures)
	}
	return n.bytes(), time, nil
}

// SignedBy returns the checkpoint with the signature of one key only, which
// must be valid: what a log sends to a witness.
func SignedBy(signed []byte, vkey string) ([]byte, error) {
	if _, err := Open(signed, vkey); err != nil {
		return nil, err
	}
	n, err := parseNote(signed)
	if err != nil {
		return nil, err
	}
	k, err := parseKey(vkey)
	if err != nil {
		return nil, err
	}
	n.sigs = slices.DeleteFunc(n.sigs, func(s sigLine) bool { return s.name != k.name || s.id != k.id })
	return n.bytes(), nil
}

// OpenAny returns the checkpoint in signed if at least one of the keys signed
// it, and that key. As a witness must, it refuses a line of a key it
// knows that does not verify, whatever the others say.
func OpenAny(signed []byte, vkeys []string) (c Checkpoint, vkey string, err error) {
	n, err := parseNote(signed)
	if err != nil {
		return c, "", err
	}
	for _, v := range vkeys {
		k, err := parseKey(v)
		if err != nil {
			return c, "", err
		}
		if k.alg != algEd25519 || k.name != n.Origin {
			continue
		}
		ok, _, err := n.signedBy(k)
		if err != nil {
			return c, "", err
		}
		if ok && vkey == "" {
			vkey = v
		}
	}
	if vkey == "" {
		return c, "", fmt.Errorf("open checkpoint: %w: none of a known key of log %q", ErrSignature, n.Origin)
	}
	return n.Checkpoint, vkey, nil
}

// CosignatureTime returns when the witness vkey cosigned, in Unix seconds.
func CosignatureTime(signed []byte, vkey string) (int64, error) {
	_, time, err := AddCosignature(signed, signatureLines(signed), vkey)
	return time, err
}

// signatureLines returns what follows the empty line.
func signatureLines(signed []byte) []byte {
	_, lines, _ := strings.Cut(string(signed), "\n\n")
	return []byte(lines)
}

// bytes puts the note together again.
func (n *parsedNote) bytes() []byte {
	b := []byte(n.text + "\n")
	for _, s := range n.sigs {
		b = s.append(b)
	}
	return b
}

// GenerateWitnessKey returns a new key pair of a witness, as GenerateKey does
// for a log.
func GenerateWitnessKey(rand io.Reader, name string) (skey, vkey string, err error) {
	if !validName(name) {
		return "", "", fmt.Errorf("generate key: bad name %.80q: it must be 1 to %d bytes without white space or '+'", name, maxName)
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return "", "", fmt.Errorf("generate key: %w", err)
	}
	priv := ed25519.NewKeyFromSeed(seed)
	k := newKey(name, algCosignature, priv.Public().(ed25519.PublicKey))
	b64 := base64.StdEncoding.EncodeToString(append([]byte{algCosignature}, seed...))
	return fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, k.id, b64), k.String(), nil
}

// ParseWitnessKey returns the cosigner of a private key that GenerateWitnessKey
// made; one line feed may follow.
func ParseWitnessKey(skey string) (*Cosigner, error) {
	k, priv, err := parsePrivate(skey)
	if err != nil {
		return nil, err
	}
	if k.alg != algCosignature {
		return nil, fmt.Errorf("%w: it is the key of a log; a witness needs one of its own", ErrKey)
	}
	return &Cosigner{k, priv}, nil
}

// keyOf returns the verifier key of priv.
func keyOf(name string, alg byte, priv crypto.Signer) (key, error) {
	if !validName(name) {
		return key{}, fmt.Errorf("%w: bad name %.80q", ErrKey, name)
	}
	pub, ok := priv.Public().(ed25519.PublicKey)
	if !ok || len(pub) != ed25519.PublicKeySize {
		return key{}, fmt.Errorf("%w: only Ed25519 keys can sign", ErrKey)
	}
	return newKey(name, alg, pub), nil
}

// sign signs with a key that may be elsewhere, and makes sure that what came
// back is its signature.
func sign(priv crypto.Signer, msg []byte) ([]byte, error) {
	sig, err := priv.Sign(nil, msg, crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	if pub, ok := priv.Public().(ed25519.PublicKey); !ok || !ed25519.Verify(pub, msg, sig) {
		return nil, errors.New("the signer returned what is not a signature of its key")
	}
	return sig, nil
}

// timestamp takes a cosignature apart, c2sp.org/tlog-cosignature.
func timestamp(sig []byte) (time uint64, rest []byte, ok bool) {
	if len(sig) != 8+ed25519.SignatureSize {
		return 0, nil, false
	}
	time = binary.BigEndian.Uint64(sig)
	return time, sig[8:], time <= math.MaxInt64
}
