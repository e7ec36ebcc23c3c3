package checkpoint

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"
)

// heirs returns keys of one log, each the successor of the one before, and the file.
func heirs(t testing.TB, n int) (keys []crypto.Signer, vkeys []string, file []byte) {
	t.Helper()
	for i := range n {
		priv := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, 32))
		v, err := VKeyOf("log.example/1", priv)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			s, err := NewSuccessor("log.example/1", keys[i-1], priv)
			if err != nil {
				t.Fatal(err)
			}
			file = append(file, s.Format()...)
		}
		keys, vkeys = append(keys, priv), append(vkeys, v)
	}
	return keys, vkeys, file
}

func TestSuccession(t *testing.T) {
	keys, want, file := heirs(t, 4)
	got, err := ParseSuccession(file, want[0])
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%q, %v, want %q", got, err, want)
	}
	if got, err := ParseSuccession(nil, want[0]); err != nil || len(got) != 1 {
		t.Errorf("no successor: %q, %v", got, err)
	}
	for i := range file {
		b := bytes.Clone(file)
		b[i] ^= 1 << (i % 8)
		if _, err := ParseSuccession(b, want[0]); err == nil {
			t.Errorf("byte %d altered, and it is accepted", i)
		}
	}
	lines := bytes.SplitAfter(file, []byte("\n"))
	for name, b := range map[string][]byte{
		"one left out": append(bytes.Clone(lines[0]), lines[2]...), "exchanged": append(bytes.Clone(lines[1]), lines[0]...),
		"twice": append(bytes.Clone(lines[0]), lines[0]...), "cut": file[:len(file)-1],
	} {
		if _, err := ParseSuccession(b, want[0]); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ParseSuccession(file, want[1]); !errors.Is(err, ErrSignature) {
		t.Errorf("from another key: %v, want %v", err, ErrSignature)
	}
	if _, err := NewSuccessor("log.example/1", keys[0], keys[0]); err == nil {
		t.Error("a key succeeds itself")
	}

	// A policy follows from the key it trusts on, and not back.
	s, err := SignerOf("log.example/1", keys[3])
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Sign(s, "log.example/1", 7, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := ParsePolicy([]byte(FormatPolicy(want[1], "")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Verify(signed); !errors.Is(err, ErrSignature) {
		t.Errorf("without the succession: %v, want %v", err, ErrSignature)
	}
	followed := policy.Follow(file)
	if v, err := followed.Verify(signed); err != nil || v.VKey != want[3] {
		t.Errorf("with the succession: %s, %v", v.VKey, err)
	}
	if _, err := policy.Follow(file[:len(file)-9]).Verify(signed); !errors.Is(err, ErrSignature) {
		t.Errorf("with a succession that is cut: %v, want %v", err, ErrSignature)
	}
	if slices.Contains(followed.VKeys(), want[0]) || len(policy.VKeys()) != 1 {
		t.Errorf("the policy trusts %q, before %q", followed.VKeys(), policy.VKeys())
	}
}

func FuzzSuccession(f *testing.F) {
	_, vkeys, file := heirs(f, 3)
	f.Add(file)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseSuccession(b, vkeys[0])
		if err == nil && len(got) != 1+bytes.Count(b, []byte("\n")) {
			t.Errorf("%q gives %d keys", b, len(got))
		}
	})
}
