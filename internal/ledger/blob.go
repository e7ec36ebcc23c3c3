package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

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

// markOf returns the name of the mark of a blob. The index is the beginning of
// the blob's id, so nobody can make a mark that says another: a start that
// believed it would remove a blob that an older entry refers to.
func markOf(id [16]byte) string {
	return fmt.Sprintf("%020d-%x", begunAt(id), id)
}

// begunAt returns the index that the next entry had when the blob was begun.
func begunAt(id [16]byte) int64 { return int64(binary.BigEndian.Uint64(id[:])) }

// parseMark returns the blob that a mark is of, and whether the index it says
// is that of the blob. What is no mark is a stranger, which verify finds.
func parseMark(name string) (id [16]byte, honest, ok bool) {
	digits, hexed, _ := strings.Cut(name, "-")
	b, err := hex.DecodeString(hexed)
	if err != nil || len(b) != len(id) || len(digits) != 20 || strings.Trim(digits, "0123456789") != "" || hexed != hex.EncodeToString(b) {
		return id, false, false
	}
	id = [16]byte(b)
	return id, name == markOf(id), true
}

// NewBlob begins a value too large for memory.
func (l *Ledger) NewBlob() (*Blob, error) {
	if err := l.Err(); err != nil {
		return nil, err
	}
	b := &Blob{l: l, h: sha256.New()}
	var random [40]byte
	if _, err := io.ReadFull(l.cfg.Rand, random[:]); err != nil {
		return nil, fmt.Errorf("make a salt: %w", err)
	}
	l.mu.Lock()
	next := l.next
	l.mu.Unlock()
	binary.BigEndian.PutUint64(b.ref.ID[:], uint64(next))
	copy(b.ref.ID[8:], random[:8])
	copy(b.salt[:], random[8:])
	b.h.Write(b.salt[:])
	b.name = journal.BlobPath(l.cfg.Dir, b.ref.ID)
	b.mark = filepath.Join(l.path(pending), markOf(b.ref.ID))
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
// All entries that are there can be read. A mark that this log did not make
// removes nothing but itself, and an entry says so.
func (l *Ledger) removePending() error {
	names, err := l.cfg.FS.List(l.path(pending))
	if err != nil {
		return fmt.Errorf("list unfinished values: %w", err)
	}
	var blobs []journal.BlobRef
	var marks, forged []string
	from := int64(math.MaxInt64)
	for _, name := range names {
		id, honest, ok := parseMark(name)
		switch {
		case !ok:
			continue
		case honest:
			blobs, from = append(blobs, journal.BlobRef{ID: id}), min(from, begunAt(id))
		default:
			forged = append(forged, name)
		}
		marks = append(marks, name)
	}
	if len(marks) == 0 {
		return nil
	}
	if len(blobs) > 0 {
		used, err := l.blobsFrom(from)
		if err != nil {
			return fmt.Errorf("find what unfinished values belong to: %w", err)
		}
		blobs = slices.DeleteFunc(blobs, func(b journal.BlobRef) bool { return used[b.ID] })
	}
	// If we die behind this: the marks are still there.
	if err := segment.RemoveBlobs(l.cfg.FS, l.cfg.Dir, blobs); err != nil {
		return err
	}
	if len(forged) > 0 {
		// If we die behind this: the next start says it again.
		if err := l.sayForged(forged); err != nil {
			return err
		}
	}
	for _, name := range marks {
		if err := l.cfg.FS.Remove(filepath.Join(l.path(pending), name)); err != nil {
			return fmt.Errorf("remove mark of a value: %w", err)
		}
	}
	l.unmarked = true
	return nil
}

// sayForged records that there were marks that this log did not make. The
// values they name stay.
func (l *Ledger) sayForged(marks []string) error {
	l.cfg.Logger.Error("somebody made marks to have recorded values removed; nothing was",
		slog.Int("marks", len(marks)), slog.String("first", marks[0]))
	_, err := l.Emit(&event.Leaf{Kind: event.KindViolation, Facts: []event.Fact{
		{Key: "reason", Val: "forged_mark"},
		{Key: "marks", Val: strconv.Itoa(len(marks))},
		{Key: "first", Val: marks[0]},
	}}, nil)
	if err != nil {
		return err
	}
	return l.commitNow()
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
