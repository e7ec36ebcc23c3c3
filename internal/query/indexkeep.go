package query

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// growBy is how many entries of the journal file in use are indexed at once.
const growBy = 32 * tree.Width

// Index makes the indexes that are missing or stale, that of the journal file in
// use included, and removes those of segments that are gone. It is for the
// process that writes the log, one at a time.
func (l *Log) Index(ctx context.Context) error {
	// Whoever erases values removes the directory, once they are gone: what was
	// read before that then cannot be written, and what was kept of it goes here.
	if err := os.Mkdir(l.indexDir(), 0o700); err == nil {
		clear(l.growing)
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	firsts, err := segment.List(durable.OS, l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names, err := os.ReadDir(l.indexDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sealed := int64(0) // what comes from there on is in the journal
	if len(firsts) > 0 {
		sealed = firsts[len(firsts)-1] + 1
	}
	for _, n := range names {
		if first, ok := indexName(n.Name()); !ok || first < sealed && !slices.Contains(firsts, first) || first > size {
			if err := os.Remove(filepath.Join(l.indexDir(), n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for _, first := range firsts {
		if err := l.indexSegment(ctx, first); err != nil && !errors.Is(err, fs.ErrNotExist) { // that is: pruned meanwhile
			return err
		}
		if _, err := os.Stat(l.indexDir()); err != nil {
			return nil // the next call begins anew
		}
	}
	if err := l.indexJournal(ctx, size); err != nil {
		clear(l.growing)
		if !errors.Is(err, fs.ErrNotExist) { // that is: sealed meanwhile
			return err
		}
	}
	return nil
}

// indexSegment makes the index of a segment if there is none that is right.
func (l *Log) indexSegment(ctx context.Context, first int64) error {
	if _, f, err := l.openIndex(first); err == nil {
		return f.Close()
	}
	s, err := l.segmentStamp(first)
	if err != nil {
		return err
	}
	// What was learned from the journal file is good as long as its index is there.
	b := l.growing[first]
	delete(l.growing, first)
	if _, err := os.Stat(l.indexFile(first)); err != nil || b == nil || b.next > first+s.count {
		b = newIndexBuilder(l, first)
	}
	if err := l.removeIndex(first); err != nil {
		return err // what it tells of erased values must not stay
	}
	if err := b.read(ctx, l, first+s.count); err != nil {
		return err
	}
	if err := b.conclude(l); err != nil {
		return err
	}
	return l.writeIndex(b, s, nil)
}

// maxGrowing bounds the journal files that are not sealed whose terms are kept.
const maxGrowing = 3

// indexJournal makes or extends the index of the journal file in use.
func (l *Log) indexJournal(ctx context.Context, size int64) error {
	h, err := l.reader.Header(size)
	if h == nil || err != nil {
		return err
	}
	b := l.growing[h.First]
	if b == nil {
		if b = newIndexBuilder(l, h.First); l.growing == nil || len(l.growing) >= maxGrowing {
			l.growing = make(map[int64]*indexBuilder)
		}
		l.growing[h.First] = b
	}
	to := size - 1 // one must follow, for the stamp
	to -= to % tree.Width
	if to < b.first+b.written+growBy {
		return nil
	}
	if err := b.read(ctx, l, to); err != nil {
		return err
	}
	s, err := l.journalStamp(b.first, to-b.first)
	if err != nil {
		return err
	}
	places, err := l.reader.Places(b.first, to)
	if err != nil {
		return err
	}
	b.written = s.count
	return l.writeIndex(b, s, places)
}

func (l *Log) removeIndex(first int64) error {
	if err := os.Remove(l.indexFile(first)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (l *Log) writeIndex(b *indexBuilder, s stamp, places []byte) error {
	content, err := b.encode(s, places)
	if err != nil {
		return err
	}
	if s.size >= 0 { // values may have gone while it was made
		if now, err := l.segmentStamp(s.first); err != nil || now != s {
			return err
		}
	}
	if err := durable.WriteFile(durable.OS, l.indexFile(s.first), content, 0o600); err != nil {
		return err
	}
	_, f, err := l.openIndex(s.first)
	if err != nil { // they went just now
		return l.removeIndex(s.first)
	}
	return f.Close()
}
