// Package ledger is the sequencer of the log and its only writer: it gives
// each entry its index, makes it durable, and signs what is durable.
//
//	Append ─▶ pending batch ─▶ committer: seed, commitments, tree, root ─▶ one write, one fdatasync
//	                                                  │                             │
//	                                     once a second: checkpoint ◀── publish, tell subscribers
//	                                                  └─▶ sealer: complete journal files become segments
//
// What it promises: an entry below Durable is on the disk and stays; a
// checkpoint is only ever signed over such entries, and never over fewer or
// others than one before. After a failed write or sync nothing more is
// recorded: every Append returns that error for as long as the process lives,
// since nobody can tell what is on the disk then.
//
// It knows nothing of PostgreSQL: leaves and values are bytes, but for its own
// entries (start, stop, heartbeat, recover).
//
// Files, all in Config.Dir: LOCK, log.json, key, succession, checkpoint, witnessed, journal/, segment/, blob/, pending/, tile/.
package ledger

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// MaxInline is the largest value kept beside its leaf, in bytes. Larger ones
// are blobs.
const MaxInline = 256 << 10

// ErrClosed is returned by calls after Close.
var ErrClosed = errors.New("the log is closed")

// Config are the parameters of a ledger. Only Dir must be set.
type Config struct {
	Dir    string // data directory; made if it is missing
	Origin string // name of the log; default: that of log.json or key, or pgnotary/HOST/8 random hex digits

	Key     crypto.Signer // signs the log (checkpoint.SignerOf says how); default: the key in Dir/key, made if it is missing
	NextKey crypto.Signer // takes its place at this start, unless it has already; default: the key in Dir/key.next, if there is one and Key is nil

	SegmentSize     int64         // a journal file ends after this many bytes; default 64 MiB
	SegmentAge      time.Duration // or this time; default 24 h
	Immutable       bool          // sealed files get the immutable flag where that is possible
	Lazy            time.Duration // entries nobody wants are committed after this time; default 10 ms
	CheckpointEvery time.Duration // a checkpoint is signed this often if the log grew; default 1 s
	HeartbeatEvery  time.Duration // a heartbeat entry is made this often; default 60 s

	Version    string       // of the program, for the start entry
	StartFacts []event.Fact // further facts of the start entry
	Sessions   func() int   // number of sessions now, for the heartbeat entry
	Observer   Observer     // told of each commit
	Witness    Witness      // has checkpoints cosigned; nil for none

	FS     durable.FS   // default durable.OS
	Now    func() int64 // Unix nanoseconds; default the system's clock
	Rand   io.Reader    // default crypto/rand
	Logger *slog.Logger // default: discarded

	Retain Retain // how long things are kept; the zero value keeps all

	byHand bool // nothing is sealed by itself; for tests

	room int64 // journal.Options.Room; tests on slow file systems want little
}

// An Observer is told how commits go.
type Observer interface {
	// Commit is called by the committer after each batch that became durable,
	// with its entries and bytes and how long it took. It must return at once.
	Commit(entries int, bytes int64, elapsed time.Duration)
}

// A Ledger is an open log. All methods may be called concurrently.
type Ledger struct {
	cfg    Config
	info   logInfo
	signer checkpoint.Signer
	lock   io.Closer

	// Set while the log is opened, then only read.
	key, nextKey crypto.Signer
	vkeys        []string // in the order they were in force; the last one is
	succession   []byte   // how each named the next

	mu      sync.Mutex
	next    int64    // index of the next entry
	fill    *batch   // takes entries; nil if none came since it was taken
	full    []*batch // that had no more room, oldest first
	free    []*batch // empty, kept for their memory
	armed   bool     // the lazy timer runs
	tenders int      // attend to the lazy entries in its place
	closing bool
	failed  error // the error that ended recording
	subs    []func(durable int64, err error)
	lazy    *time.Timer

	wanted  atomic.Int64  // entries with a smaller index are wanted now
	idle    atomic.Bool   // the committer sleeps, or is about to
	wake    chan struct{} // one token, from whoever set idle from true to false
	durable atomic.Int64
	backlog atomic.Int64

	// Guarded by turn, which whoever commits holds: the committer, or TryCommit.
	turn     sync.Mutex
	w        *journal.Writer
	tree     *tree.Builder
	cursor   journal.Cursor // its Seed is that of the current bundle
	tiles    []fullTile     // full since the last commit, not yet written
	unsynced []string       // tile files the current journal file made full
	unmarked bool           // marks went since the current journal file was begun
	done     chan struct{}  // closed when the committer ended

	pub struct { // what the next checkpoint may be signed over
		sync.Mutex
		size int64
		root tree.Hash
	}
	ck struct { // the last checkpoint, as it is in its file; held while that is replaced
		sync.Mutex
		size   int64
		signed []byte
	}
	witnessed     atomic.Int64
	wantWitnessed atomic.Int64  // entries with a smaller index are wanted witnessed now
	askNow        chan struct{} // one token: there may be something to cosign
	witnessSubs   []func(witnessed int64, err error)
	witnessDone   chan struct{}

	signed    atomic.Int64 // ck.size, for who does not want to wait
	cut       atomic.Int64 // a journal file is to end here; see Rotate
	sealer    sealer
	clerk     clerk
	stopKeep  chan struct{} // ends the keeper
	keepDone  chan struct{}
	closeOnce sync.Once
	closeErr  error
}

// A batch collects entries in the form of a journal batch's body, so that
// Append copies them to where they are written from.
type batch struct {
	buf   []byte // journal.BatchHeaderLen bytes of room, then the body
	first int64
	count int
	begun time.Time
	marks []string // of blobs that entries refer to
}

// keepBatch is the size up to which a batch's memory is used again.
const keepBatch = 2 << 20

// Append queues an entry and returns its index. leaf and value are copied. A
// nil value means that the entry has none; otherwise leaf ends in an empty
// commitment (event.Leaf.HasValue), which is filled in when the entry is
// committed. It does not wait for the disk, except for a value over MaxInline
// bytes, and does not allocate once the batches have grown to their size.
func (l *Ledger) Append(leaf, value []byte) (index int64, err error) {
	if err := checkLeaf(leaf, value != nil); err != nil {
		return 0, err
	}
	if len(value) > MaxInline {
		return l.appendLarge(leaf, value)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appendLocked(leaf, value)
}

// appendLocked queues an entry that was checked. Called with mu held.
func (l *Ledger) appendLocked(leaf, value []byte) (index int64, err error) {
	b, err := l.room(journal.EntryLen(len(leaf), len(value)))
	if err != nil {
		return 0, err
	}
	was := len(b.buf)
	b.buf = journal.AppendEntry(b.buf, l.next, leaf, value)
	return l.queued(b, was), nil
}

// checkLeaf refuses what could not be committed; that would be a mistake of
// the caller and must not end the log.
func checkLeaf(leaf []byte, value bool) error {
	const place = `A="}` // how an empty commitment ends
	if len(leaf) == 0 || len(leaf) > event.MaxLeaf {
		return fmt.Errorf("append entry: leaf of %d bytes, want 1 to %d", len(leaf), event.MaxLeaf)
	}
	if value && (len(leaf) < event.CommitmentLen || string(leaf[len(leaf)-len(place):]) != place) {
		return errors.New("append entry: it has a value, but its leaf no commitment")
	}
	return nil
}

// room returns a batch with room for n more bytes. Called with mu held.
func (l *Ledger) room(n int) (*batch, error) {
	switch {
	case l.failed != nil:
		return nil, l.failed
	case l.closing:
		return nil, ErrClosed
	}
	if l.fill != nil && len(l.fill.buf)-journal.BatchHeaderLen+n > journal.MaxBody {
		l.full = append(l.full, l.fill)
		l.fill = nil
		l.kick()
	}
	if l.fill != nil {
		return l.fill, nil
	}
	if k := len(l.free) - 1; k >= 0 {
		l.fill, l.free = l.free[k], l.free[:k]
	} else {
		l.fill = &batch{buf: make([]byte, journal.BatchHeaderLen, 16<<10)}
	}
	l.fill.first, l.fill.begun = l.next, time.Now()
	if l.tenders == 0 {
		l.arm(l.cfg.Lazy)
	}
	return l.fill, nil
}

// queued counts the entry that was just added to b. Called with mu held.
func (l *Ledger) queued(b *batch, was int) (index int64) {
	b.count++
	index = l.next
	l.next++
	l.backlog.Add(int64(len(b.buf) - was))
	return index
}

// Want asks that the entry at index becomes durable as soon as possible. It
// costs two atomic operations while the committer is busy.
func (l *Ledger) Want(index int64) {
	for {
		w := l.wanted.Load()
		if index < w {
			return
		}
		if l.wanted.CompareAndSwap(w, index+1) {
			break
		}
	}
	l.kick()
}

// kick wakes the committer if it sleeps. The channel has room for the one
// token there can be.
func (l *Ledger) kick() {
	if l.idle.Load() && l.idle.CompareAndSwap(true, false) {
		l.wake <- struct{}{}
	}
}

// Attend says that from now on, until Leave, the caller calls Tend in place of
// the lazy timer: one that is awake anyway does so for less than a timer costs.
func (l *Ledger) Attend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tenders++
}

// Leave ends what Attend began.
func (l *Ledger) Leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tenders--; l.tenders == 0 && l.fill != nil {
		l.arm(max(0, l.rest()))
	}
}

// Tend wants the entries that nobody has wanted for too long, and returns in
// how many milliseconds it is to be called again at the latest.
func (l *Ledger) Tend() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.cfg.Lazy
	if l.fill != nil && l.failed == nil {
		if rest = l.rest(); rest <= 0 {
			l.Want(l.next - 1)
			rest = l.cfg.Lazy
		}
	}
	return int((rest + time.Millisecond - 1) / time.Millisecond)
}

// rest is how long the entries queued last may still wait. Called with mu held.
func (l *Ledger) rest() time.Duration { return l.cfg.Lazy - time.Since(l.fill.begun) }

// arm starts the lazy timer unless it runs. Called with mu held.
func (l *Ledger) arm(d time.Duration) {
	if !l.armed {
		l.armed = true
		l.lazy.Reset(d)
	}
}

// tick is what the lazy timer runs.
func (l *Ledger) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	if l.fill == nil || l.failed != nil {
		return
	}
	// The batch the timer was set for may be long committed.
	if rest := l.rest(); rest > l.cfg.Lazy/16 {
		l.arm(rest)
		return
	}
	l.Want(l.next - 1)
}

// Durable returns the number of durable entries: those with a smaller index.
func (l *Ledger) Durable() int64 { return l.durable.Load() }

// Backlog returns the bytes queued and not yet durable.
func (l *Ledger) Backlog() int64 { return l.backlog.Load() }

// Subscribe makes the committer call f after each commit with the number of
// durable entries, and once with the error if recording ends by one. f must
// return at once.
func (l *Ledger) Subscribe(f func(durable int64, err error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs = append(l.subs[:len(l.subs):len(l.subs)], f)
}

// Emit queues an entry of the proxy itself. If the leaf has no time, it gets
// the present; HasValue and Size are set from value, nil meaning none.
func (l *Ledger) Emit(leaf *event.Leaf, value []byte) (index int64, err error) {
	e := *leaf
	if e.Time == 0 {
		e.Time = l.cfg.Now()
	}
	e.HasValue, e.Size = value != nil, int64(len(value))
	return l.Append(e.Append(nil), value)
}

// Err returns the error that ended recording, nil while it goes on.
func (l *Ledger) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// Origin returns the name of the log.
func (l *Ledger) Origin() string { return l.info.Origin }

// VKey returns the key that the log's checkpoints are verified with.
func (l *Ledger) VKey() string { return l.vkeys[len(l.vkeys)-1] }

// Dir returns the data directory.
func (l *Ledger) Dir() string { return l.cfg.Dir }

// fail ends recording for good. Only the first error counts.
func (l *Ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = fmt.Errorf("recording ended: %w", err)
		l.cfg.Logger.Error("recording ended", slog.Any("error", err), slog.Int64("durable", l.durable.Load()))
	}
	l.kick()
}
