package checkpoint

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func testCosigner(t testing.TB, seed byte) *Cosigner {
	t.Helper()
	skey, vkey, err := GenerateWitnessKey(rand.NewChaCha8([32]byte{seed}), "witness.example/1")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseWitnessKey(skey + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.VKey() != vkey {
		t.Fatalf("key %s, want %s", c.VKey(), vkey)
	}
	if _, err := NewSigner(skey); err != nil {
		t.Logf("as a log's key: %v", err)
	}
	if _, err := VKey(skey); !errors.Is(err, ErrKey) {
		t.Errorf("the key of a witness passes for a log's: %v", err)
	}
	return c
}

func TestCosign(t *testing.T) {
	skey, vkey, err := GenerateKey(rand.NewChaCha8([32]byte{1}), "log.example/1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Sign(s, "log.example/1", 7, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open(signed, vkey)
	if err != nil {
		t.Fatal(err)
	}
	w, other := testCosigner(t, 2), testCosigner(t, 3)
	line, err := w.Cosign(c, 1000)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.Cosign(c, 2000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Cosign(c, -1); err == nil {
		t.Error("a time before 1970 is signed")
	}
	got, at, err := AddCosignature(signed, append(theirs, line...), w.VKey())
	if err != nil || at != 1000 || string(got) != string(signed)+string(line) {
		t.Errorf("%s, %d, %v, want that witness's line only", got, at, err)
	}
	later, err := w.Cosign(c, 3000)
	if err != nil {
		t.Fatal(err)
	}
	if again, at, err := AddCosignature(got, later, w.VKey()); err != nil || at != 3000 || string(again) != string(signed)+string(later) {
		t.Errorf("%s, %d, %v, want the later line in place of the other", again, at, err)
	}
	if bare, err := SignedBy(got, vkey); err != nil || !bytes.Equal(bare, signed) {
		t.Errorf("%s, %v, want the log's line only", bare, err)
	}
	if at, err := CosignatureTime(got, w.VKey()); err != nil || at != 1000 {
		t.Errorf("time %d, %v, want 1000", at, err)
	}
	if _, key, err := OpenAny(got, []string{w.VKey(), vkey}); err != nil || key != vkey {
		t.Errorf("opened with %s, %v", key, err)
	}
	for name, lines := range map[string]string{
		"none": "", "another's": string(theirs), "twice": string(line) + string(later), "no line feed": strings.TrimSuffix(string(line), "\n"),
		"of another checkpoint": strings.Replace(string(line), "A", "B", 1), "huge": strings.Repeat("x", MaxBytes+1),
	} {
		if _, _, err := AddCosignature(signed, []byte(lines), w.VKey()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, _, err := AddCosignature(signed, line, vkey); !errors.Is(err, ErrKey) {
		t.Errorf("with the key of a log: %v, want %v", err, ErrKey)
	}

	policy, err := ParsePolicy([]byte("log " + vkey + "\nwitness A " + w.VKey() + "\nwitness B " + other.VKey() + "\ngroup G any A B\nquorum G\n"))
	if err != nil {
		t.Fatal(err)
	}
	both := append(append(bytes.Clone(signed), line...), theirs...)
	v, err := policy.Verify(both)
	if err != nil || policy.WitnessedAt(&v) != 2000 {
		t.Errorf("any of two: %d, %v, want 2000, the later", policy.WitnessedAt(&v), err)
	}
	if policy, err = ParsePolicy([]byte("witness A " + w.VKey() + "\nwitness B " + other.VKey() + "\ngroup G all A B\nquorum G\n")); err != nil {
		t.Fatal(err)
	}
	if policy, err = policy.ForLog(vkey); err != nil {
		t.Fatal(err)
	}
	if v, err = policy.Verify(both); err != nil || policy.WitnessedAt(&v) != 1000 {
		t.Errorf("both: %d, %v, want 1000, the earlier", policy.WitnessedAt(&v), err)
	}
}

// liar is a signer that signs something else, as a broken agent might.
type liar struct{ ed25519.PrivateKey }

func (l liar) Sign(r io.Reader, msg []byte, o crypto.SignerOpts) ([]byte, error) {
	return l.PrivateKey.Sign(r, append(msg, 'x'), o)
}

func TestSignerElsewhere(t *testing.T) {
	priv := ed25519.NewKeyFromSeed(make([]byte, 32))
	s, err := SignerOf("log.example/1", liar{priv})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(s, "log.example/1", 7, [32]byte{1}); err == nil {
		t.Error("a wrong signature of a signer was taken")
	}
	if _, err := SignerOf("not a name", priv); err == nil {
		t.Error("a bad origin was taken")
	}
}
