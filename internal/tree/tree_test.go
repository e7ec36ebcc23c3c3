package tree

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"
)

// leaf returns the leaf hash of test entry i.
func leaf(i int64) Hash {
	return LeafHash(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// naive is the tree as x/mod stores it: every node, computed there.
type naive []tlog.Hash

func (s *naive) appendAt(n int64, h Hash) {
	hs, err := tlog.StoredHashesForRecordHash(n, tlog.Hash(h), s)
	if err != nil {
		panic(err)
	}
	*s = append(*s, hs...)
}

func (s *naive) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = (*s)[x]
	}
	return out, nil
}

// Tile implements Source.
func (s *naive) Tile(level int, n int64, width int) ([]byte, error) {
	return tlog.ReadTileData(tlog.Tile{H: 8, L: level, N: n, W: width}, s)
}

func TestHashesAreThoseOfTlog(t *testing.T) {
	for _, n := range []int{0, 1, 100, 1022, 1023, 1024, 1025, 70000} {
		b := bytes.Repeat([]byte{7}, n)
		if got, want := LeafHash(b), Hash(tlog.RecordHash(b)); got != want {
			t.Errorf("LeafHash of %d bytes = %x, want %x", n, got, want)
		}
	}
	l, r := leaf(1), leaf(2)
	if got, want := NodeHash(&l, &r), Hash(tlog.NodeHash(tlog.Hash(l), tlog.Hash(r))); got != want {
		t.Errorf("NodeHash = %x, want %x", got, want)
	}
}

// TestBuilder grows a tree past two levels and compares every root, every full
// tile and, at multiples of 256, the tree restored from Tiles.
func TestBuilder(t *testing.T) {
	const last = 66100
	b := New()
	var s naive
	full := 0
	b.OnFull = func(level int, n int64, tile []byte) {
		full++
		// x/mod has the nodes of the leaf being added only after Append.
		got := bytes.Clone(tile)
		t.Cleanup(func() {
			want, err := s.Tile(level, n, Width)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("tile %d/%d differs (%v)", level, n, err)
			}
		})
	}
	for i := int64(0); i <= last; i++ {
		if b.Size() != i {
			t.Fatalf("Size = %d, want %d", b.Size(), i)
		}
		if i < 1300 || i%251 == 0 || i%Width < 2 || i >= last-1 {
			want, err := tlog.TreeHash(i, &s)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Root(); got != Hash(want) {
				t.Fatalf("Root at %d = %x, want %x", i, got, want)
			}
		}
		if i%Width == 0 && (i%(13*Width) == 0 || i > 255*Width) {
			r, err := Restore(i, b.Tiles())
			if err != nil {
				t.Fatal(err)
			}
			if r.Root() != b.Root() {
				t.Fatalf("Restore(%d).Root = %x, want %x", i, r.Root(), b.Root())
			}
			if d := cmp.Diff(b.Tiles(), r.Tiles()); d != "" {
				t.Fatalf("Restore(%d).Tiles differ:\n%s", i, d)
			}
			// The two must also grow alike.
			r.OnFull, b = b.OnFull, r
		}
		s.appendAt(i, leaf(i))
		b.Append(leaf(i))
	}
	if full != 1 {
		t.Errorf("OnFull was called %d times, want 1", full)
	}
}

func TestTilesLeaveOutEmptyLevels(t *testing.T) {
	b := New()
	for i := int64(0); i < Width*Width; i++ {
		if want := min(int(i/Width), 1); i%Width == 0 && len(b.Tiles()) != want {
			t.Fatalf("len(Tiles()) at %d = %d, want %d", i, len(b.Tiles()), want)
		}
		b.Append(leaf(i))
	}
	got := b.Tiles()
	if len(got) != 2 || len(got[0]) != 0 || len(got[1]) != 1 || got[1][0] != b.Root() {
		t.Errorf("Tiles at 65536 = %v, want level 1 empty and the root at level 2", got)
	}
}

func TestRestoreRejects(t *testing.T) {
	h := make([]Hash, 256)
	for _, tt := range []struct {
		name  string
		size  int64
		tiles [][]Hash
	}{
		{"negative size", -256, nil},
		{"not a multiple", 257, [][]Hash{h[:1]}},
		{"missing hash", 512, [][]Hash{h[:1]}},
		{"extra hash", 256, [][]Hash{h[:2]}},
		{"extra level", 256, [][]Hash{h[:1], h[:1]}},
		{"missing level", 256 * 256, [][]Hash{}},
		{"full tile", 256 * 256, [][]Hash{h[:256]}},
		{"too many levels", 0, make([][]Hash, 8)},
	} {
		if _, err := Restore(tt.size, tt.tiles); err == nil {
			t.Errorf("%s: Restore succeeded, want an error", tt.name)
		}
	}
}

func TestAppendAndRootDoNotAllocate(t *testing.T) {
	b := New()
	data := make([]byte, 300)
	if n := testing.AllocsPerRun(10000, func() { b.Append(LeafHash(data)); b.Root(); b.Size() }); n != 0 {
		t.Errorf("LeafHash, Append, Root and Size allocate %v times, want 0", n)
	}
}

// TestProofs checks every proof of small trees: that it is the one of x/mod,
// that it is accepted, and that no bit of it or of its inputs can change.
func TestProofs(t *testing.T) {
	const last = 40
	var s naive
	roots := []Hash{sha256.Sum256(nil)}
	for size := int64(1); size <= last; size++ {
		s.appendAt(size-1, leaf(size-1))
		root, err := RootAt(&s, size)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, root)
		for i := int64(0); i < size; i++ {
			p, err := Inclusion(&s, i, size)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := tlog.ProveRecord(size, i, &s)
			if d := cmp.Diff(tlogHashes(p), []tlog.Hash(want)); d != "" {
				t.Fatalf("Inclusion(%d, %d) differs:\n%s", i, size, d)
			}
			checkTampered(t, fmt.Sprintf("inclusion of %d in %d", i, size), p, []Hash{root, leaf(i)}, func(p, h []Hash) error {
				return CheckInclusion(p, size, h[0], i, h[1])
			})
		}
		for old := int64(0); old <= size; old++ {
			p, err := Consistency(&s, old, size)
			if err != nil {
				t.Fatal(err)
			}
			in := []Hash{root, roots[old]}
			if old == 0 {
				in = in[1:] // the root of the larger tree does not matter then
			}
			checkTampered(t, fmt.Sprintf("consistency of %d and %d", old, size), p, in, func(p, h []Hash) error {
				return CheckConsistency(p, size, h[0], old, h[len(h)-1])
			})
		}
	}
}

// checkTampered wants check to accept proof and inputs as they are, and
// nothing with a bit flipped, a hash left out or a hash more.
func checkTampered(t *testing.T, name string, proof, in []Hash, check func(proof, in []Hash) error) {
	t.Helper()
	if err := check(proof, in); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for _, list := range [][]Hash{proof, in} {
		for i := range list {
			list[i][i%32] ^= 1 << (i % 8)
			if check(proof, in) == nil {
				t.Errorf("%s: accepted with a bit flipped in hash %d", name, i)
			}
			list[i][i%32] ^= 1 << (i % 8)
		}
	}
	if len(proof) > 0 && check(proof[1:], in) == nil {
		t.Errorf("%s: accepted with a hash left out", name)
	}
	if check(append(proof[:len(proof):len(proof)], Hash{}), in) == nil {
		t.Errorf("%s: accepted with a hash more", name)
	}
}

// TestProofsOfLargeTrees compares sampled proofs across tile boundaries.
func TestProofsOfLargeTrees(t *testing.T) {
	var s naive
	for i := int64(0); i < 66000; i++ {
		s.appendAt(i, leaf(i))
	}
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int64{255, 256, 257, 511, 512, 65535, 65536, 65537, 65792, 66000}).Draw(t, "size")
		index := rapid.Int64Range(0, size-1).Draw(t, "index")
		root, err := RootAt(&s, size)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Inclusion(&s, index, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckInclusion(p, size, root, index, leaf(index)); err != nil {
			t.Fatal(err)
		}
		oldRoot, err := RootAt(&s, index)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Consistency(&s, index, size)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckConsistency(c, size, root, index, oldRoot); err != nil {
			t.Fatal(err)
		}
	})
}

type sourceFunc func(level int, n int64, width int) ([]byte, error)

func (f sourceFunc) Tile(level int, n int64, width int) ([]byte, error) { return f(level, n, width) }

func TestProofErrors(t *testing.T) {
	broken := errors.New("broken")
	bad := sourceFunc(func(int, int64, int) ([]byte, error) { return nil, broken })
	short := sourceFunc(func(_ int, _ int64, w int) ([]byte, error) { return make([]byte, w*32-1), nil })
	if _, err := RootAt(bad, 300); !errors.Is(err, broken) {
		t.Errorf("RootAt with a broken source = %v, want %v", err, broken)
	}
	if _, err := Inclusion(short, 3, 300); err == nil {
		t.Error("Inclusion from short tiles succeeded, want an error")
	}
	for _, size := range []int64{-1, math.MaxInt64, maxSize + 1} {
		if _, err := RootAt(bad, size); err == nil {
			t.Errorf("RootAt(%d) succeeded, want an error", size)
		}
		if CheckInclusion(nil, size, Hash{}, 0, Hash{}) == nil {
			t.Errorf("CheckInclusion at size %d succeeded, want an error", size)
		}
		if CheckConsistency(nil, size, Hash{}, 0, Hash{}) == nil {
			t.Errorf("CheckConsistency at size %d succeeded, want an error", size)
		}
	}
	for _, tt := range []struct{ index, size int64 }{{-1, 3}, {3, 3}, {0, 0}} {
		if _, err := Inclusion(bad, tt.index, tt.size); err == nil || errors.Is(err, broken) {
			t.Errorf("Inclusion(%d, %d) = %v, want it refused", tt.index, tt.size, err)
		}
		if CheckInclusion(nil, tt.size, Hash{}, tt.index, Hash{}) == nil {
			t.Errorf("CheckInclusion(%d, %d) succeeded, want an error", tt.index, tt.size)
		}
	}
}

func TestTilePath(t *testing.T) {
	for _, tt := range []struct {
		level int
		n     int64
		width int
		want  string
	}{
		{0, 0, 256, "tile/0/000"},
		{0, 0, 1, "tile/0/000.p/1"},
		{1, 999, 256, "tile/1/999"},
		{2, 1000, 256, "tile/2/x001/000"},
		{0, 1234067, 256, "tile/0/x001/x234/067"},
		{15, 1234067, 255, "tile/15/x001/x234/067.p/255"},
		{63, math.MaxInt64, 256, "tile/63/x009/x223/x372/x036/x854/x775/807"},
		{Entries, 67, 256, "tile/entries/067"},
		{Entries, 1000000, 8, "tile/entries/x001/x000/000.p/8"},
	} {
		got := BundlePath(tt.n, tt.width)
		if tt.level != Entries {
			got = TilePath(tt.level, tt.n, tt.width)
		}
		if got != tt.want {
			t.Errorf("path of %d/%d width %d = %s, want %s", tt.level, tt.n, tt.width, got, tt.want)
		}
		l, n, w, err := ParseTilePath(tt.want)
		if err != nil || l != tt.level || n != tt.n || w != tt.width {
			t.Errorf("ParseTilePath(%s) = %d, %d, %d, %v, want %d, %d, %d", tt.want, l, n, w, err, tt.level, tt.n, tt.width)
		}
	}
	for _, p := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/0000", "tile/0/1000", "tile/0/x000/001", "tile/0/x001000",
		"tile/00/000", "tile/-1/000", "tile/64/000", "tile/data/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01",
		"tile/0/000.p/+1", "tile/0/000.p/", "tile/0/-01", "tile/0/+01", "tile/0/000/", "tile/0/000.p/1/2", "/tile/0/000",
		"tile/entries/00x", "tile/0/x009/x223/x372/x036/x854/x775/808", "tile/0/x001/x/001", "tile/0/00x1", "tile/Entries/000",
	} {
		if l, n, w, err := ParseTilePath(p); err == nil {
			t.Errorf("ParseTilePath(%q) = %d, %d, %d, want an error", p, l, n, w)
		}
	}
}

func FuzzParseTilePath(f *testing.F) {
	f.Add("tile/0/x001/x234/067.p/8")
	f.Add("tile/entries/000")
	f.Fuzz(func(t *testing.T, p string) {
		level, n, width, err := ParseTilePath(p)
		if err != nil {
			return
		}
		got := BundlePath(n, width)
		if level != Entries {
			got = TilePath(level, n, width)
		}
		if got != p {
			t.Errorf("ParseTilePath(%q) spelled again is %q", p, got)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	t := New()
	data := make([]byte, 240)
	b.ReportAllocs()
	for b.Loop() {
		t.Append(LeafHash(data))
	}
}

func BenchmarkRoot(b *testing.B) {
	t := New()
	for i := int64(0); i < 1<<16-1; i++ {
		t.Append(Hash{})
	}
	for b.Loop() {
		t.Root()
	}
}
