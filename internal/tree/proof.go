package tree

import (
	"crypto/sha256"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// A Source gives tiles of a tree. Level 0 holds leaf hashes. Width is that of
// the tile at the size being asked about, 1 to 256; the result has width*32
// bytes and is only read.
type Source interface {
	Tile(level int, n int64, width int) ([]byte, error)
}

// maxSize bounds sizes, far beyond any log, so that no arithmetic on them overflows.
const maxSize = 1 << 60

// tileHeight is the number of tree levels one tile covers.
const tileHeight = 8

// reader reads the hashes of a tree of one size from a Source. It does not
// authenticate them: whoever uses a result compares it with a signed root.
type reader struct {
	src   Source
	size  int64
	cache map[tlog.Tile][]byte
}

func newReader(src Source, size int64) *reader {
	return &reader{src: src, size: size, cache: map[tlog.Tile][]byte{}}
}

// ReadHashes implements tlog.HashReader.
func (r *reader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		t := tlog.TileForIndex(tileHeight, index)
		// TileForIndex gives the least width that has the hash. Ask for the
		// width the tile has at this size: that one exists everywhere.
		t.W = int(min(r.size>>(tileHeight*t.L)-t.N*Width, Width))
		data, ok := r.cache[t]
		if !ok {
			var err error
			if data, err = r.src.Tile(t.L, t.N, t.W); err != nil {
				return nil, fmt.Errorf("read %s: %w", TilePath(t.L, t.N, t.W), err)
			}
			if len(data) != t.W*sha256.Size {
				return nil, fmt.Errorf("read %s: %d bytes, want %d", TilePath(t.L, t.N, t.W), len(data), t.W*sha256.Size)
			}
			r.cache[t] = data
		}
		h, err := tlog.HashFromTile(t, data, index)
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}

// RootAt returns the root of the tree of the first size leaves.
func RootAt(src Source, size int64) (Hash, error) {
	if size < 0 || size > maxSize {
		return Hash{}, fmt.Errorf("compute root: size %d is out of range", size)
	}
	h, err := tlog.TreeHash(size, newReader(src, size))
	return Hash(h), err
}

// Inclusion returns the proof that the leaf at index is in the tree of the
// first size leaves: sibling hashes from the leaf up. It is only as good as
// src; check it with CheckInclusion against a signed root.
func Inclusion(src Source, index, size int64) ([]Hash, error) {
	if index < 0 || index >= size || size > maxSize {
		return nil, fmt.Errorf("prove inclusion: index %d is not in a tree of size %d", index, size)
	}
	p, err := tlog.ProveRecord(size, index, newReader(src, size))
	return hashes(p), err
}

// Consistency returns the proof that the tree of the first old leaves is a
// prefix of the tree of the first size leaves. From size 0 it is empty.
func Consistency(src Source, old, size int64) ([]Hash, error) {
	if old < 0 || old > size || size > maxSize {
		return nil, fmt.Errorf("prove consistency: size %d is not within a tree of size %d", old, size)
	}
	if old == 0 {
		return nil, nil
	}
	p, err := tlog.ProveTree(size, old, newReader(src, size))
	return hashes(p), err
}

// CheckInclusion reports whether proof shows that the tree of that size and
// root has the leaf at index.
func CheckInclusion(proof []Hash, size int64, root Hash, index int64, leaf Hash) error {
	if index < 0 || index >= size || size > maxSize {
		return fmt.Errorf("check inclusion: index %d is not in a tree of size %d", index, size)
	}
	if err := tlog.CheckRecord(tlogHashes(proof), size, tlog.Hash(root), index, tlog.Hash(leaf)); err != nil {
		return fmt.Errorf("check inclusion of entry %d: %w", index, err)
	}
	return nil
}

// CheckConsistency reports whether proof shows that the old tree is a prefix
// of the tree of that size and root.
func CheckConsistency(proof []Hash, size int64, root Hash, old int64, oldRoot Hash) error {
	switch {
	case old < 0 || old > size || size > maxSize:
		return fmt.Errorf("check consistency: size %d is not within a tree of size %d", old, size)
	case old == 0:
		if len(proof) > 0 || oldRoot != sha256.Sum256(nil) {
			return fmt.Errorf("check consistency: invalid proof or root of the empty tree")
		}
		return nil
	}
	if err := tlog.CheckTree(tlogHashes(proof), size, tlog.Hash(root), old, tlog.Hash(oldRoot)); err != nil {
		return fmt.Errorf("check consistency of sizes %d and %d: %w", old, size, err)
	}
	return nil
}

func hashes(p []tlog.Hash) []Hash {
	out := make([]Hash, len(p))
	for i, h := range p {
		out[i] = h
	}
	return out
}

func tlogHashes(p []Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(p))
	for i, h := range p {
		out[i] = h
	}
	return out
}
