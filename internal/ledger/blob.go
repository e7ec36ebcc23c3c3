package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"strings"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
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
	name   string       // what Abort removes: while written with .tmp, then without; "" when an entry refers to it
	ref    journal.BlobRef
	salt   [32]byte
	sum    [32]byte // the commitment, once synced
	h      hash.Hash
	flying int64 // bytes that writeback was asked for
	synced bool
}

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
	b.name = strings.TrimSuffix(journal.BlobPath(l.cfg.Dir, b.ref.ID), ".blob") + ".tmp"
	var err error
	if b.f, err = l.cfg.FS.Create(b.name, 0o600); err != nil {
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
	fsys, final := b.l.cfg.FS, journal.BlobPath(b.l.cfg.Dir, b.ref.ID)
	// If we die in here: a .tmp file, or a blob no entry refers to, is left.
	if err := b.f.Sync(); err != nil {
		b.Abort()
		return fmt.Errorf("sync blob: %w", err)
	}
	err := b.f.Close()
	b.f = nil
	if err == nil {
		err = fsys.Rename(b.name, final)
	}
	if err != nil {
		b.Abort()
		return fmt.Errorf("name blob: %w", err)
	}
	b.name = final
	if err := fsys.SyncDir(filepath.Dir(final)); err != nil {
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
		_ = b.l.cfg.FS.Remove(b.name) // what is left means nothing
		b.name = ""
	}
	b.synced = false
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
