package ledger

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// run is the committer. It ends when everything is committed after Close was
// called, or with the first error.
func (l *Ledger) run() {
	defer close(l.done)
	for l.sleep() {
		l.turn.Lock()
		l.commitNext(false)
		l.turn.Unlock()
	}
	l.turn.Lock()   // wait for a TryCommit that took the last batch
	l.turn.Unlock() //nolint:staticcheck // nothing to do but wait
	l.mu.Lock()
	err, subs := l.failed, l.subs
	l.mu.Unlock()
	if err == nil {
		return
	}
	for _, f := range subs {
		f(l.durable.Load(), err)
	}
}

// TryCommit makes the entry at index durable on the caller's thread, and all
// that are queued with it: that spares waking the committer and being woken by
// it. It returns when they are, or when recording failed, which subscribers
// are told of as ever. It returns false at once, and has done nothing, if a
// commit is under way; the entry then wants a Want.
func (l *Ledger) TryCommit(index int64) bool {
	if !l.turn.TryLock() {
		return false
	}
	defer l.turn.Unlock()
	for l.durable.Load() <= index && l.commitNext(true) {
	}
	return true
}

// commitNext commits the next batch: one that is wanted, or any. It returns
// false if there is none, or the commit failed. Called with turn held.
func (l *Ledger) commitNext(any bool) bool {
	b := l.take(any)
	if b == nil {
		return false
	}
	if err := l.commit(b); err != nil {
		l.fail(err)
		return false
	}
	l.recycle(b)
	return true
}

// sleep waits until there is something for the committer, which TryCommit may
// take nevertheless. It returns false if there will be nothing more.
func (l *Ledger) sleep() bool {
	for {
		// Whoever has news stores it first and looks at idle then; so either
		// they see idle, or we see the news.
		l.idle.Store(true)
		if wanted, end := l.due(); wanted || end {
			if !l.idle.CompareAndSwap(true, false) {
				<-l.wake // somebody woke us all the same
			}
			return !end
		}
		<-l.wake
	}
}

// due reports whether a batch is to be committed now, and whether there will
// be none any more.
func (l *Ledger) due() (wanted, end bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
		return false, true
	case len(l.full) > 0, l.fill != nil && (l.closing || l.wanted.Load() > l.fill.first):
		return true, false
	}
	return false, l.closing
}

// take returns the batch to commit next: the oldest that is full, else the
// one that is filling if it is wanted, or if any will do. It returns nil if
// there is none, or recording has ended.
func (l *Ledger) take(any bool) (b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
	case len(l.full) > 0:
		b = l.full[0]
		l.full = append(l.full[:0], l.full[1:]...)
	case l.fill != nil && (any || l.closing || l.wanted.Load() > l.fill.first):
		b, l.fill = l.fill, nil
	}
	return b
}

// recycle keeps the memory of a batch. Two are in use at any time; larger
// ones than usual are left to the garbage collector.
func (l *Ledger) recycle(b *batch) {
	if cap(b.buf) > keepBatch {
		return
	}
	b.buf, b.count, b.marks = b.buf[:journal.BatchHeaderLen], 0, b.marks[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) < 2 {
		l.free = append(l.free, b)
	}
}

// commit makes the entries of b durable: this is the one place where the log
// grows. Exactly one batch is on its way at any time.
func (l *Ledger) commit(b *batch) error {
	buf, first, left := b.buf, b.first, b.count
	for left > 0 {
		began, now, n := time.Now(), l.cfg.Now(), left

		// 1. A journal file ends at a multiple of 256 entries. If this one is
		// due, end it here, or end the batch at that boundary.
		// If we die here: see rotate; no entry of b was promised to anybody.
		if cut := l.cut.Load(); first == cut && first > l.w.First() {
			if err := l.rotate(now); err != nil {
				return err
			}
		} else if first < cut {
			n = int(min(int64(n), cut-first))
		}
		if l.w.Due(now) {
			if in := first % tree.Width; in != 0 {
				n = min(n, int(tree.Width-in))
			} else if err := l.rotate(now); err != nil {
				return err
			}
		}

		// 2. Fill in what only the log knows, and grow the tree. All in memory.
		size, err := l.seal(buf[journal.BatchHeaderLen:], first, n)
		if err != nil {
			return err
		}
		root := l.tree.Root()

		// 3. One write and one fdatasync.
		// If we die in here: the batch is whole on the disk and counts, or it
		// is a torn tail, which the next start cuts off. Nobody was told of
		// either. If the write or the sync fails, nobody can know which, so
		// it is never tried again: the log ends, and the next start decides.
		if err := l.w.Append(buf[:journal.BatchHeaderLen+size], n, &root, now); err != nil {
			return fmt.Errorf("commit entries %d to %d: %w", first, first+int64(n)-1, err)
		}

		// 4. Now it is true: say so. Statements are let go by what this says.
		// If we die behind this line: the entries are there at the next start.
		l.publish(first+int64(n), &root, int64(size))

		// 5. Tiles that became full. They can be computed again.
		// If we die here: the next start writes those that are missing.
		if err := l.writeTiles(); err != nil {
			return err
		}
		if l.cfg.Observer != nil {
			l.cfg.Observer.Commit(n, int64(size), time.Since(began))
		}

		// The header of the rest takes the place of the last bytes written.
		buf, first, left = buf[size:], first+int64(n), left-n
	}

	// 6. Entries refer to their blobs now.
	// If we die here: the next start finds that they do.
	for _, mark := range b.marks {
		l.unmarked = true
		if err := l.cfg.FS.Remove(mark); err != nil {
			l.cfg.Logger.Warn("the mark of a value stays until the next start", slog.Any("error", err))
		}
	}
	return nil
}

// seal finishes the first n entries of a body that begins at index first:
// seeds and commitments are filled in and the leaves added to the tree. It
// returns their length in bytes.
func (l *Ledger) seal(body []byte, first int64, n int) (size int, err error) {
	c := &l.cursor
	c.Reset(body, first)
	for i := 0; i < n; i++ {
		if !c.Next() {
			return 0, fmt.Errorf("entry %d is not in its batch: %w", first+int64(i), c.Err())
		}
		if c.SeedAt >= 0 {
			if _, err := io.ReadFull(l.cfg.Rand, c.Seed[:]); err != nil {
				return 0, fmt.Errorf("make a seed: %w", err)
			}
			copy(body[c.SeedAt:], c.Seed[:])
		}
		if c.ValueAt >= 0 {
			salt := journal.Salt(&c.Seed, c.Index-1)
			sum := hashBehind(salt[:], body, c.ValueAt, c.ValueEnd)
			if !event.PutCommitment(c.Leaf(), &sum) {
				return 0, fmt.Errorf("entry %d has a value, but its leaf no commitment", c.Index-1)
			}
		}
		l.tree.Append(hashBehind(leafPrefix, body, c.LeafAt, c.LeafEnd))
	}
	return c.Pos(), nil
}

// leafPrefix is what RFC 6962 hashes in front of a leaf.
var leafPrefix = []byte{0}

// hashBehind returns SHA-256(prefix || b[from:to]). The prefix is put into b
// in front of from for that time: one call over one piece of memory takes
// half the time of feeding two to a hash.Hash. There are at least 32 bytes.
func hashBehind(prefix, b []byte, from, to int) [32]byte {
	var saved [32]byte
	n := len(prefix)
	copy(saved[:n], b[from-n:from])
	copy(b[from-n:from], prefix)
	sum := sha256.Sum256(b[from-n : to])
	copy(b[from-n:from], saved[:n])
	return sum
}

// publish announces that size entries are durable.
func (l *Ledger) publish(size int64, root *tree.Hash, bytes int64) {
	l.pub.Lock()
	l.pub.size, l.pub.root = size, *root
	l.pub.Unlock()
	l.durable.Store(size)
	l.backlog.Add(-bytes)
	l.mu.Lock()
	subs := l.subs
	l.mu.Unlock()
	for _, f := range subs {
		f(size, nil)
	}
}

// rotate ends the journal file and begins the next one.
func (l *Ledger) rotate(now int64) error {
	// The next start looks at the last file only, so tiles that an earlier one
	// made full must be durable before it is an earlier one.
	if err := l.syncTiles(); err != nil {
		return err
	}
	if l.unmarked { // nor shall it look for what earlier ones referred to
		if err := l.cfg.FS.SyncDir(l.path(pending)); err != nil {
			return fmt.Errorf("sync marks of values: %w", err)
		}
		l.unmarked = false
	}
	if err := l.w.Rotate(l.tree, now); err != nil {
		return fmt.Errorf("begin a journal file: %w", err)
	}
	l.sealer.add(l.w.First())
	return nil
}
