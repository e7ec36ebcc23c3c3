package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// A Reader reads a journal without changing it, at rest or while another
// process appends to it. It may be used concurrently. It keeps no file open
// between calls, and in memory one place for each 256 entries of the files it
// was asked about lately.
//
// It checks CRCs and the order of batches, not the tree: that is for verify.
type Reader struct {
	fs  durable.FS
	dir string // the data directory

	mu      sync.Mutex
	hints   []Hint       // of files that are not in files yet
	files   []*fileIndex // in order; the last one grows
	size    int64
	written int64
}

// A fileIndex is what a reader knows about one file.
type fileIndex struct {
	first int64
	head  *FileHeader
	// marks[i] is the place of the batch that holds entry first + 256*i.
	marks []place
	// next is where the search for more batches goes on: the start of the last
	// batch seen, which may turn out not to have been written whole.
	next place
	// hinted says that marks and next come from a Hint, if only at first: each
	// is believed once a batch was found there.
	hinted bool
	used   uint64 // when a seek used marks last
}

// forget makes x look for batches from the beginning of the file.
func (x *fileIndex) forget() {
	x.marks, x.next, x.hinted = nil, x.head.start(), false
}

// maxIndexed is the number of files whose marks are kept.
const maxIndexed = 32

// OpenReader returns a reader of the log in the data directory dir. A log
// without a journal file has no entries yet.
func OpenReader(dir string) (*Reader, error) { return OpenReaderFS(durable.OS, dir) }

// OpenReaderFS is OpenReader on another file system.
// The hints save stepping over the batches before their places.
func OpenReaderFS(fsys durable.FS, dir string, hints ...Hint) (*Reader, error) {
	r := &Reader{fs: fsys, dir: dir, hints: hints}
	_, err := r.Size()
	return r, err
}

func (r *Reader) journal() string { return filepath.Join(r.dir, "journal") }

// Live reports whether a process is writing the log.
func (r *Reader) Live() (bool, error) { return r.fs.Locked(filepath.Join(r.dir, "LOCK")) }

// First returns the index of the first entry.
func (r *Reader) First() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.files) == 0 {
		return 0
	}
	return r.files[0].first
}

// Size looks at the files again and returns how many entries may be shown.
// Of a log at rest these are all valid ones. While it is written, they are
// those known to be durable: the ones the checkpoint covers, and all before
// the last batch, which may be in the page cache only.
func (r *Reader) Size() (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sizeLocked()
}

// Written returns how many valid entries Size found in the files, with those
// that are perhaps not durable yet.
func (r *Reader) Written() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.written
}

func (r *Reader) sizeLocked() (int64, error) {
	before, err := r.Live()
	if err != nil {
		return 0, err
	}
	covered, err := r.checkpointSize()
	if err != nil {
		return 0, err
	}
	if err := r.list(); err != nil {
		return 0, err
	}
	if len(r.files) == 0 {
		return 0, nil
	}
	last := r.files[len(r.files)-1]
	s, err := r.open(last)
	if errors.Is(err, fs.ErrNotExist) {
		return r.size, nil // it went while we looked: a later call sees what came of it
	} else if err != nil {
		return 0, err
	}
	defer s.f.Close()
	lastFirst, end, err := last.scan(s)
	if err != nil {
		return 0, err
	}
	// A writer may have begun while we looked.
	after, err := r.Live()
	if err != nil {
		return 0, err
	}
	r.written = max(r.written, end)
	if before || after {
		end = min(end, max(lastFirst, covered))
	}
	r.size = max(r.size, end)
	return r.size, nil
}

// checkpointSize returns the size the signed checkpoint is over, 0 if there
// is none. The signature is not checked: a wrong size shows at most entries
// that are valid.
func (r *Reader) checkpointSize() (int64, error) {
	b, err := durable.ReadFile(r.fs, filepath.Join(r.dir, "checkpoint"), 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("read checkpoint: %w", err)
	}
	lines := bytes.SplitN(b, []byte("\n"), 3)
	if len(lines) < 3 {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(lines[1]), 10, 64)
	if err != nil {
		return 0, nil
	}
	return n, nil
}

// list brings r.files up to date with the directory.
func (r *Reader) list() error {
	firsts, err := listFiles(r.fs, r.journal())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	old := r.files
	r.files = make([]*fileIndex, 0, len(firsts))
	for _, first := range firsts {
		for len(old) > 0 && old[0].first < first {
			old = old[1:]
		}
		if len(old) > 0 && old[0].first == first {
			r.files = append(r.files, old[0])
			continue
		}
		x := &fileIndex{first: first}
		for _, h := range r.hints {
			if h.First == first {
				x.hint(h.Places)
			}
		}
		r.files = append(r.files, x)
	}
	return nil
}

// open opens a file of the index and learns its header.
func (r *Reader) open(x *fileIndex) (*scanner, error) {
	s, err := openScanner(r.fs, r.journal(), x.first)
	if err != nil {
		return nil, err
	}
	if x.head == nil {
		if x.head = s.head; !x.hinted {
			x.next = s.head.start()
		}
	}
	return s, nil
}

// scan steps over the batches that came since the last scan. It returns the
// index of the first entry of the last valid batch, and that behind its last.
// Of batches before the last one only headers are looked at: that a batch
// came after them proves that they were whole.
func (x *fileIndex) scan(s *scanner) (lastFirst, end int64, err error) {
	// The batch at x.next is looked at again: it may have been half-written,
	// and a recovery may have put another one in its place.
	for n := len(x.marks); n > 0 && x.marks[n-1].off >= x.next.off; n-- {
		x.marks = x.marks[:n-1]
	}
	s.at = x.next
	var last BatchHeader
	for {
		h, ok, err := s.header()
		if err != nil {
			return 0, 0, err
		}
		if !ok && x.hinted && last.Count == 0 {
			x.forget() // nothing is there: the hint was of another file, or the file is not what it was
			return x.scan(s)
		} else if !ok {
			break
		}
		for (h.First+int64(h.Count)-1-x.first)/tree.Width >= int64(len(x.marks)) {
			x.marks = append(x.marks, s.at)
		}
		x.next, last = s.at, h
		s.at = s.at.after(&h)
	}
	if last.Count == 0 {
		return x.next.index, x.next.index, nil
	}
	s.at = x.next
	if _, whole, err := s.readBody(&last); err != nil {
		return 0, 0, err
	} else if !whole {
		return last.First, last.First, nil
	}
	return last.First, last.First + int64(last.Count), nil
}

// Header returns the header of the file that holds the entry at index, or
// would hold it as the log's next. A log without a file has none: nil.
func (r *Reader) Header(index int64) (*FileHeader, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.fileOf(index)
	if i < 0 {
		if len(r.files) > 0 {
			return nil, fmt.Errorf("entry %d is before the first of the journal, %d", index, r.files[0].first)
		}
		return nil, nil
	}
	if r.files[i].head == nil {
		s, err := r.open(r.files[i])
		if err != nil {
			return nil, err
		}
		if err := s.f.Close(); err != nil {
			return nil, err
		}
	}
	return r.files[i].head, nil
}

// BatchRoot returns the root that the batch states which holds the entry at
// index, the first of a bundle. That names all entries up to the end of the batch.
func (r *Reader) BatchRoot(index int64) (tree.Hash, error) {
	s, _, err := r.seek(index)
	if err != nil {
		return tree.Hash{}, err
	}
	h, ok, err := s.header()
	if err == nil && !ok {
		err = s.damaged("the batch is bad or missing")
	}
	return h.Root, errors.Join(err, s.f.Close())
}

// fileOf returns the position in r.files of the file for an index, or -1.
func (r *Reader) fileOf(index int64) int {
	i, found := slices.BinarySearchFunc(r.files, index, func(x *fileIndex, index int64) int {
		switch {
		case x.first < index:
			return -1
		case x.first > index:
			return 1
		}
		return 0
	})
	if found {
		return i
	}
	return i - 1
}

// Entry returns a copy of one entry. An index that may not be shown, see
// Size, is an error that matches fs.ErrNotExist.
func (r *Reader) Entry(index int64) (Entry, error) {
	for e, err := range r.Entries(index, index+1) {
		if err != nil {
			return Entry{}, err
		}
		e.Leaf, e.Value = bytes.Clone(e.Leaf), bytes.Clone(e.Value)
		return e, nil
	}
	return Entry{}, fmt.Errorf("entry %d: %w", index, fs.ErrNotExist)
}

// Entries iterates over the entries from index from up to, without, to, as
// far as they may be shown: if to is beyond what Size told last, it is asked
// again, once. The iteration ends after the first error. It holds one batch in memory.
func (r *Reader) Entries(from, to int64) iter.Seq2[Entry, error] { return r.entries(from, to, true) }

// Unsalted is Entries without the salts of inline values, which few readers need.
func (r *Reader) Unsalted(from, to int64) iter.Seq2[Entry, error] { return r.entries(from, to, false) }

func (r *Reader) entries(from, to int64, salted bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		to, err := r.limit(to)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for from < to {
			next, more, err := r.entriesOfFile(from, to, salted, yield)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if !more {
				return
			}
			from = next
		}
	}
}

// limit cuts to down to what may be shown.
func (r *Reader) limit(to int64) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := r.size
	if to > size {
		var err error
		if size, err = r.sizeLocked(); err != nil {
			return 0, err
		}
	}
	return min(to, size), nil
}

// entriesOfFile yields the entries of one file that lie in [from, to), and
// returns the index behind the last one; more is false if yield had enough.
func (r *Reader) entriesOfFile(from, to int64, salted bool, yield func(Entry, error) bool) (next int64, more bool, err error) {
	s, bundle, err := r.seek(from)
	if err != nil {
		return 0, false, err
	}
	defer s.f.Close()
	s.durable = true // what may be shown was, before the file was opened
	var c Cursor
	var e Entry
	for {
		h, ok, err := s.header()
		if err != nil {
			return 0, false, err
		}
		if !ok {
			return from, true, r.endOfFile(s, from)
		}
		// Of the batches before the one that holds from, only that with the
		// bundle's first entry is needed: it has the seed.
		if behind := h.First + int64(h.Count); behind > from || h.First <= bundle && bundle < behind {
			body, whole, err := s.readBody(&h)
			if err != nil {
				return 0, false, err
			}
			if !whole {
				return 0, false, s.damaged("the batch has a wrong CRC")
			}
			c.Reset(body, h.First)
			for c.Next() {
				if index := c.Index - 1; index == to {
					return to, true, nil
				} else if index < from {
					continue
				}
				if salted {
					e = c.Entry()
				} else {
					c.take(&e)
				}
				if !yield(e, nil) {
					return 0, false, nil
				}
				from = c.Index
			}
			if c.Err() != nil || c.Index != behind {
				return 0, false, s.damaged("entries do not fill their batch")
			}
		}
		s.at = s.at.after(&h)
		if from >= to {
			return from, true, nil
		}
	}
}

// endOfFile tells the end of a file from a hole: the entry at index is to be
// shown, so it must be the first of a later file.
func (r *Reader) endOfFile(s *scanner, index int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.fileOf(index); i >= 0 && r.files[i].first == index && index > s.head.First {
		return nil
	}
	if len(r.files) > 0 && index < r.files[0].first {
		return fmt.Errorf("entry %d is no longer in the journal: %w", index, fs.ErrNotExist)
	}
	return s.damaged("the batch is bad or missing")
}

// seek opens the file that holds the entry at index, at the batch that holds
// the first entry of its bundle, which is returned too.
func (r *Reader) seek(index int64) (s *scanner, bundle int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.fileOf(index)
	if i < 0 {
		return nil, 0, fmt.Errorf("entry %d is no longer in the journal: %w", index, fs.ErrNotExist)
	}
	x := r.files[i]
	if s, err = r.open(x); err != nil {
		return nil, 0, err
	}
	bundle = index - index%tree.Width
	if err := x.find(s, bundle); err != nil {
		return nil, 0, errors.Join(err, s.f.Close())
	}
	r.touch(x)
	return s, bundle, nil
}

// find brings s to the batch that holds the first entry, at index, of a bundle.
func (x *fileIndex) find(s *scanner, index int64) error {
	for m := int((index - x.first) / tree.Width); ; x.forget() {
		if m >= len(x.marks) {
			if _, _, err := x.scan(s); err != nil {
				return err
			}
		}
		if m >= len(x.marks) {
			return s.damaged(fmt.Sprintf("there is no entry %d", index))
		}
		s.at = x.marks[m]
		if !x.hinted {
			return nil
		}
		h, ok, err := s.header()
		if err != nil || ok && h.First <= index && index < h.First+int64(h.Count) {
			return err
		}
	}
}

// touch notes that x was used and forgets the marks used longest ago.
func (r *Reader) touch(x *fileIndex) {
	var newest uint64
	var oldest *fileIndex
	n := 0
	for _, y := range r.files[:len(r.files)-1] { // the last one is always needed
		newest = max(newest, y.used)
		if y != x && len(y.marks) > 0 {
			if n++; oldest == nil || y.used < oldest.used {
				oldest = y
			}
		}
	}
	x.used = newest + 1
	if n >= maxIndexed {
		oldest.forget()
	}
}

// OpenBlob opens the file that holds a value. The caller closes it.
func (r *Reader) OpenBlob(ref *BlobRef) (durable.File, error) {
	f, err := r.fs.Open(BlobPath(r.dir, ref.ID))
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return f, nil
}

// BlobPath returns the name of a blob in the data directory dir.
func BlobPath(dir string, id [16]byte) string {
	return filepath.Join(dir, "blob", fmt.Sprintf("%x.blob", id[:]))
}
