package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/pgnotary/pgnotary/internal/tree"
)

const consistencyHeader = "pgnotary/consistency@v1\n"

// maxConsistency bounds the file of a consistency proof, in bytes.
const maxConsistency = 2*MaxSuccession + 2*MaxBytes + maxProofHashes*45 + 64

// A Consistency shows without the log that a later checkpoint continues an
// earlier one: no entry of the earlier was changed or removed.
type Consistency struct {
	Hashes [][32]byte // RFC 6962, 2.1.2
	Old    []byte     // signed, as it was issued
	New    []byte     // signed, as it was issued
	// Succession is how the log's keys named one another, nil if it always had one.
	Succession []byte
}

// Format returns the bytes of the proof file:
//
//	pgnotary/consistency@v1
//	succession <base64>             only if the log had several keys
//	<base64 of a hash>
//	…
//
//	<earlier checkpoint>
//
//	<later checkpoint>
func (c *Consistency) Format() []byte {
	b := []byte(consistencyHeader)
	if len(c.Succession) > 0 {
		b = append(base64.StdEncoding.AppendEncode(append(b, "succession "...), c.Succession), '\n')
	}
	for i := range c.Hashes {
		b = append(base64.StdEncoding.AppendEncode(b, c.Hashes[i][:]), '\n')
	}
	b = append(append(b, '\n'), c.Old...)
	b = append(b, '\n')
	return append(b, c.New...)
}

// IsConsistency reports whether a file says that it is a consistency proof.
func IsConsistency(b []byte) bool { return bytes.HasPrefix(b, []byte(consistencyHeader)) }

// ParseConsistency decodes a proof file; it accepts exactly what Format writes
// around well-formed checkpoints. Nothing is verified yet.
func ParseConsistency(b []byte) (*Consistency, error) {
	bad := func(what string) (*Consistency, error) {
		return nil, fmt.Errorf("%w consistency proof: %s", ErrMalformed, what)
	}
	if len(b) > maxConsistency {
		return bad(fmt.Sprintf("%d bytes, want at most %d", len(b), maxConsistency))
	}
	if !IsConsistency(b) {
		return bad("it does not begin with " + strings.TrimSpace(consistencyHeader))
	}
	// Hashes, text and signatures of the earlier checkpoint, and of the later one.
	parts := bytes.Split(b, []byte("\n\n"))
	if len(parts) != 5 {
		return bad("it is not of two checkpoints")
	}
	c := &Consistency{
		Old: bytes.Join([][]byte{parts[1], append(bytes.Clone(parts[2]), '\n')}, []byte("\n\n")),
		New: bytes.Join(parts[3:], []byte("\n\n")),
	}
	lines := strings.Split(string(parts[0]), "\n")[1:]
	if len(lines) > 0 {
		if text, ok := strings.CutPrefix(lines[0], "succession "); ok {
			raw, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return bad("bad succession line")
			}
			c.Succession, lines = raw, lines[1:]
		}
	}
	if len(lines) > maxProofHashes {
		return bad(fmt.Sprintf("%d hashes, want at most %d", len(lines), maxProofHashes))
	}
	for _, l := range lines {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != sha256.Size {
			return bad("bad hash line")
		}
		c.Hashes = append(c.Hashes, [32]byte(h))
	}
	for _, signed := range [][]byte{c.Old, c.New} {
		if _, err := parseNote(signed); err != nil {
			return nil, err
		}
	}
	if !bytes.Equal(c.Format(), b) {
		return bad("not in canonical form")
	}
	return c, nil
}

// Verify returns both checkpoints if the later satisfies the policy, the
// earlier is signed by a log of it, and the proof shows that it is a prefix.
// The earlier may lack cosignatures: its root is in the later tree all the same.
func (c *Consistency) Verify(policy *Policy) (old, later Verified, err error) {
	policy = policy.Follow(c.Succession)
	if later, err = policy.Verify(c.New); err != nil {
		return old, later, fmt.Errorf("the later checkpoint: %w", err)
	}
	if old, err = policy.Verify(c.Old); err != nil && !errors.Is(err, ErrQuorum) {
		return old, later, fmt.Errorf("the earlier checkpoint: %w", err)
	}
	if old.Origin != later.Origin {
		return old, later, fmt.Errorf("the checkpoints are of different logs, %q and %q", old.Origin, later.Origin)
	}
	return old, later, tree.CheckConsistency(c.Hashes, later.Size, later.Root, old.Size, old.Root)
}
