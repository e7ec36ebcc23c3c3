package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// testKey returns a key pair that is the same in every run.
func testKey(t testing.TB, origin string, seed byte) (Signer, string) {
	t.Helper()
	skey, vkey, err := GenerateKey(rand.NewChaCha8([32]byte{seed}), origin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

func testCheckpoint(t testing.TB, s Signer, size int64) []byte {
	t.Helper()
	signed, err := Sign(s, s.Name(), size, sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(size))))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// witness is a cosigner made for tests.
type witness struct {
	key
	priv ed25519.PrivateKey
}

func testWitness(name string, seed byte) witness {
	priv := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
	return witness{newKey(name, algCosignature, priv.Public().(ed25519.PublicKey)), priv}
}

// cosign returns the witness's signature line for a signed checkpoint.
func (w witness) cosign(signed []byte, time uint64) []byte {
	text, _, _ := strings.Cut(string(signed), "\n\n")
	msg := fmt.Sprintf("cosignature/v1\ntime %d\n%s\n", time, text)
	sig := append(binary.BigEndian.AppendUint64(nil, time), ed25519.Sign(w.priv, []byte(msg))...)
	return sigLine{w.name, w.id, sig}.append(nil)
}

func TestSignOpen(t *testing.T) {
	s, vkey := testKey(t, "pgnotary/db1/3f2a91c0", 1)
	signed := testCheckpoint(t, s, 70000)
	want := "pgnotary/db1/3f2a91c0\n70000\n"
	if !strings.HasPrefix(string(signed), want) {
		t.Fatalf("Sign = %q, want it to begin with %q", signed, want)
	}
	c, err := Open(signed, vkey)
	if err != nil || c.Origin != "pgnotary/db1/3f2a91c0" || c.Size != 70000 || c.Text()+"\n" != string(signed[:len(c.Text())+1]) {
		t.Errorf("Open = %+v, %v", c, err)
	}
	// x/mod's reader must agree.
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := note.Open(signed, note.VerifierList(v)); err != nil || n.Text != c.Text() {
		t.Errorf("note.Open = %+v, %v, want the same text", n, err)
	}
	if _, err := Sign(s, "another", 1, [32]byte{}); err == nil {
		t.Error("Sign for another origin succeeded, want an error")
	}
	if _, err := Sign(s, s.Name(), -1, [32]byte{}); err == nil {
		t.Error("Sign of size -1 succeeded, want an error")
	}
}

// TestOpenFindsEveryFlippedBit is row 1 of the tamper matrix for checkpoints.
func TestOpenFindsEveryFlippedBit(t *testing.T) {
	s, vkey := testKey(t, "log", 1)
	signed := testCheckpoint(t, s, 70000)
	for i := range len(signed) * 8 {
		b := bytes.Clone(signed)
		b[i/8] ^= 1 << (i % 8)
		if _, err := Open(b, vkey); err == nil {
			t.Errorf("Open accepts bit %d of byte %d flipped: %q", i%8, i/8, b)
		}
	}
	for i := range signed {
		if _, err := Open(signed[:i], vkey); err == nil {
			t.Errorf("Open accepts the first %d bytes of %d", i, len(signed))
		}
	}
}

func TestOpenRejects(t *testing.T) {
	s, vkey := testKey(t, "log", 1)
	s2, vkey2 := testKey(t, "log", 2)
	other, otherKey := testKey(t, "other", 3)
	good := string(testCheckpoint(t, s, 7))
	w := testWitness("w", 9)
	line := good[strings.Index(good, "— "):]
	resign := func(text string) string {
		b, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, tt := range []struct{ name, signed, vkey string }{
		{"empty", "", vkey},
		{"key of another log", good, otherKey},
		{"another key of the same name", good, vkey2},
		{"checkpoint of another log", string(testCheckpoint(t, other, 7)), vkey},
		{"signed by another key of the same name", string(testCheckpoint(t, s2, 7)), vkey},
		{"signature twice", good + line, vkey},
		{"bytes behind", good + "x", vkey},
		{"line feed behind", good + "\n", vkey},
		{"carriage returns", strings.ReplaceAll(good, "\n", "\r\n"), vkey},
		{"line feed within base64", good[:len(good)-9] + "\n" + good[len(good)-9:], vkey},
		{"extension line", resign("log\n7\n" + root + "\nextension\n"), vkey},
		{"leading zero", resign("log\n07\n" + root + "\n"), vkey},
		{"plus sign", resign("log\n+7\n" + root + "\n"), vkey},
		{"negative size", resign("log\n-7\n" + root + "\n"), vkey},
		{"size beyond all bounds", resign("log\n9223372036854775807\n" + root + "\n"), vkey},
		{"size over 64 bits", resign("log\n18446744073709551617\n" + root + "\n"), vkey},
		{"short root", resign("log\n7\n" + root[:40] + "\n"), vkey},
		{"spare bits in root", resign("log\n7\n" + root[:42] + "B=\n"), vkey},
		{"empty tree with a wrong root", resign("log\n0\n" + root + "\n"), vkey},
		{"missing root", resign("log\n7\n"), vkey},
		{"blank line first", "\n" + good, vkey},
		{"malformed line of another key", good + "— w !!!\n", vkey},
		{"short line of another key", good + "— w AAAA\n", vkey},
		{"plain hyphen", strings.Replace(good, "— ", "- ", 1), vkey},
		{"vkey of a witness", good, w.String()},
		{"vkey in capitals", good, strings.ToUpper(vkey)},
		{"vkey with a line feed", good, vkey + "\n"},
	} {
		if c, err := Open([]byte(tt.signed), tt.vkey); err == nil {
			t.Errorf("%s: Open = %+v, want an error", tt.name, c)
		}
	}
	withWitness := append([]byte(good), w.cosign([]byte(good), 1700000000)...)
	if _, err := Open(withWitness, vkey); err != nil {
		t.Errorf("Open with a cosignature of an unknown key: %v", err)
	}
	if _, n, err := Parse(withWitness); err != nil || n != 2 {
		t.Errorf("Parse = %d signatures, %v, want 2", n, err)
	}
	if _, err := Open([]byte(strings.Repeat(good, 1)+strings.Repeat(string(w.cosign([]byte(good), 1)), maxSignatures)), vkey); err == nil {
		t.Error("Open accepts more signatures than the bound")
	}
}

func TestKeys(t *testing.T) {
	skey, vkey, err := GenerateKey(rand.NewChaCha8([32]byte{1}), "log")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{skey, skey + "\n"} {
		if got, err := VKey(s); err != nil || got != vkey {
			t.Errorf("VKey = %s, %v, want %s", got, err, vkey)
		}
		if _, err := NewSigner(s); err != nil {
			t.Errorf("NewSigner: %v", err)
		}
	}
	if o, err := Origin(vkey); err != nil || o != "log" {
		t.Errorf("Origin = %q, %v, want log", o, err)
	}
	if k, err := parseKey(vkey); err != nil || k.String() != vkey {
		t.Errorf("parseKey(%s) = %v, %v", vkey, k, err)
	}
	for _, name := range []string{"", "a b", "a+b", "a\nb", "a\x00", "a\u00a0b", "\xff", strings.Repeat("a", 256)} {
		if _, _, err := GenerateKey(rand.NewChaCha8([32]byte{}), name); err == nil {
			t.Errorf("GenerateKey(%q) succeeded, want an error", name)
		}
	}
	// Row 1 of the tamper matrix for key files, and no error shows the key.
	for i := range len(skey) * 8 {
		b := []byte(skey)
		b[i/8] ^= 1 << (i % 8)
		_, err := NewSigner(string(b))
		if err == nil {
			t.Errorf("NewSigner accepts bit %d of byte %d flipped", i%8, i/8)
		} else if strings.Contains(err.Error(), skey[20:]) || strings.Contains(err.Error(), skey[len(skey)-20:]) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	for i := range len(vkey) * 8 {
		b := []byte(vkey)
		b[i/8] ^= 1 << (i % 8)
		if _, err := parseKey(string(b)); err == nil {
			t.Errorf("parseKey accepts bit %d of byte %d flipped", i%8, i/8)
		}
	}
}

func FuzzOpen(f *testing.F) {
	s, vkey := testKey(f, "log", 1)
	good := testCheckpoint(f, s, 7)
	f.Add(good)
	f.Add(append(good, testWitness("w", 9).cosign(good, 5)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseNote(b)
		if err != nil {
			return
		}
		again := []byte(n.Text() + "\n")
		for _, l := range n.sigs {
			again = l.append(again)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("parsed and encoded again: %q, want %q", again, b)
		}
		if c, err := Open(b, vkey); err == nil && c.Text() != "log\n7\n"+strings.SplitN(string(good), "\n", 4)[2]+"\n" {
			t.Errorf("Open accepts a forged checkpoint %+v", c)
		}
		if !errors.Is(func() error { _, err := Open(b[:len(b)-1], vkey); return err }(), ErrMalformed) {
			t.Errorf("Open accepts %q without its last byte", b)
		}
	})
}
