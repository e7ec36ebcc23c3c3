// Package checkpoint reads and writes the small signed texts by which a log
// is held to its word: checkpoints, trust policies and proofs of inclusion,
// in the public formats c2sp.org/tlog-checkpoint, signed-note,
// tlog-cosignature, tlog-policy and tlog-proof.
//
//	pgnotary/db1/3f2a91c0                             origin: the name of the log and of its key
//	70000                                             size: number of entries
//	sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=      root of the tree of that size
//
//	— pgnotary/db1/3f2a91c0 hI2DJw…                   signature lines
//
// Readers are strict: what they accept is exactly what the encoder writes, so
// that no bit of a signed file can change unnoticed. The package does no I/O
// and knows no clock; all functions may be called concurrently.
package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// MaxBytes bounds a signed checkpoint with all its cosignatures.
const MaxBytes = 64 << 10

// maxSignatures bounds the signature lines of a checkpoint.
const maxSignatures = 64

// maxSize bounds the size of a log, far beyond any, so that no arithmetic on
// sizes overflows.
const maxSize = 1 << 60

// ErrMalformed is returned for a text that is not, byte for byte, what an
// encoder would have written.
var ErrMalformed = errors.New("malformed")

// ErrSignature is returned for a well-formed text without a valid signature
// of the key it should have.
var ErrSignature = errors.New("signature is missing or invalid")

// A Checkpoint is the statement a log signs: how many entries it has and what
// the root of their tree is.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   [32]byte
}

// Text returns the three lines that are signed.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// ErrEmptyRoot is returned, besides ErrMalformed, for a checkpoint of size 0
// whose root is not that of the empty tree.
var ErrEmptyRoot = errors.New("size 0 with a root that is not that of the empty tree")

// Sign returns the signed checkpoint of a log. The signer must carry the
// origin's name: a key signs for one log only.
func Sign(s Signer, origin string, size int64, root [32]byte) ([]byte, error) {
	if s.Name() != origin {
		return nil, fmt.Errorf("sign checkpoint: key %q is not that of log %q", s.Name(), origin)
	}
	if size < 0 || size > maxSize {
		return nil, fmt.Errorf("sign checkpoint: size %d is out of range", size)
	}
	signed, err := note.Sign(&note.Note{Text: Checkpoint{origin, size, root}.Text()}, s)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return signed, nil
}

// Open returns the checkpoint in signed if its origin is the name of the key
// vkey, it has exactly one signature of that key, that is valid, and all of
// signed is in canonical form. Signatures of other keys are allowed beside it
// and not checked: who wants them checked has a Policy.
func Open(signed []byte, vkey string) (Checkpoint, error) {
	n, err := parseNote(signed)
	if err != nil {
		return Checkpoint{}, err
	}
	k, err := parseKey(vkey)
	if err != nil {
		return Checkpoint{}, err
	}
	if k.alg != algEd25519 {
		return Checkpoint{}, fmt.Errorf("open checkpoint: key of type %#x cannot sign for a log", k.alg)
	}
	if n.Origin != k.name {
		return Checkpoint{}, fmt.Errorf("open checkpoint: it is of log %q, want %q", n.Origin, k.name)
	}
	ok, _, err := n.signedBy(k)
	if err != nil {
		return Checkpoint{}, err
	}
	if !ok {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w: no line of key %s+%08x", ErrSignature, k.name, k.id)
	}
	return n.Checkpoint, nil
}

// Parse returns the checkpoint in signed without checking any signature, and
// the number of its signature lines. The text must be in canonical form.
func Parse(signed []byte) (c Checkpoint, signatures int, err error) {
	n, err := parseNote(signed)
	return n.Checkpoint, len(n.sigs), err
}

// parsedNote is a signed checkpoint taken apart, nothing verified.
type parsedNote struct {
	Checkpoint
	text string
	sigs []sigLine
}

// sigLine is one signature line: "— name base64(id || sig)".
type sigLine struct {
	name string
	id   uint32
	sig  []byte
}

func (s sigLine) append(b []byte) []byte {
	raw := append(binary.BigEndian.AppendUint32(nil, s.id), s.sig...)
	b = append(append(append(b, "— "...), s.name...), ' ')
	return append(base64.StdEncoding.AppendEncode(b, raw), '\n')
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w checkpoint: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// parseNote takes signed apart and compares it with its parts put together
// again, which leaves no other spelling: spare base64 bits, leading zeros,
// carriage returns, extension lines.
func parseNote(signed []byte) (parsedNote, error) {
	var n parsedNote
	if len(signed) > MaxBytes {
		return n, malformed("%d bytes, want at most %d", len(signed), MaxBytes)
	}
	text, lines, ok := strings.Cut(string(signed), "\n\n")
	if !ok {
		return n, malformed("no empty line before the signatures")
	}
	n.text = text + "\n"
	if err := n.parseText(); err != nil {
		return n, err
	}
	again := []byte(n.text + "\n")
	for lines != "" {
		line, rest, ok := strings.Cut(lines, "\n")
		if !ok {
			return n, malformed("no line feed at the end")
		}
		lines = rest
		s, err := parseSigLine(line)
		if err != nil {
			return n, err
		}
		if n.sigs = append(n.sigs, s); len(n.sigs) > maxSignatures {
			return n, malformed("more than %d signatures", maxSignatures)
		}
		again = s.append(again)
	}
	if len(n.sigs) == 0 {
		return n, malformed("no signature")
	}
	if !bytes.Equal(again, signed) {
		return n, malformed("not in canonical form")
	}
	return n, nil
}

func (n *parsedNote) parseText() error {
	lines := strings.Split(n.text, "\n")
	if len(lines) != 4 {
		return malformed("%d lines of text, want 3", len(lines)-1)
	}
	var err error
	if n.Origin = lines[0]; !validName(n.Origin) {
		return malformed("bad origin %.80q", n.Origin)
	}
	if n.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || n.Size < 0 || n.Size > maxSize {
		return malformed("bad size %.80q", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != sha256.Size {
		return malformed("bad root %.80q", lines[2])
	}
	n.Root = [32]byte(root)
	if n.Text() != n.text {
		return malformed("size or root not in canonical form")
	}
	if n.Size == 0 && n.Root != sha256.Sum256(nil) {
		return fmt.Errorf("%w: %w", malformed("its tree is empty"), ErrEmptyRoot)
	}
	return nil
}

func parseSigLine(line string) (sigLine, error) {
	rest, ok := strings.CutPrefix(line, "— ")
	name, b64, ok2 := strings.Cut(rest, " ")
	raw, err := base64.StdEncoding.DecodeString(b64)
	if !ok || !ok2 || err != nil || len(raw) < 5 || !validName(name) {
		return sigLine{}, malformed("bad signature line %.80q", line)
	}
	return sigLine{name, binary.BigEndian.Uint32(raw), raw[4:]}, nil
}

// signedBy reports whether k signed the note, and for a witness when, in Unix
// seconds. A line of that key that does not verify, and a second line of it,
// are errors, whatever the other says.
func (n *parsedNote) signedBy(k key) (ok bool, time int64, err error) {
	for _, s := range n.sigs {
		if s.name != k.name || s.id != k.id {
			continue
		}
		if ok {
			return false, 0, malformed("two signatures of key %s+%08x", k.name, k.id)
		}
		if time, ok = k.verify(n.text, s.sig); !ok {
			return false, 0, fmt.Errorf("open checkpoint: %w: that of key %s+%08x", ErrSignature, k.name, k.id)
		}
	}
	return ok, time, nil
}

// SignText signs a text that is no checkpoint as a signed note. The first line
// of a checkpoint is the name of its key, so that of the text must be another.
func SignText(s Signer, text string) ([]byte, error) {
	if first, _, _ := strings.Cut(text, "\n"); first == s.Name() {
		return nil, malformed("a text that begins with the name of its key could be taken for a checkpoint")
	}
	return note.Sign(&note.Note{Text: text}, s)
}

// OpenText checks that one of the keys signed a text that is no checkpoint,
// and returns it.
func OpenText(signed []byte, vkeys []string) (string, error) {
	for _, vkey := range vkeys {
		v, err := note.NewVerifier(vkey)
		if err != nil {
			continue // of another kind of key
		}
		if n, err := note.Open(signed, note.VerifierList(v)); err == nil {
			return n.Text, nil
		}
	}
	return "", errors.New("it is not signed by one of the keys")
}
