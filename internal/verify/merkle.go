package verify

import (
	"crypto/sha256"
	"math/bits"
)

// hash is a node of the tree (RFC 6962).
type hash = [sha256.Size]byte

// tileWidth is the number of hashes in a full tile and of entries in a bundle.
const tileWidth = 256

// maxIndex is beyond any entry, and far enough from overflow.
const maxIndex = 1 << 60

// leafHash returns SHA-256(0x00 || leaf).
func leafHash(leaf []byte) hash {
	var buf [1024]byte // spares a second call and an allocation for all usual leaves
	if len(leaf) < len(buf) {
		return sha256.Sum256(buf[:1+copy(buf[1:], leaf)])
	}
	return sha256.Sum256(append([]byte{0}, leaf...))
}

// nodeHash returns the hash of an inner node.
func nodeHash(l, r *hash) hash {
	var buf [1 + 2*sha256.Size]byte
	buf[0] = 1
	copy(buf[1:], l[:])
	copy(buf[1+sha256.Size:], r[:])
	return sha256.Sum256(buf[:])
}

// rootOf returns the root over a power of two of hashes, which it overwrites.
func rootOf(row []hash) hash {
	for len(row) > 1 {
		for i := range row[:len(row)/2] {
			row[i] = nodeHash(&row[2*i], &row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

// bundleTree is the hashes of a bundle's leaves in pairs, with room for the byte
// that is hashed with each.
type bundleTree [tileWidth / 2][1 + 2*sha256.Size]byte

func (t *bundleTree) set(i int, h *hash) { copy(t[i/2][1+i%2*sha256.Size:], h[:]) }

// root returns the root over all hashes, which it overwrites.
func (t *bundleTree) root() hash {
	for n := len(t); n > 1; n /= 2 {
		for i := range n {
			t[i][0] = 1
			h := sha256.Sum256(t[i][:])
			t.set(i, &h)
		}
	}
	return sha256.Sum256(t[0][:])
}

// frontier is a growing tree: the complete subtrees at its right edge, and the
// incomplete tile of each level from 1 on.
type frontier struct {
	size int64
	// stack[h] is the root of the complete subtree of 2^h leaves if bit h of
	// size is set.
	stack [64]hash
	rows  [][]hash // rows[0] is level 1
	// full is called with each tile of level 1 and above that became full.
	full func(level int, n int64, row []hash)
}

func (f *frontier) append(leaf hash) { f.appendAt(0, leaf) }

// appendAt adds the root h of a complete subtree of 2^height leaves; the size
// is a multiple of that, and height is 0 or 8.
func (f *frontier) appendAt(height int, h hash) {
	size := f.size + 1<<height
	if height == 8 {
		f.put(1, h)
	}
	for ; f.size>>height&1 == 1; height++ {
		h = nodeHash(&f.stack[height], &h)
		if height%8 == 7 {
			f.put((height+1)/8, h)
		}
	}
	f.stack[height] = h
	f.size = size
}

// restore makes f the tree of size leaves, a multiple of 256, from its
// incomplete tiles. It reports false if they are not those of such a tree.
func (f *frontier) restore(size int64, rows [][]hash) bool {
	f.size, f.rows = size, nil
	for level := 1; size>>(8*level) > 0 || level <= len(rows); level++ {
		var row []hash
		if level <= len(rows) {
			row = rows[level-1]
		}
		if int64(len(row)) != size>>(8*level)%tileWidth {
			return false
		}
		f.rows = append(f.rows, append(make([]hash, 0, tileWidth), row...))
		at := 0
		for bit := 7; bit >= 0; bit-- {
			if n := 1 << bit; len(row)&n != 0 {
				f.stack[8*level+bit] = rootOf(append([]hash(nil), row[at:at+n]...))
				at += n
			}
		}
	}
	return true
}

// put adds the root of a tile to the level above.
func (f *frontier) put(level int, h hash) {
	if len(f.rows) < level {
		f.rows = append(f.rows, make([]hash, 0, tileWidth))
	}
	row := append(f.rows[level-1], h)
	if len(row) == tileWidth {
		if f.full != nil {
			f.full(level, f.size>>(8*(level+1)), row)
		}
		row = row[:0]
	}
	f.rows[level-1] = row
}

func (f *frontier) root() hash {
	if f.size == 0 {
		return sha256.Sum256(nil)
	}
	height := bits.TrailingZeros64(uint64(f.size))
	root := f.stack[height]
	for height++; f.size>>height != 0; height++ {
		if f.size>>height&1 == 1 {
			root = nodeHash(&f.stack[height], &root)
		}
	}
	return root
}

// incomplete returns rows without empty levels at the end.
func (f *frontier) incomplete() [][]hash {
	rows := f.rows
	for len(rows) > 0 && len(rows[len(rows)-1]) == 0 {
		rows = rows[:len(rows)-1]
	}
	return rows
}
