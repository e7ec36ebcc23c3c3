package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// key9 is a private key that a test's attacker has.
func key9(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }

func signedBy9(t *testing.T, origin string, priv ed25519.PrivateKey, size int64, root [32]byte) []byte {
	t.Helper()
	s, err := SignerOf(origin, priv)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Sign(s, origin, size, root)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// TestSameKeyOtherOrigin is row 9 of the tamper matrix: two logs have one key,
// and what the one signed is shown as the other's.
func TestSameKeyOtherOrigin(t *testing.T) {
	leaf := tree.LeafHash([]byte("{}"))
	theirs := signedBy9(t, "log.example/2", key9(1), 1, leaf)
	mine, err := VKeyOf("log.example/1", key9(1))
	if err != nil {
		t.Fatal(err)
	}
	policy, err := ParsePolicy([]byte(FormatPolicy(mine, "")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(theirs, mine); err == nil {
		t.Error("opened")
	}
	if _, err := policy.Verify(theirs); !errors.Is(err, ErrSignature) {
		t.Errorf("under a policy: %v, want %v", err, ErrSignature)
	}
	if _, err := (&Proof{Index: 0, Checkpoint: theirs}).Verify(policy, leaf); !errors.Is(err, ErrSignature) {
		t.Errorf("in a proof: %v, want %v", err, ErrSignature)
	}
	ours := signedBy9(t, "log.example/1", key9(1), 2, tree.NodeHash(&leaf, &leaf))
	if _, _, err := (&Consistency{Hashes: [][32]byte{leaf}, Old: theirs, New: ours}).Verify(policy); err == nil {
		t.Error("in a consistency proof: accepted")
	}
	// The origin's line exchanged: the key id is another, and so is the text.
	renamed := bytes.ReplaceAll(theirs, []byte("log.example/2"), []byte("log.example/1"))
	if _, err := policy.Verify(renamed); !errors.Is(err, ErrSignature) {
		t.Errorf("renamed: %v, want %v", err, ErrSignature)
	}
}

// line9 makes a cosignature line by hand: name and id are whatever the attacker writes.
func line9(name string, id uint32, priv ed25519.PrivateKey, text string, time uint64) []byte {
	sig := append(binary.BigEndian.AppendUint64(nil, time), ed25519.Sign(priv, cosigned(text, time))...)
	return sigLine{name, id, sig}.append(nil)
}

// TestForgedCosignatures is row 10 of the tamper matrix: the attacker has the log's key
// and none of the witness's, and everything that was ever cosigned.
func TestForgedCosignatures(t *testing.T) {
	w := key9(2)
	k := newKey("witness.example/1", algCosignature, w.Public().(ed25519.PublicKey))
	vkey, err := VKeyOf("log.example/1", key9(1))
	if err != nil {
		t.Fatal(err)
	}
	policy, err := ParsePolicy([]byte("log " + vkey + "\nwitness W " + k.String() + "\nquorum W\n"))
	if err != nil {
		t.Fatal(err)
	}
	old := signedBy9(t, "log.example/1", key9(1), 5, [32]byte{1})
	forged := signedBy9(t, "log.example/1", key9(1), 5, [32]byte{2})
	text := func(signed []byte) string { return string(signed[:bytes.Index(signed, []byte("\n\n"))+1]) }
	good := line9(k.name, k.id, w, text(old), 1000)
	if _, err := policy.Verify(append(bytes.Clone(old), good...)); err != nil {
		t.Fatalf("the true cosignature: %v", err)
	}
	thief := key9(3)
	other := newKey(k.name, algCosignature, thief.Public().(ed25519.PublicKey))
	asLog := newKey(k.name, algEd25519, w.Public().(ed25519.PublicKey))
	raw, err := base64.StdEncoding.DecodeString(string(bytes.Fields(good)[2]))
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint64(raw[4:], 9000)
	restamped := sigLine{k.name, k.id, raw[4:]}.append(nil)
	for _, tt := range []struct {
		name string
		line []byte
		on   []byte
		want error
	}{
		{"stripped", nil, old, ErrQuorum},
		{"another key of the witness's name", line9(other.name, other.id, thief, text(forged), 1000), forged, ErrQuorum},
		{"another key with the witness's name and id", line9(k.name, k.id, thief, text(forged), 1000), forged, ErrSignature},
		{"moved from another checkpoint", good, forged, ErrSignature},
		{"with a later time", restamped, old, ErrSignature},
		{"without the time", sigLine{k.name, k.id, ed25519.Sign(w, []byte(text(old)))}.append(nil), old, ErrSignature},
		{"a log's signature by the witness's key", sigLine{asLog.name, asLog.id, ed25519.Sign(w, []byte(text(old)))}.append(nil), old, ErrQuorum},
		{"true and forged", append(bytes.Clone(good), line9(k.name, k.id, thief, text(old), 2000)...), old, ErrMalformed},
		{"in the name of another witness", line9("witness.example/2", k.id, w, text(old), 1000), old, ErrQuorum},
	} {
		if _, err := policy.Verify(append(bytes.Clone(tt.on), tt.line...)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// The log's own key exchanged: another key of the same origin.
	swapped := signedBy9(t, "log.example/1", thief, 5, [32]byte{1})
	if _, err := policy.Verify(append(swapped, good...)); !errors.Is(err, ErrSignature) {
		t.Errorf("another key of the log: %v, want %v", err, ErrSignature)
	}
	if _, err := ParsePolicy([]byte("log " + vkey + "\nwitness W " + asLog.String() + "\nquorum W\n")); err == nil {
		t.Error("a policy takes a log's key for a witness's")
	}
}
