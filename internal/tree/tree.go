// Package tree is the Merkle tree of RFC 6962 over a log's entries, in the
// shape of c2sp.org/tlog-tiles: tiles of height 8, so 256 hashes wide.
//
//	level 1            [      hash      |      hash      | ...   a tile: 256 hashes of 32 bytes
//	                     /           \
//	level 0      [h|h|h| ... |h]  [h|h|h| ... |h]                leaf hashes, tiles of the same shape
//	              | | |       |
//	entries       0 1 2  ... 255
//
// A hash of level L+1 is the root of a full tile of level L. Builder extends
// the tree and keeps only what it needs to go on: one hash for each bit of
// the size, and the incomplete tile of each level above 0. Inclusion,
// Consistency and RootAt read tiles from a Source; the mathematics of proofs
// is that of golang.org/x/mod/sumdb/tlog.
//
// The package does no I/O and knows no clock.
package tree

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
)

// A Hash is a node of the tree: SHA-256(0x00 || leaf) or
// SHA-256(0x01 || left || right).
type Hash = [32]byte

// Width is the number of hashes in a full tile and of entries in a full bundle.
const Width = 256

// levels is the number of tile levels above 0 that an int64 size can fill.
const levels = 7

// LeafHash returns the hash of an entry. It does not allocate for leaves
// shorter than 1 KiB.
func LeafHash(leaf []byte) Hash {
	// One call on a stack buffer is faster than feeding a hash.Hash twice,
	// and needs no allocation.
	var buf [1024]byte
	if len(leaf) < len(buf) {
		n := copy(buf[1:], leaf)
		return sha256.Sum256(buf[:1+n])
	}
	return sha256.Sum256(append([]byte{0}, leaf...))
}

// LeafHashAt returns the hash of the entry b[from:to]. It writes over the byte
// in front of that, which saves copying the leaf.
func LeafHashAt(b []byte, from, to int) Hash {
	b[from-1] = 0
	return sha256.Sum256(b[from-1 : to])
}

// NodeHash returns the hash of an inner node.
func NodeHash(left, right *Hash) Hash {
	var buf [1 + 2*sha256.Size]byte
	buf[0] = 1
	copy(buf[1:], left[:])
	copy(buf[1+sha256.Size:], right[:])
	return sha256.Sum256(buf[:])
}

// A Builder grows a tree leaf by leaf. It is not for concurrent use.
type Builder struct {
	// OnFull, if set, is called from Append with each tile of level 1 and
	// above that became full. The bytes of tile, 8,192 of them, are valid only
	// during the call.
	OnFull func(level int, n int64, tile []byte)

	size int64
	// stack[h] is the root of the complete subtree of 2^h leaves, valid if
	// bit h of size is set. Together they make the frontier of the tree.
	stack [64]Hash
	// tiles[l-1] is the right-most tile of level l; (size >> 8*l) & 255 hashes
	// of it are valid.
	tiles [levels][Width * sha256.Size]byte
}

// New returns the builder of an empty tree. A Builder is about 60 KiB.
func New() *Builder { return new(Builder) }

// Restore returns the builder of a tree of size leaves, a multiple of 256,
// from what Tiles gave at that size: tiles[0] is the incomplete right-most
// tile of level 1, and so on; levels at the end may be left out if they are empty.
func Restore(size int64, tiles [][]Hash) (*Builder, error) {
	if size < 0 || size%Width != 0 {
		return nil, fmt.Errorf("restore tree: size %d is not a multiple of %d", size, Width)
	}
	if len(tiles) > levels {
		return nil, fmt.Errorf("restore tree: %d levels, want at most %d", len(tiles), levels)
	}
	b := New()
	b.size = size
	for l := 1; l <= levels; l++ {
		want := b.count(l)
		got := 0
		if l <= len(tiles) {
			got = len(tiles[l-1])
		}
		if got != want {
			return nil, fmt.Errorf("restore tree: %d hashes at level %d of a tree of size %d, want %d", got, l, size, want)
		}
		if got == 0 {
			continue
		}
		row := tiles[l-1]
		for i := range row {
			copy(b.tiles[l-1][i*sha256.Size:], row[i][:])
		}
		for bit := 7; bit >= 0; bit-- {
			if n := 1 << bit; got&n != 0 {
				b.stack[8*l+bit] = perfectRoot(row[:n])
				row = row[n:]
			}
		}
	}
	return b, nil
}

// perfectRoot returns the root over a power of two of hashes.
func perfectRoot(h []Hash) Hash {
	if len(h) == 1 {
		return h[0]
	}
	l, r := perfectRoot(h[:len(h)/2]), perfectRoot(h[len(h)/2:])
	return NodeHash(&l, &r)
}

// count returns how many hashes the right-most tile of a level holds.
func (b *Builder) count(level int) int { return int(b.size >> (8 * level) & (Width - 1)) }

// Append adds a leaf hash. It does not allocate; on average it computes one node.
func (b *Builder) Append(leaf Hash) {
	// Adding one to the size carries through its low set bits: each carry
	// joins two complete subtrees of equal size.
	h, height := leaf, 0
	for ; b.size>>height&1 == 1; height++ {
		h = NodeHash(&b.stack[height], &h)
		if height%8 == 7 {
			b.put((height+1)/8, &h)
		}
	}
	b.stack[height] = h
	b.size++
}

// put adds the root of a full tile to the tile of the level above it. The
// size is not yet that after the append.
func (b *Builder) put(level int, h *Hash) {
	if level > levels {
		return
	}
	tile := &b.tiles[level-1]
	i := b.count(level)
	copy(tile[i*sha256.Size:], h[:])
	if i == Width-1 && b.OnFull != nil {
		b.OnFull(level, b.size>>(8*(level+1)), tile[:])
	}
}

// Size returns the number of leaves.
func (b *Builder) Size() int64 { return b.size }

// Root returns the root of the tree, SHA-256 of nothing if it is empty. It
// does not allocate and computes as many nodes as the size has bits set.
func (b *Builder) Root() Hash {
	if b.size == 0 {
		return sha256.Sum256(nil)
	}
	height := bits.TrailingZeros64(uint64(b.size))
	root := b.stack[height]
	for height++; b.size>>height != 0; height++ {
		if b.size>>height&1 == 1 {
			root = NodeHash(&b.stack[height], &root)
		}
	}
	return root
}

// Tiles returns copies of the incomplete right-most tiles of the levels from 1
// up, without empty levels at the end. At a size that is a multiple of 256
// this is all that Restore needs.
func (b *Builder) Tiles() [][]Hash {
	var out [][]Hash
	for l := 1; l <= levels; l++ {
		row := make([]Hash, b.count(l))
		for i := range row {
			copy(row[i][:], b.tiles[l-1][i*sha256.Size:])
		}
		out = append(out, row)
	}
	for len(out) > 0 && len(out[len(out)-1]) == 0 {
		out = out[:len(out)-1]
	}
	return out
}
