package checkpoint

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgnotary/pgnotary/internal/tree"
)

// leaves is a tree source over level 0 of a tree of fewer than 256 leaves.
type leaves [][32]byte

func (l leaves) Tile(_ int, _ int64, width int) ([]byte, error) {
	var b []byte
	for _, h := range l[:width] {
		b = append(b, h[:]...)
	}
	return b, nil
}

// testProof returns a proof of entry 3 of a log of 7, its policy and leaf.
func testProof(t testing.TB) (*Proof, *Policy, []byte) {
	t.Helper()
	s, vkey := testKey(t, "log", 1)
	var src leaves
	for i := range byte(7) {
		src = append(src, tree.LeafHash([]byte{'a' + i}))
	}
	root, err := tree.RootAt(src, 7)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Sign(s, "log", 7, root)
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := tree.Inclusion(src, 3, 7)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := ParsePolicy([]byte(FormatPolicy(vkey, "")))
	if err != nil {
		t.Fatal(err)
	}
	e := Extra{Leaf: []byte("d"), HasValue: true, Value: []byte("value"), Salt: [32]byte{1}}
	extra, err := e.Format()
	if err != nil {
		t.Fatal(err)
	}
	return &Proof{Extra: extra, Index: 3, Hashes: hashes, Checkpoint: signed}, policy, e.Leaf
}

func TestProof(t *testing.T) {
	p, policy, leaf := testProof(t)
	b := p.Format()
	if want := "c2sp.org/tlog-proof@v1\nextra "; !strings.HasPrefix(string(b), want) {
		t.Errorf("Format = %q, want it to begin with %q", b, want)
	}
	got, err := ParseProof(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p, got); d != "" {
		t.Errorf("ParseProof(Format) differs:\n%s", d)
	}
	v, err := got.Verify(policy, tree.LeafHash(leaf))
	if err != nil || v.Size != 7 || v.Origin != "log" {
		t.Errorf("Verify = %+v, %v", v, err)
	}
	e, err := ParseExtra(got.Extra)
	if err != nil || string(e.Leaf) != "d" || !e.HasValue || string(e.Value) != "value" || e.Salt != [32]byte{1} {
		t.Errorf("ParseExtra = %+v, %v", e, err)
	}
	if _, err := got.Verify(policy, tree.LeafHash([]byte("e"))); err == nil {
		t.Error("Verify accepts another leaf")
	}
}

// TestProofTamper is row 26 of the tamper matrix: whatever is not the proof
// either does not parse or does not verify.
func TestProofTamper(t *testing.T) {
	p, policy, leaf := testProof(t)
	good := p.Format()
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		q, err := ParseProof(b)
		if err != nil {
			continue
		}
		if _, err := q.Verify(policy, tree.LeafHash(leaf)); err == nil && bytes.Equal(q.Extra, p.Extra) {
			t.Errorf("a flipped bit %d of byte %d is accepted", i%8, i/8)
		}
	}
	other := func(change func(p *Proof)) []byte {
		q := *p
		q.Hashes = append([][32]byte(nil), p.Hashes...)
		change(&q)
		return q.Format()
	}
	s, _ := testKey(t, "log", 1)
	for _, tt := range []struct {
		name string
		b    []byte
	}{
		{"empty", nil},
		{"wrong index", other(func(p *Proof) { p.Index = 2 })},
		{"index beyond the tree", other(func(p *Proof) { p.Index = 7 })},
		{"negative index", other(func(p *Proof) { p.Index = -1 })},
		{"hash more", other(func(p *Proof) { p.Hashes = append(p.Hashes, [32]byte{}) })},
		{"hash less", other(func(p *Proof) { p.Hashes = p.Hashes[1:] })},
		{"too many hashes", other(func(p *Proof) { p.Hashes = make([][32]byte, 64) })},
		{"another checkpoint", other(func(p *Proof) { p.Checkpoint = testCheckpoint(t, s, 7) })},
		{"smaller checkpoint", other(func(p *Proof) { p.Checkpoint = testCheckpoint(t, s, 3) })},
		{"no checkpoint", other(func(p *Proof) { p.Checkpoint = nil })},
		{"carriage returns", bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n"))},
		{"version 2", bytes.Replace(good, []byte("@v1"), []byte("@v2"), 1)},
		{"index with zero", bytes.Replace(good, []byte("index 3"), []byte("index 03"), 1)},
		{"index with sign", bytes.Replace(good, []byte("index 3"), []byte("index +3"), 1)},
		{"extra twice", bytes.Replace(good, []byte("index"), []byte("extra AAAA\nindex"), 1)},
		{"extra behind the index", bytes.Replace(other(func(p *Proof) { p.Extra = nil }), []byte("index 3\n"), []byte("index 3\nextra AAAA\n"), 1)},
		{"no index", bytes.Replace(good, []byte("index 3\n"), nil, 1)},
		{"header alone", []byte(proofHeader + "\n" + string(p.Checkpoint))},
		{"huge line", append(append([]byte(proofHeader+"extra "), bytes.Repeat([]byte("A"), 4<<20)...), good[len(proofHeader):]...)},
		{"larger than any", make([]byte, MaxProof+1)},
	} {
		q, err := ParseProof(tt.b)
		if err != nil {
			continue
		}
		if _, err := q.Verify(policy, tree.LeafHash(leaf)); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
}

func TestExtra(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    Extra
		want string
	}{
		{"leaf", Extra{Leaf: []byte("d")}, `{"leaf":"ZA=="}`},
		{"empty leaf", Extra{}, `{"leaf":""}`},
		{
			"empty value",
			Extra{Leaf: []byte("d"), HasValue: true},
			`{"leaf":"ZA==","value":"","salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`,
		},
	} {
		b, err := tt.e.Format()
		if err != nil || string(b) != tt.want {
			t.Errorf("%s: Format = %s, %v, want %s", tt.name, b, err, tt.want)
		}
		if e, err := ParseExtra(b); err != nil || e.HasValue != tt.e.HasValue || !bytes.Equal(e.Leaf, tt.e.Leaf) || !bytes.Equal(e.Value, tt.e.Value) {
			t.Errorf("%s: ParseExtra = %+v, %v", tt.name, e, err)
		}
	}
	salt := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, s := range []string{
		``, `{}`, `null`, `[]`, `{"leaf":null}`, `{"Leaf":"ZA=="}`, ` {"leaf":"ZA=="}`, `{"leaf":"ZA==","x":1}`, `{"leaf":"ZB=="}`,
		`{"leaf":"ZA==","leaf":"ZQ=="}`, `{"leaf":"ZA==","value":"AA=="}`, `{"leaf":"ZA==","salt":"` + salt + `"}`,
		`{"leaf":"ZA==","value":"AA==","salt":"AA=="}`, `{"leaf":"ZA==","salt":"` + salt + `","value":"AA=="}`,
	} {
		if e, err := ParseExtra([]byte(s)); !errors.Is(err, ErrNoLeaf) {
			t.Errorf("ParseExtra(%s) = %+v, %v, want %v", s, e, err, ErrNoLeaf)
		}
	}
	if _, err := (&Extra{Value: make([]byte, MaxProofValue+1)}).Format(); err == nil {
		t.Error("Format of a value over the bound succeeded, want an error")
	}
}

func FuzzParseProof(f *testing.F) {
	p, policy, leaf := testProof(f)
	f.Add(p.Format())
	f.Add((&Proof{Index: 3, Hashes: p.Hashes, Checkpoint: p.Checkpoint}).Format())
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := ParseProof(b)
		if err != nil {
			return
		}
		if !bytes.Equal(q.Format(), b) {
			t.Errorf("parsed and formatted again: %q, want %q", q.Format(), b)
		}
		if _, err := q.Verify(policy, tree.LeafHash(leaf)); err == nil && q.Index != 3 {
			t.Errorf("a proof for index %d is accepted", q.Index)
		}
	})
}

func FuzzParseExtra(f *testing.F) {
	f.Add([]byte(`{"leaf":"ZA==","value":"","salt":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseExtra(b)
		if err != nil {
			return
		}
		if again, err := e.Format(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("parsed and formatted again: %q, %v, want %q", again, err, b)
		}
	})
}
