package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"path/filepath"
	"slices"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
)

// writebackEvery is how much of a blob may be dirty before the system is
// asked to begin writing it, so that Sync does not wait for all of it.
const writebackEvery = 4 << 20

var errBlobEnded = errors.New("blob has ended")

// A Blob is a value on its way to a file of its own. Its methods are called
// one at a time. An error of Write or Sync ends the blob, not the log.
type Blob struct {
	l      *Ledger
	f      durable.File // nil when it has ended
	name   string       // what Abort removes; "" when an entry refers to it
	mark   string       // file that says so as long as none does
	ref    journal.BlobRef
	salt   [32]byte
	sum    [32]byte // the commitment, once synced
	h      hash.Hash
	flying int64 // bytes that writeback was asked for
	synced bool
}

// pending is the directory of marks: empty files named INDEX-ID for blobs that
// perhaps no entry refers to. One that does has at least that index. So a start
// finds what a crash left over by looking at the newest entries only.
const pending = "pending"

// NewBlob begins a value too large for memory.
func (l *Ledger) NewBlob() (*Blob, error) {
	if err := l.Err(); err != nil {
		return nil, err
	}
	b := &Blob{l: l, h: sha256.New()}
	var random [48]byte
	if _, err := io.ReadFull(l.cfg.Rand, random[:]); err != nil {
		return nil, fmt.Errorf("make a salt: %w", err)
	}
	copy(b.ref.ID[:], random[:16])
	copy(b.salt[:], random[16:])
	b.h.Write(b.salt[:])
	l.mu.Lock()
	next := l.next
	l.mu.Unlock()
	b.name = journal.BlobPath(l.cfg.Dir, b.ref.ID)
	b.mark = filepath.Join(l.path(pending), fmt.Sprintf("%020d-%x", next, b.ref.ID))
	// The mark is durable before there is a blob. If we die behind this: the
	// next start finds it, and removes the blob unless an entry refers to it.
	f, err := l.cfg.FS.Create(b.mark, 0o600)
	if err == nil {
		err = errors.Join(f.Close(), l.cfg.FS.SyncDir(l.path(pending)))
	}
	if err == nil {
		b.f, err = l.cfg.FS.Create(b.name, 0o600)
	}
	if err != nil {
		b.Abort()
		return nil, fmt.Errorf("create blob: %w", err)
	}
	return b, nil
}

// Write appends to the value.
func (b *Blob) Write(p []byte) (int, error) {
	if b.f == nil {
		return 0, errBlobEnded
	}
	n, err := b.f.WriteAt(p, b.ref.Size)
	if err != nil {
		b.Abort()
		return n, fmt.Errorf("write blob: %w", err)
	}
	b.h.Write(p)
	b.ref.Size += int64(n)
	if b.ref.Size-b.flying >= writebackEvery {
		b.f.Writeback(b.flying, b.ref.Size-b.flying)
		b.flying = b.ref.Size
	}
	return n, nil
}

// Sync ends the value and makes it durable.
func (b *Blob) Sync() error {
	if b.f == nil {
		return errBlobEnded
	}
	// If we die in here: a blob no entry refers to is left, and its mark.
	if err := b.f.Sync(); err != nil {
		b.Abort()
		return fmt.Errorf("sync blob: %w", err)
	}
	err := b.f.Close()
	b.f = nil
	if err == nil {
		err = b.l.cfg.FS.SyncDir(filepath.Dir(b.name))
	}
	if err != nil {
		b.Abort()
		return fmt.Errorf("sync blob directory: %w", err)
	}
	b.h.Sum(b.sum[:0])
	b.synced = true
	return nil
}

// Abort throws the value away unless an entry refers to it.
func (b *Blob) Abort() {
	if b.f != nil {
		_ = b.f.Close() // the file goes
		b.f = nil
	}
	if b.name != "" {
		// The mark goes only when the blob is gone for good.
		err := segment.RemoveBlobs(b.l.cfg.FS, b.l.cfg.Dir, []journal.BlobRef{b.ref})
		if err == nil {
			_ = b.l.cfg.FS.Remove(b.mark) // what is left means nothing
		}
		b.name = ""
	}
	b.synced = false
}

// removePending removes what a crash left of values that no entry refers to.
// All entries that are there can be read.
func (l *Ledger) removePending() error {
	names, err := l.cfg.FS.List(l.path(pending))
	if err != nil {
		return fmt.Errorf("list unfinished values: %w", err)
	}
	var blobs []journal.BlobRef
	var marks []string
	from := int64(math.MaxInt64)
	for _, name := range names {
		var index int64
		var id []byte
		if n, _ := fmt.Sscanf(name, "%d-%x", &index, &id); n == 2 && len(id) == 16 { // else it is a stranger, which verify finds
			blobs, marks, from = append(blobs, journal.BlobRef{ID: [16]byte(id)}), append(marks, name), min(from, index)
		}
	}
	if len(blobs) == 0 {
		return nil
	}
	used, err := l.blobsFrom(from)
	if err != nil {
		return fmt.Errorf("find what unfinished values belong to: %w", err)
	}
	blobs = slices.DeleteFunc(blobs, func(b journal.BlobRef) bool { return used[b.ID] })
	// If we die behind this: the marks are still there.
	if err := segment.RemoveBlobs(l.cfg.FS, l.cfg.Dir, blobs); err != nil {
		return err
	}
	for _, name := range marks {
		if err := l.cfg.FS.Remove(filepath.Join(l.path(pending), name)); err != nil {
			return fmt.Errorf("remove mark of a value: %w", err)
		}
	}
	l.unmarked = true
	return nil
}

// blobsFrom returns the blobs that entries from an index on refer to, and
// copies that segments of these have.
func (l *Ledger) blobsFrom(from int64) (map[[16]byte]bool, error) {
	used := map[[16]byte]bool{}
	r, err := segment.OpenReaderFS(l.cfg.FS, l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	for e, err := range r.Entries(max(from, r.First()), l.Durable()) {
		if err != nil {
			return nil, err
		}
		if e.Blob != nil {
			used[e.Blob.ID] = true
		}
	}
	segs, err := segment.List(l.cfg.FS, l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, first := range segs {
		if first < from {
			continue // what it copied was older still
		}
		_, copied, err := segment.Copies(l.cfg.FS, l.cfg.Dir, first)
		if err != nil {
			return nil, err
		}
		for _, b := range copied {
			used[b.ID] = true
		}
	}
	return used, nil
}

// AppendBlob queues an entry whose value is a blob that was synced. leaf ends
// in an empty commitment. It does not wait for the disk.
func (l *Ledger) AppendBlob(leaf []byte, b *Blob) (index int64, err error) {
	if err := checkLeaf(leaf, true); err != nil {
		return 0, err
	}
	if !b.synced {
		return 0, errors.New("append entry: its blob was not synced")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	to, err := l.room(journal.EntryLen(len(leaf), len(b.salt)+len(b.ref.ID)))
	if err != nil {
		return 0, err
	}
	was := len(to.buf)
	to.buf = journal.AppendBlobEntry(to.buf, l.next, leaf, &b.salt, b.ref)
	// Behind the leaf come its kind, the salt, the size and the id.
	end := len(to.buf) - journal.BlobTail(b.ref)
	if !event.PutCommitment(to.buf[was:end], &b.sum) {
		to.buf = to.buf[:was]
		return 0, errors.New("append entry: it has a value, but its leaf no commitment")
	}
	to.marks = append(to.marks, b.mark)
	b.name, b.synced = "", false
	return l.queued(to, was), nil
}

// appendLarge queues an entry with a value that came in one piece but is too
// large to be kept beside its leaf. It waits for the disk.
func (l *Ledger) appendLarge(leaf, value []byte) (int64, error) {
	b, err := l.NewBlob()
	if err != nil {
		return 0, err
	}
	if _, err := b.Write(value); err != nil {
		return 0, err
	}
	if err := b.Sync(); err != nil {
		return 0, err
	}
	index, err := l.AppendBlob(leaf, b)
	if err != nil {
		b.Abort()
	}
	return index, err
}
