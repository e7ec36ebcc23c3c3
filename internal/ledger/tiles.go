package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// A fullTile is a tile of level 1 or above that is complete.
type fullTile struct {
	path string // relative to the data directory
	hash []byte
}

// tileFull notes a tile; the tree calls it. One in 65,536 entries makes one.
func (l *Ledger) tileFull(level int, n int64, tile []byte) {
	l.tiles = append(l.tiles, fullTile{tree.TilePath(level, n, tree.Width), bytes.Clone(tile)})
}

// writeTiles writes the tiles noted, so that they are there for readers but
// not yet durable.
func (l *Ledger) writeTiles() error {
	for _, t := range l.tiles {
		name := filepath.Join(l.cfg.Dir, t.path)
		if err := durable.MkdirAll(l.cfg.FS, filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := durable.Place(l.cfg.FS, name, t.hash, 0o600, false); err != nil {
			return fmt.Errorf("write tile: %w", err)
		}
		l.unsynced = append(l.unsynced, name)
	}
	l.tiles = l.tiles[:0]
	return nil
}

// finishTiles is writeTiles at start: tiles that are there and right stay.
// After a crash they can be missing, short or empty.
func (l *Ledger) finishTiles() error {
	missing := l.tiles[:0]
	for _, t := range l.tiles {
		name := filepath.Join(l.cfg.Dir, t.path)
		b, err := durable.ReadFile(l.cfg.FS, name, int64(len(t.hash)))
		switch {
		case err == nil && bytes.Equal(b, t.hash):
			l.unsynced = append(l.unsynced, name) // seen in the page cache: that says little
		case err == nil || errors.Is(err, fs.ErrNotExist):
			missing = append(missing, t)
		default:
			return fmt.Errorf("read tile: %w", err)
		}
	}
	l.tiles = missing
	return l.writeTiles()
}

// syncTiles makes the tiles of the current journal file durable.
func (l *Ledger) syncTiles() error {
	for _, name := range l.unsynced {
		f, err := l.cfg.FS.OpenRW(name)
		if err != nil {
			return fmt.Errorf("sync tile: %w", err)
		}
		err = f.Sync()
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = l.cfg.FS.SyncDir(filepath.Dir(name))
		}
		if err != nil {
			return fmt.Errorf("sync tile %s: %w", name, err)
		}
	}
	l.unsynced = l.unsynced[:0]
	return nil
}
