package checkpoint

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// consistencies returns two histories' checkpoints of sizes 1 and 2, all signed.
func consistencies(t testing.TB) (vkey string, one, two, fork []byte, proof [][32]byte) {
	t.Helper()
	skey, vkey, err := GenerateKey(rand.NewChaCha8([32]byte{1}), "log.example/1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	a, b, x := tree.LeafHash([]byte("a")), tree.LeafHash([]byte("b")), tree.LeafHash([]byte("x"))
	sign := func(size int64, root [32]byte) []byte {
		signed, err := Sign(s, "log.example/1", size, root)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	return vkey, sign(1, a), sign(2, tree.NodeHash(&a, &b)), sign(1, x), [][32]byte{b}
}

func TestConsistency(t *testing.T) {
	vkey, one, two, fork, proof := consistencies(t)
	policy, err := ParsePolicy([]byte(FormatPolicy(vkey, "")))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		c    Consistency
		want string
	}{
		{"sound", Consistency{Hashes: proof, Old: one, New: two}, ""},
		{"the same", Consistency{Hashes: nil, Old: two, New: two}, ""},
		{"another history", Consistency{Hashes: proof, Old: fork, New: two}, "invalid"},
		{"backwards", Consistency{Hashes: proof, Old: two, New: one}, "not within"},
		{"no proof", Consistency{Hashes: nil, Old: one, New: two}, "invalid"},
		{"one hash too many", Consistency{Hashes: append(proof[:1:1], proof[0]), Old: one, New: two}, "invalid"},
	} {
		c, err := ParseConsistency(tt.c.Format())
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		old, later, err := c.Verify(policy)
		if tt.want == "" && (err != nil || old.Size > later.Size || later.Size != 2) {
			t.Errorf("%s: %d, %d, %v", tt.name, old.Size, later.Size, err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	good := (&Consistency{Hashes: proof, Old: one, New: two}).Format()
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 8)
		c, err := ParseConsistency(b)
		if err == nil {
			_, _, err = c.Verify(policy)
		}
		if err == nil {
			t.Errorf("byte %d altered, and it is valid:\n%s", i, b)
		}
	}
	for _, b := range [][]byte{nil, good[:len(good)-1], append(bytes.Clone(good), '\n'), bytes.Repeat([]byte("x"), maxConsistency+1)} {
		if _, err := ParseConsistency(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %v, want %v", b, err, ErrMalformed)
		}
	}
}

func FuzzConsistency(f *testing.F) {
	_, one, two, _, proof := consistencies(f)
	f.Add((&Consistency{Hashes: proof, Old: one, New: two}).Format())
	f.Add((&Consistency{Hashes: proof, Old: one, New: two, Succession: []byte("x")}).Format())
	f.Add((&Consistency{Hashes: nil, Old: one, New: one}).Format())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseConsistency(b); err == nil && !bytes.Equal(c.Format(), b) {
			t.Errorf("%q becomes %q", b, c.Format())
		}
	})
}
