package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// MaxProofValue bounds the value a proof can carry, in bytes.
const MaxProofValue = 16 << 20

// MaxProof bounds a proof file: leaf and value are in it in base64, twice over.
const MaxProof = 2*(MaxProofValue+1<<16) + 2*MaxBytes + 2*MaxSuccession + maxRelated<<18

// maxProofHashes is the height of the largest tree.
const maxProofHashes = 63

const proofHeader = "c2sp.org/tlog-proof@v1\n"

// A Proof shows without the log that an entry is in it (c2sp.org/tlog-proof).
type Proof struct {
	Extra      []byte     // nothing vouches for it; nil if there is none
	Index      int64      // of the entry
	Hashes     [][32]byte // from the leaf's sibling up to the root's child
	Checkpoint []byte     // signed, as it was issued
}

// Extra is what pgnotary puts beside a proof, so that one file is all it
// takes: the leaf itself and, if wanted, the value it commits to.
type Extra struct {
	Leaf     []byte
	HasValue bool
	Value    []byte
	Salt     [32]byte
	// Related are entries that this one goes back to, such as the one with the
	// text of a prepared statement: each proven against the same checkpoint.
	Related []Related
	// Succession is how the log's keys named one another, nil if it always had
	// one key: so a policy with an older key can follow (Policy.Follow).
	Succession []byte
}

// Related is another entry of the same tree, with its value.
type Related struct {
	Index  int64
	Hashes [][32]byte // inclusion proof
	Leaf   []byte
	Value  []byte
	Salt   [32]byte
}

// maxRelated bounds the related entries of a proof: a text and its parameters.
const maxRelated = 4

type relatedJSON struct {
	Index  int64    `json:"index"`
	Hashes [][]byte `json:"hashes"`
	Leaf   []byte   `json:"leaf"`
	Value  []byte   `json:"value"`
	Salt   []byte   `json:"salt"`
}

// extraJSON fixes the keys and their order.
type extraJSON struct {
	Leaf  []byte        `json:"leaf"`
	Value *[]byte       `json:"value,omitempty"`
	Salt  []byte        `json:"salt,omitempty"`
	Rel   []relatedJSON `json:"related,omitempty"`
	Succ  []byte        `json:"succession,omitempty"`
}

// Format returns the bytes of the proof file.
func (p *Proof) Format() []byte {
	b := []byte(proofHeader)
	if p.Extra != nil {
		b = base64.StdEncoding.AppendEncode(append(b, "extra "...), p.Extra)
		b = append(b, '\n')
	}
	b = strconv.AppendInt(append(b, "index "...), p.Index, 10)
	b = append(b, '\n')
	for i := range p.Hashes {
		b = append(base64.StdEncoding.AppendEncode(b, p.Hashes[i][:]), '\n')
	}
	b = append(b, '\n')
	return append(b, p.Checkpoint...)
}

// ParseProof decodes a proof file; it accepts exactly what Format writes
// around a well-formed checkpoint. Nothing is verified yet.
func ParseProof(b []byte) (*Proof, error) {
	if len(b) > MaxProof {
		return nil, fmt.Errorf("parse proof: %d bytes, want at most %d", len(b), MaxProof)
	}
	bad := func(what string) (*Proof, error) {
		return nil, fmt.Errorf("%w proof: %s", ErrMalformed, what)
	}
	head, signed, ok := bytes.Cut(b, []byte("\n\n"))
	text, ok2 := strings.CutPrefix(string(head)+"\n", proofHeader)
	if !ok || !ok2 {
		return bad("it does not begin with " + strings.TrimSpace(proofHeader) + " or has no checkpoint")
	}
	if _, err := parseNote(signed); err != nil {
		return nil, err
	}
	p := &Proof{Checkpoint: slices.Clone(signed)}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if x, ok := strings.CutPrefix(lines[0], "extra "); ok {
		raw, err := base64.StdEncoding.DecodeString(x)
		if err != nil {
			return bad("bad extra line")
		}
		p.Extra, lines = append([]byte{}, raw...), lines[1:]
	}
	if len(lines) == 0 {
		return bad("no index line")
	}
	x, ok := strings.CutPrefix(lines[0], "index ")
	index, err := strconv.ParseInt(x, 10, 64)
	if !ok || err != nil || index < 0 {
		return bad("bad index line")
	}
	p.Index, lines = index, lines[1:]
	if len(lines) > maxProofHashes {
		return bad(fmt.Sprintf("%d hashes, want at most %d", len(lines), maxProofHashes))
	}
	for _, l := range lines {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != sha256.Size {
			return bad("bad hash line")
		}
		p.Hashes = append(p.Hashes, [32]byte(h))
	}
	if !bytes.Equal(p.Format(), b) {
		return bad("not in canonical form")
	}
	return p, nil
}

// Verify returns the checkpoint of the proof if it satisfies the policy and
// the proof shows that the entry with that leaf hash is in its tree.
func (p *Proof) Verify(policy *Policy, leaf [32]byte) (Verified, error) {
	v, err := policy.Verify(p.Checkpoint)
	if err != nil {
		return v, err
	}
	return v, tree.CheckInclusion(p.Hashes, v.Size, v.Root, p.Index, leaf)
}

// VerifyRelated checks that the related entries are in the tree of v, which
// Verify returned. Their values are the caller's to compare with the leaves.
func (e *Extra) VerifyRelated(v *Verified) error {
	for i := range e.Related {
		r := &e.Related[i]
		if err := tree.CheckInclusion(r.Hashes, v.Size, v.Root, r.Index, tree.LeafHash(r.Leaf)); err != nil {
			return err
		}
	}
	return nil
}

// Format returns the bytes of the extra data.
func (e *Extra) Format() ([]byte, error) {
	size := len(e.Value)
	for i := range e.Related {
		size += len(e.Related[i].Value)
	}
	if size > MaxProofValue {
		return nil, fmt.Errorf("format proof: the values are %d bytes, a proof carries at most %d", size, MaxProofValue)
	}
	j := extraJSON{Leaf: nonNil(e.Leaf), Succ: e.Succession}
	if e.HasValue {
		value := nonNil(e.Value)
		j.Value, j.Salt = &value, e.Salt[:]
	}
	for i := range e.Related {
		r := &e.Related[i]
		hashes := [][]byte{}
		for k := range r.Hashes {
			hashes = append(hashes, r.Hashes[k][:])
		}
		j.Rel = append(j.Rel, relatedJSON{r.Index, hashes, nonNil(r.Leaf), nonNil(r.Value), r.Salt[:]})
	}
	return json.Marshal(j)
}

// nonNil makes an empty slice encode as "" and not as null.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// ErrNoLeaf is returned for extra data that is not pgnotary's.
var ErrNoLeaf = errors.New("the proof does not carry its entry")

// ParseExtra decodes what Extra.Format wrote, and nothing else. Nothing in it
// is to be believed before the leaf's hash and the value's commitment fit.
func ParseExtra(b []byte) (*Extra, error) {
	var j extraJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoLeaf, err)
	}
	e := &Extra{Leaf: j.Leaf, Succession: j.Succ}
	if j.Value != nil {
		e.HasValue, e.Value = true, *j.Value
		if len(j.Salt) != len(e.Salt) {
			return nil, fmt.Errorf("%w: bad salt", ErrNoLeaf)
		}
		e.Salt = [32]byte(j.Salt)
	}
	if len(j.Rel) > maxRelated {
		return nil, fmt.Errorf("%w: %d related entries, want at most %d", ErrNoLeaf, len(j.Rel), maxRelated)
	}
	for _, r := range j.Rel {
		if len(r.Salt) != len(e.Salt) || len(r.Hashes) > maxProofHashes || r.Index < 0 {
			return nil, fmt.Errorf("%w: malformed related entry", ErrNoLeaf)
		}
		one := Related{Index: r.Index, Leaf: r.Leaf, Value: r.Value, Salt: [32]byte(r.Salt)}
		for _, h := range r.Hashes {
			if len(h) != sha256.Size {
				return nil, fmt.Errorf("%w: malformed related entry", ErrNoLeaf)
			}
			one.Hashes = append(one.Hashes, [32]byte(h))
		}
		e.Related = append(e.Related, one)
	}
	again, err := e.Format()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: extra data not in canonical form", ErrNoLeaf)
	}
	return e, nil
}
