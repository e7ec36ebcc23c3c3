package query

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// maxLevel is the highest tile level an int64 size can fill.
const maxLevel = 7

// maxTile bounds the file of a tile, in bytes.
const maxTile = int64(tree.Width * len(tree.Hash{}))

// maxRoots bounds the hashes of bundles that are kept: those of a journal of
// 16 million entries, 2 MiB.
const maxRoots = 1 << 16

var _ tree.Source = (*Log)(nil)

// Tile returns the first width hashes of a tile of c2sp.org/tlog-tiles. Those
// of level 0 come from the entries. Higher ones are files once they are full;
// else they are what the header of the newest journal file says, and the
// bundles behind it, so that no more than one journal file is read for them.
func (l *Log) Tile(level int, n int64, width int) ([]byte, error) {
	if level < 0 || level > maxLevel || n < 0 || n > 1<<max(0, 62-8*(level+1)) || width < 1 || width > tree.Width {
		return nil, fmt.Errorf("tile %d/%d of width %d: %w", level, n, width, fs.ErrNotExist)
	}
	const hash = len(tree.Hash{})
	out := make([]byte, 0, width*hash)
	if level == 0 {
		err := l.bundle(n, width, func(leaf []byte) {
			h := tree.LeafHash(leaf)
			out = append(out, h[:]...)
		})
		if !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
		// Pruning keeps a few of those whose bundles go.
		kept, kerr := durable.ReadFile(durable.OS, filepath.Join(l.dir, filepath.FromSlash(tree.TilePath(0, n, tree.Width))), maxTile)
		if kerr == nil && len(kept) == tree.Width*hash {
			return kept[:width*hash], nil
		}
		return out, err
	}
	full, err := durable.ReadFile(durable.OS, filepath.Join(l.dir, filepath.FromSlash(tree.TilePath(level, n, tree.Width))), maxTile)
	if err == nil && len(full) == tree.Width*hash {
		return full[:width*hash], nil
	}
	size, err := l.Size()
	if err != nil {
		return nil, err
	}
	h, err := l.reader.Header(size)
	if err != nil {
		return nil, err
	}
	if h != nil && level <= len(h.Tiles) && h.First>>(8*(level+1)) == n {
		for _, known := range h.Tiles[level-1][:min(width, len(h.Tiles[level-1]))] {
			out = append(out, known[:]...)
		}
	}
	if level == 1 {
		return l.bundleRoots(out, n*tree.Width, width)
	}
	for len(out) < width*hash {
		root, err := l.root(level-1, n*tree.Width+int64(len(out)/hash))
		if err != nil {
			return nil, err
		}
		out = append(out, root[:]...)
	}
	return out, nil
}

// bundleRoots appends to out, which begins with the root of the bundle first,
// the roots of those that follow, up to width in all. It reads the leaves it
// needs once, front to back.
func (l *Log) bundleRoots(out []byte, first int64, width int) ([]byte, error) {
	const hash = len(tree.Hash{})
	l.mu.Lock()
	for len(out) < width*hash {
		h, ok := l.roots[first+int64(len(out)/hash)]
		if !ok {
			break
		}
		out = append(out, h[:]...)
	}
	l.mu.Unlock()
	from, to := first+int64(len(out)/hash), first+int64(width)
	if from == to {
		return out, nil
	}
	var row []tree.Hash
	for e, err := range l.reader.Leaves(from*tree.Width, to*tree.Width) {
		if err != nil {
			return nil, err
		}
		if row = append(row, tree.LeafHash(e.Leaf)); len(row) < tree.Width {
			continue
		}
		h := rootOver(row)
		l.keepRoot(first+int64(len(out)/hash), h)
		out, row = append(out, h[:]...), row[:0]
	}
	if len(out) < width*hash {
		return nil, fmt.Errorf("entry %d: %w", (first+int64(len(out)/hash))*tree.Width+int64(len(row)), fs.ErrNotExist)
	}
	return out, nil
}

// rootOver returns the root over 256 hashes, which it overwrites.
func rootOver(row []tree.Hash) tree.Hash {
	for len(row) > 1 {
		for i := range row[:len(row)/2] {
			row[i] = tree.NodeHash(&row[2*i], &row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

// keepRoot remembers the root of a full bundle.
func (l *Log) keepRoot(n int64, h tree.Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.roots) >= maxRoots {
		clear(l.roots)
	}
	l.roots[n] = h
}

// root returns the root over a full tile of level 1 or above, a hash of the level above.
func (l *Log) root(level int, n int64) (tree.Hash, error) {
	tile, err := l.Tile(level, n, tree.Width)
	if err != nil {
		return tree.Hash{}, err
	}
	row := make([]tree.Hash, tree.Width)
	for i := range row {
		copy(row[i][:], tile[i*len(row[i]):])
	}
	return rootOver(row), nil
}
