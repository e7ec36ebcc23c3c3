package verify

import (
	"context"
	"errors"
	"fmt"
	"sort"
)

// errNotServed is in the error of get for what a log does not serve.
var errNotServed = errors.New("the log does not serve it")

// remoteStart finds out where a log that was pruned begins, and makes the
// tree before that from the tiles it still serves. That the pruning is
// explained is for explain to see, and that the tiles are right for the
// signed root.
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
	if ok, err := served(0); ok || err != nil {
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
	start := n * tileWidth
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
	c.gap.start, c.gap.root, c.Pruned = start, c.tree.root(), start
	return nil
}
