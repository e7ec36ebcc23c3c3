// Package query reads a log for people: it lists entries, joins each
// statement with its parameters and its outcome, searches and follows.
//
// It works on the data directory of a log at rest or of one that another
// process writes, and never changes it. Of a log being written it shows what
// is known to be durable. It decodes what the session wrote down as bytes:
//
//	parse   #7  P stmt "SELECT $1"          ──┐ parse 7
//	execute #9  B E, raw parameters         ──┴─▶ Statement ◀──┐ of 9
//	outcome #10 tags, rows, duration, error ──────────────────┘
//	settle  #15 committed, since 9          ──────────────────▶ committed
//
// Nothing here is evidence: package verify checks, this one displays.
package query

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// An Entry is one entry of the log, its leaf and its value as they stand.
type Entry = journal.Entry

// A Log is a read-only view of a data directory. It may be used concurrently.
// It keeps no file open between calls.
type Log struct {
	// MaxValue is how many bytes a value may have to be read for a statement, 0 for any size. It is for a process that
	// must not need several times the memory of the largest statement, however it is looked at; Value and Blob do not
	// go by it. It is to be set before the log is used.
	MaxValue int64

	dir    string
	reader *segment.Reader
	info   struct {
		Format  int       `json:"format"`
		Origin  string    `json:"origin"`
		VKey    string    `json:"vkey"`
		Created time.Time `json:"created"`
	}

	infoText   []byte // log.json
	vkeys      []string
	succession []byte

	mu    sync.Mutex
	roots map[int64]tree.Hash // of full bundles, see nodes

	growing map[int64]*indexBuilder // of journal files, by first entry; Index only
}

// maxLogJSON bounds log.json, in bytes.
const maxLogJSON = 64 << 10

// formatVersion is the version of data directories this package reads.
const formatVersion = 1

// Open returns a view of the log in the data directory dir.
func Open(dir string) (*Log, error) {
	l := &Log{dir: dir, roots: make(map[int64]tree.Hash)}
	b, err := durable.ReadFile(durable.OS, filepath.Join(dir, "log.json"), maxLogJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open log: %s is not a data directory: it has no log.json", dir)
	} else if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := json.Unmarshal(b, &l.info); err != nil {
		return nil, fmt.Errorf("open log: %s: %w", filepath.Join(dir, "log.json"), err)
	}
	if l.info.Format != formatVersion {
		return nil, fmt.Errorf("open log: %s has format %d, this program reads %d", dir, l.info.Format, formatVersion)
	}
	l.infoText, l.vkeys = b, []string{l.info.VKey}
	l.succession, err = durable.ReadFile(durable.OS, filepath.Join(dir, "succession"), checkpoint.MaxSuccession)
	if err == nil {
		l.vkeys, err = checkpoint.ParseSuccession(l.succession, l.info.VKey)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %s: %w", filepath.Join(dir, "succession"), err)
	}
	if l.reader, err = segment.OpenReaderFS(durable.OS, dir, l.hints()...); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

// Origin returns the log's name, which its checkpoints begin with.
func (l *Log) Origin() string { return l.info.Origin }

// VKey returns the key, in the form of note verifiers, that checks the checkpoints.
func (l *Log) VKey() string { return l.vkeys[len(l.vkeys)-1] }

// VKeys returns all keys the log ever had, the one in force last.
func (l *Log) VKeys() []string { return l.vkeys }

// Succession returns how the keys named one another (docs/format/checkpoint.md), nil if there
// was only one.
func (l *Log) Succession() []byte { return l.succession }

// LogJSON returns log.json, which entry 0 vouches for.
func (l *Log) LogJSON() []byte { return l.infoText }

// Created returns when the log was begun.
func (l *Log) Created() time.Time { return l.info.Created }

// Size looks at the files again and returns the number of entries that may be
// shown: those known to be durable.
func (l *Log) Size() (int64, error) { return l.reader.Size() }

// Live reports whether a process is writing the log.
func (l *Log) Live() (bool, error) { return l.reader.Live() }

// catchUpFor bounds the wait of CatchUp, which ends with the writer's next
// commit or checkpoint: within a second, if its disk is not very slow.
const catchUpFor = 3 * time.Second

// CatchUp waits until all that was in the files when it was called may be
// shown: the newest entries of a log being written are known to be durable
// only a little later. So who runs a statement and then looks for it finds it.
func (l *Log) CatchUp(ctx context.Context) error {
	return l.CatchUpTo(ctx, math.MaxInt64)
}

// CatchUpTo is CatchUp for the entries before the index want.
func (l *Log) CatchUpTo(ctx context.Context, want int64) error {
	size, err := l.Size()
	want = min(want, l.reader.Written())
	for until := time.Now().Add(catchUpFor); err == nil && size < want && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		size, err = l.Size()
	}
	return err
}

// First returns the index of the first entry that is still there.
func (l *Log) First() int64 { return l.reader.First() }

// FirstValue returns the index of the first entry whose value was not pruned with others'.
func (l *Log) FirstValue() int64 { return l.reader.FirstValue() }

// Checkpoint returns the latest signed checkpoint. Before there is one, the
// error wraps fs.ErrNotExist.
func (l *Log) Checkpoint() ([]byte, error) {
	b, err := durable.ReadFile(durable.OS, filepath.Join(l.dir, "checkpoint"), checkpoint.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	return b, nil
}

// Witnessed returns the latest checkpoint that enough witnesses cosigned, or
// the latest of all if it has as many cosignatures or no witness was ever asked.
func (l *Log) Witnessed() ([]byte, error) {
	latest, err := l.Checkpoint()
	if err != nil {
		return nil, err
	}
	witnessed, err := durable.ReadFile(durable.OS, filepath.Join(l.dir, "witnessed"), checkpoint.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return latest, nil
	} else if err != nil {
		return nil, fmt.Errorf("read witnessed checkpoint: %w", err)
	}
	if bytes.Count(latest, []byte("\n")) >= bytes.Count(witnessed, []byte("\n")) {
		return latest, nil
	}
	return witnessed, nil
}

// Entry returns one entry, which stays valid. For an index that may not be
// shown the error wraps fs.ErrNotExist.
func (l *Log) Entry(index int64) (Entry, error) {
	if index < 0 {
		return Entry{}, fmt.Errorf("entry %d: %w", index, fs.ErrNotExist)
	}
	return l.reader.Entry(index)
}

// Entries iterates over the entries from index from up to but without to, as
// far as they may be shown. An entry is valid until the next step; the
// iteration ends after an error. Salts are left out.
func (l *Log) Entries(from, to int64) iter.Seq2[Entry, error] { return l.reader.Unsalted(from, to) }

func (l *Log) maxValue() int64 { return l.MaxValue }

func (l *Log) stretches() stretches { return l.reader.Cursor() }

// Copy returns an entry that others go back to from what segments keep of it,
// when the entry itself or its value is no longer there.
func (l *Log) Copy(index int64) (Entry, error) { return l.reader.Copy(index) }

// Value returns an entry's value, wherever it is kept; nil if it has none.
func (l *Log) Value(e *Entry) ([]byte, error) {
	switch {
	case e.Blob != nil:
		return l.Blob(e.Blob)
	case e.Gone != journal.NotGone:
		return nil, fmt.Errorf("value of entry %d: it was %s: %w", e.Index, e.Gone, fs.ErrNotExist)
	}
	return e.Value, nil
}

// maxBlob bounds a blob: no message of the protocol is larger.
const maxBlob = 1 << 30

// Blob returns the content of a blob.
func (l *Log) Blob(ref *journal.BlobRef) ([]byte, error) {
	f, err := l.reader.OpenBlob(ref)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err == nil && (size != ref.Size || size > maxBlob) {
		err = fmt.Errorf("it has %d bytes, want %d", size, ref.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("read blob %x: %w", ref.ID, err)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("read blob %x: %w", ref.ID, err)
	}
	return b, nil
}

// Search calls fn with each statement that f selects, in the order of the
// log, as far as it may be shown when Search begins. It needs the same memory
// for a log of any length. The statement is valid until fn returns; an error
// of fn ends the search and is returned as it is.
func (l *Log) Search(ctx context.Context, f Filter, fn func(*Statement) error) error {
	return l.search(ctx, f, &taker{statement: fn})
}

// renderAtOnce is how many bytes are collected of statements that are rendered one by one.
const renderAtOnce = 64 << 10

// Render is Search for those who want each statement as bytes: render appends
// them to dst, write takes those of several statements, in the order of the log.
// Several goroutines call render at once. An error of either ends the search and
// is returned as it is.
func (l *Log) Render(ctx context.Context, f Filter, render func(dst []byte, s *Statement) ([]byte, error), write func(b []byte) error) error {
	var buf []byte // of statements that were not rendered before
	flush := func() (err error) {
		if len(buf) > 0 {
			err = write(buf)
		}
		buf = buf[:0]
		return err
	}
	t := &taker{render: render}
	t.statement = func(s *Statement) (err error) {
		if buf, err = render(buf, s); err == nil && len(buf) >= renderAtOnce {
			err = flush()
		}
		return err
	}
	t.rendered = func(b []byte) error {
		if err := flush(); err != nil {
			return err
		}
		return write(b)
	}
	err := l.search(ctx, f, t)
	if ferr := flush(); err == nil {
		err = ferr
	}
	return err
}

// search is Search and Render.
func (l *Log) search(ctx context.Context, f Filter, t *taker) error {
	size, err := l.Size()
	if err != nil {
		return err
	}
	from := max(f.From, l.First())
	if !f.Since.IsZero() && !f.All {
		start, err := l.seek(f.Since)
		if err != nil {
			return err
		}
		from = max(from, start)
	}
	m, err := f.compile()
	if err != nil {
		return err
	}
	var p *plan
	if !f.All {
		p = l.plan(m)
	}
	j := newJoiner(l, m)
	j.portion = portionEntries
	return j.search(ctx, l, from, size, p, t)
}

// Statement returns the entry at index as a statement joined with its end.
// For an outcome or a settlement it is the statement that it speaks about, or,
// if it speaks of none or that was pruned, what it says itself.
func (l *Log) Statement(ctx context.Context, index int64) (*Statement, error) {
	e, err := l.Entry(index)
	if err != nil {
		return nil, err
	}
	var v view
	if err := v.scan(e.Leaf); err != nil {
		return nil, fmt.Errorf("read entry %d: %w", index, err)
	}
	if joined(v.kind) {
		if index = v.of - 1; index < l.First() {
			var s Statement
			err := newDecoder(l).admission(&s, &e, &v)
			return s.Clone(), err
		}
	}
	size, err := l.Size()
	if err != nil {
		return nil, err
	}
	var found *Statement
	f := Filter{From: index, End: index + 1, Limit: 1, everyBind: true}
	err = search(ctx, l, &f, index, size, func(s *Statement) error {
		found = s.Clone()
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("entry %d is no statement", index)
	}
	return found, err
}

// Detail returns what there is to say of one entry: the statement as Statement
// does, the entry, and its value, nil if it has none, none any more or one above MaxValue.
func (l *Log) Detail(ctx context.Context, index int64) (*Statement, Entry, []byte, error) {
	e, err := l.Entry(index)
	if err != nil {
		return nil, e, nil, err
	}
	s, err := l.Statement(ctx, index)
	if err != nil {
		return nil, e, nil, err
	}
	if newDecoder(l).tooLarge(&e) {
		return s, e, nil, nil
	}
	value, err := l.Value(&e)
	if errors.Is(err, fs.ErrNotExist) {
		value, err = nil, nil
	}
	return s, e, value, err
}

// seek returns an index before which no entry has a time of t or later, if
// the clock was never set back by more than the slack. It reads some twenty
// entries of the largest log.
func (l *Log) seek(t time.Time) (int64, error) {
	size, err := l.Size()
	if err != nil {
		return 0, err
	}
	first, from := l.First(), t.Add(-slack).UnixNano()
	var failed error
	n := sort.Search(int(size-first), func(i int) bool {
		if failed != nil {
			return true
		}
		var at time.Time
		at, failed = l.Time(first + int64(i))
		return at.UnixNano() >= from
	})
	return first + int64(n), failed
}

// Time returns when the entry at index was recorded, by the clock of then. For an index
// that may not be shown the error wraps fs.ErrNotExist.
func (l *Log) Time(index int64) (time.Time, error) {
	e, err := l.Entry(index)
	var v view
	if err == nil {
		err = v.scan(e.Leaf)
	}
	var at int64
	if err == nil {
		at, err = v.unixNano()
	}
	return time.Unix(0, at), err
}

// Bundle returns the entries from index n*256 on, width of them, in the format
// of tlog-tiles: each leaf with its length in 16 bits in front.
func (l *Log) Bundle(n int64, width int) ([]byte, error) {
	var out []byte
	err := l.bundle(n, width, func(leaf []byte) {
		out = binary.BigEndian.AppendUint16(out, uint16(len(leaf)))
		out = append(out, leaf...)
	})
	return out, err
}

// bundle calls f with width leaves from index n*256 on.
func (l *Log) bundle(n int64, width int, f func(leaf []byte)) error {
	if n < 0 || n > 1<<54 || width < 1 || width > tree.Width {
		return fmt.Errorf("bundle %d of width %d: %w", n, width, fs.ErrNotExist)
	}
	from, got := n*tree.Width, 0
	for e, err := range l.reader.Leaves(from, from+int64(width)) {
		if err != nil {
			return err
		}
		f(e.Leaf)
		got++
	}
	if got != width {
		return fmt.Errorf("entry %d: %w", from+int64(got), fs.ErrNotExist)
	}
	return nil
}
