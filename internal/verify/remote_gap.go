package verify

import (
	"context"
	"errors"
	"fmt"
	"sort"
)

// errNotServed is in the error of get for what a log does not serve.
var errNotServed = errors.New("the log does not serve it")

// remoteStart finds out where reading begins: in the bundle that a trusted checkpoint
// ends in, or where pruning left off, and makes the tree before that from the tiles
// that are still served. That the pruning is explained is for explain to see, and that
// the tiles are right for the trusted and the signed root.
func (c *check) remoteStart(ctx context.Context, r *remote) error {
	size := c.signed.size
	if size == 0 {
		return nil
	}
	served := func(n int64) (bool, error) {
		_, err := r.bundle(ctx, n, size)
		if errors.Is(err, errNotServed) {
			return false, nil
		}
		return err == nil, err
	}
	if start := min(c.trusted, size) / tileWidth * tileWidth; start > 0 {
		ok := start == size
		if !ok {
			var err error
			if ok, err = served(start / tileWidth); err != nil {
				return err
			}
		}
		if ok { // else it was pruned further
			c.gap.trusted = true
			return c.remoteTree(ctx, r, start)
		}
	} else if ok, err := served(0); ok || err != nil {
		return err
	}
	// Pruning takes bundles from the beginning.
	var failed error
	full := int((size - 1) / tileWidth) // the last bundle
	n := int64(sort.Search(full, func(i int) bool {
		ok, err := served(int64(i))
		failed = errors.Join(failed, err)
		return ok || failed != nil
	}))
	if failed != nil {
		return failed
	}
	c.Pruned = n * tileWidth
	return c.remoteTree(ctx, r, c.Pruned)
}

// remoteTree makes the tree before entry start from tiles.
func (c *check) remoteTree(ctx context.Context, r *remote, start int64) error {
	size := c.signed.size
	var rows [][]hash
	for level := 1; start>>(8*level) > 0; level++ {
		want := int(start >> (8 * level) % tileWidth)
		row := make([]hash, want)
		if want > 0 {
			tile := start >> (8 * (level + 1))
			path := tilePath(level, tile)
			width := min(size>>(8*level)-tile*tileWidth, tileWidth)
			if width < tileWidth {
				path += fmt.Sprintf(".p/%d", width)
			}
			b, err := r.get(ctx, path, tileWidth*int64(len(hash{})))
			if err != nil {
				return err
			}
			if len(b) != int(width)*len(hash{}) {
				return fmt.Errorf("get %s: %d bytes, want %d", path, len(b), int(width)*len(hash{}))
			}
			for i := range row {
				row[i] = hash(b[i*len(row[i]):])
			}
		}
		rows = append(rows, row)
	}
	if !c.tree.restore(start, rows) {
		return fmt.Errorf("the tiles before entry %d make no tree", start)
	}
	c.gap.start, c.gap.root = start, c.tree.root()
	return nil
}
