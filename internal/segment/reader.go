package segment

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"slices"
	"sync"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// A Reader reads a log across its segments and its journal without changing
// it, at rest or while another process writes, seals, prunes and erases. It
// may be used concurrently and keeps no file open between calls.
//
// It checks checksums and the order of batches, not the tree: that is for verify.
type Reader struct {
	fs      durable.FS
	dir     string // the data directory
	journal *journal.Reader

	mu   sync.Mutex
	segs []int64 // first index of each segment, ascending
}

// OpenReader returns a reader of the log in the data directory dir. A log
// without a journal file has no entries yet.
func OpenReader(dir string) (*Reader, error) { return OpenReaderFS(durable.OS, dir) }

// OpenReaderFS is OpenReader on another file system.
// The hints are of its journal files.
func OpenReaderFS(fsys durable.FS, dir string, hints ...journal.Hint) (*Reader, error) {
	r := &Reader{fs: fsys, dir: dir}
	var err error
	if r.journal, err = journal.OpenReaderFS(fsys, dir, hints...); err != nil {
		return r, err
	}
	return r, r.refresh()
}

// refresh looks which segments there are. Those of entries that the journal has are
// left from an unfinished sealing: they count for nothing, and verify does not read them.
func (r *Reader) refresh() error {
	segs, err := List(r.fs, r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.journal != nil {
		n, _ := slices.BinarySearch(segs, r.journal.First())
		segs = segs[:n]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.segs = segs
	return nil
}

func (r *Reader) segments() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.segs
}

// Live reports whether a process is writing the log.
func (r *Reader) Live() (bool, error) { return r.journal.Live() }

// Size looks at the files again and returns how many entries may be shown;
// see journal.Reader.Size.
func (r *Reader) Size() (int64, error) {
	was := r.journal.First()
	size, err := r.journal.Size()
	if err == nil && r.journal.First() != was {
		err = r.refresh()
	}
	return size, err
}

// Written returns how many valid entries Size found, with those that are
// perhaps not durable yet.
func (r *Reader) Written() int64 { return r.journal.Written() }

// First returns the index of the first entry that is still there.
func (r *Reader) First() int64 {
	if segs := r.segments(); len(segs) > 0 {
		return segs[0]
	}
	return r.journal.First()
}

// FirstValue returns the index from which on values were not pruned.
func (r *Reader) FirstValue() int64 {
	for _, first := range r.segments() {
		if f, err := r.fs.Open(ValueFile(r.dir, first)); err == nil {
			f.Close()
			return first
		} else if !errors.Is(err, fs.ErrNotExist) {
			return first // whoever reads it hears why not
		}
	}
	return r.journal.First()
}

// Sealed reports whether there is a segment that begins with entry first, and the journal has no such entries.
func (r *Reader) Sealed(first int64) (bool, error) {
	if slices.Contains(r.segments(), first) {
		return true, nil
	}
	_, err := r.Size() // it may have been sealed since
	return slices.Contains(r.segments(), first), err
}

// Header returns the header of the journal file that holds the entry at
// index, or would hold it as the log's next; nil if the log has none yet.
func (r *Reader) Header(index int64) (*journal.FileHeader, error) { return r.journal.Header(index) }

// BatchRoot returns the root of the tree that a batch of the journal states: the
// one that holds the first entry, at index, of a bundle.
func (r *Reader) BatchRoot(index int64) (tree.Hash, error) { return r.journal.BatchRoot(index) }

// Places returns where batches of a journal file are, for a journal.Hint.
func (r *Reader) Places(first, last int64) ([]byte, error) { return r.journal.Places(first, last) }

// OpenBlob opens the file that holds a value. The caller closes it.
func (r *Reader) OpenBlob(ref *journal.BlobRef) (durable.File, error) { return r.journal.OpenBlob(ref) }

// Entry returns a copy of one entry. An index that may not be shown, or was
// pruned, is an error that matches fs.ErrNotExist.
func (r *Reader) Entry(index int64) (journal.Entry, error) {
	for e, err := range r.Entries(index, index+1) {
		if err != nil {
			return journal.Entry{}, err
		}
		e.Leaf, e.Value = bytes.Clone(e.Leaf), bytes.Clone(e.Value)
		return e, nil
	}
	return journal.Entry{}, fmt.Errorf("entry %d: %w", index, fs.ErrNotExist)
}

// Entries iterates over the entries from index from up to, without, to, as
// far as they may be shown. An entry is valid until the next step. The
// iteration ends after the first error. It holds one batch or bundle in memory.
func (r *Reader) Entries(from, to int64) iter.Seq2[journal.Entry, error] {
	return r.iterate(from, to, salted)
}

// Unsalted is Entries without salts, which is faster where they are sealed.
func (r *Reader) Unsalted(from, to int64) iter.Seq2[journal.Entry, error] {
	return r.iterate(from, to, unsalted)
}

// Leaves is Entries without values and salts.
func (r *Reader) Leaves(from, to int64) iter.Seq2[journal.Entry, error] {
	return r.iterate(from, to, leaves)
}

// A detail is how much of sealed entries is read.
type detail int

const (
	leaves detail = iota
	unsalted
	salted
)

// patience is how often a place is looked up again that is no longer where it
// was: each time means that a file was sealed or pruned meanwhile.
const patience = 5

func (r *Reader) iterate(from, to int64, how detail) iter.Seq2[journal.Entry, error] {
	return func(yield func(journal.Entry, error) bool) {
		c := Cursor{r: r, how: how}
		defer c.Close()
		c.iterate(from, to, yield)
	}
}

// A Cursor reads stretches of a log one after the other. It keeps the segment open that
// it read last, and is to be closed. It is not for concurrent use.
type Cursor struct {
	r               *Reader
	how             detail
	leaves, values  *file // nil if none is open, or the values were pruned
	bundle, content []byte
	block           block
}

// Cursor returns a cursor that reads what Unsalted does.
func (r *Reader) Cursor() *Cursor { return &Cursor{r: r, how: unsalted} }

// Close closes what is open. The cursor can be used again.
func (c *Cursor) Close() {
	for _, x := range []*file{c.leaves, c.values} {
		if x != nil {
			_ = x.close() // was only read
		}
	}
	c.leaves, c.values = nil, nil
}

// Entries is Reader.Unsalted. Of a segment that stays open it goes on giving what was
// there when it was opened.
func (c *Cursor) Entries(from, to int64) iter.Seq2[journal.Entry, error] {
	return func(yield func(journal.Entry, error) bool) { c.iterate(from, to, yield) }
}

func (c *Cursor) iterate(from, to int64, yield func(journal.Entry, error) bool) {
	r := c.r
	for tries := 0; from < to; {
		was := from
		done, err := c.some(&from, to, yield)
		switch {
		case done:
			return
		case err == nil:
			tries = 0
			continue
		case errors.Is(err, fs.ErrNotExist) && (from > was || tries < patience):
			// Sealed or pruned since we looked where it is.
			tries++
			if _, err := r.journal.Size(); err != nil {
				yield(journal.Entry{}, err)
				return
			}
			if err := r.refresh(); err != nil {
				yield(journal.Entry{}, err)
				return
			}
			if from < r.First() {
				yield(journal.Entry{}, prunedError(from))
				return
			}
		default:
			yield(journal.Entry{}, err)
			return
		}
	}
}

// some yields entries from *from on, from one segment or from the journal, and
// moves *from. done says that there are no more, or yield had enough.
func (c *Cursor) some(from *int64, to int64, yield func(journal.Entry, error) bool) (done bool, err error) {
	r := c.r
	if *from < r.journal.First() {
		if done, err = c.fromSegment(from, to, yield); err != nil {
			c.Close()
		}
		return done, err
	}
	entries := r.journal.Unsalted
	if c.how == salted {
		entries = r.journal.Entries
	}
	for e, err := range entries(*from, to) {
		if err != nil {
			return false, err
		}
		*from = e.Index + 1
		if !yield(e, nil) {
			return true, nil
		}
	}
	return true, nil
}

// open opens the leaf file of the segment that holds the entry at index.
func (r *Reader) open(index int64) (*file, error) {
	segs := r.segments()
	i, found := slices.BinarySearch(segs, index)
	if !found {
		i--
	}
	if i < 0 {
		return nil, fmt.Errorf("entry %d: %w", index, fs.ErrNotExist)
	}
	x, err := openUnchecked(r.fs, LeafFile(r.dir, segs[i]), leafMagic)
	if err != nil {
		return nil, err
	}
	if x.First != segs[i] {
		return nil, errors.Join(x.damaged("it is for entry %d", x.First), x.close())
	}
	if index >= x.End() {
		return nil, errors.Join(fmt.Errorf("entry %d: %w", index, fs.ErrNotExist), x.close())
	}
	return x, nil
}

// A prunedError is about an entry that was pruned. It is fs.ErrNotExist.
type prunedError int64

func (e prunedError) Error() string        { return fmt.Sprintf("entry %d was pruned", int64(e)) }
func (e prunedError) Is(target error) bool { return target == fs.ErrNotExist }

// openValues opens the value file that belongs to a leaf file, nil if it was pruned.
func (r *Reader) openValues(x *file) (*file, error) {
	v, err := openFile(r.fs, ValueFile(r.dir, x.First), valueMagic)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if v.First != x.First || v.Count != x.Count || v.NextRoot != x.NextRoot {
		return nil, errors.Join(v.damaged("it is of another segment"), v.close())
	}
	return v, nil
}

// open opens the segment that holds the entry at index, if it is not open.
func (c *Cursor) open(index int64) (err error) {
	if x := c.leaves; x != nil && x.First <= index && index < x.End() {
		return nil
	}
	c.Close()
	if c.leaves, err = c.r.open(index); err == nil && c.how > leaves {
		c.values, err = c.r.openValues(c.leaves)
	}
	return err
}

func (c *Cursor) fromSegment(from *int64, to int64, yield func(journal.Entry, error) bool) (done bool, err error) {
	if err := c.open(*from); err != nil {
		return false, err
	}
	x, v, blk := c.leaves, c.values, &c.block
	for end := min(to, x.End()); *from < end; {
		i := int((*from - x.First) / tree.Width)
		if c.bundle, err = x.content(i, c.bundle[:0]); err != nil {
			return false, err
		}
		if v != nil {
			if c.content, err = v.content(i, c.content[:0]); err != nil {
				return false, err
			}
			if err := blk.parseUnsalted(c.content); err != nil {
				return false, v.damaged("frame %d: %v", i, err)
			}
		}
		s := scan{b: c.bundle}
		for j := range tree.Width {
			e := journal.Entry{Index: x.First + int64(i*tree.Width+j), Leaf: s.leaf()}
			if s.bad || len(e.Leaf) == 0 {
				return false, x.damaged("frame %d is no bundle", i)
			}
			if e.Index < *from {
				continue
			}
			if e.Index == end {
				break
			}
			switch {
			case v != nil:
				if c.how == salted {
					blk.salt(j)
				}
				blk.slots[j].fill(&e)
			case c.how > leaves:
				if e.HasValue = hasCommitment(e.Leaf); e.HasValue {
					e.Gone = journal.Expired
				}
			}
			*from = e.Index + 1
			if !yield(e, nil) {
				return true, nil
			}
		}
	}
	return *from >= to, nil
}

// original returns an entry of a segment with its path in the bundle. If the
// entry or its value is no longer there, the error matches fs.ErrNotExist.
func (r *Reader) original(index int64) (c copied, err error) {
	x, err := r.open(index)
	if err != nil {
		return c, err
	}
	defer x.close()
	v, err := r.openValues(x)
	if err != nil {
		return c, err
	}
	if v == nil {
		return c, fmt.Errorf("value of entry %d: %w", index, fs.ErrNotExist)
	}
	defer v.close()
	i := int((index - x.First) / tree.Width)
	bundle, err := x.content(i, nil)
	if err != nil {
		return c, err
	}
	content, err := v.content(i, nil)
	if err != nil {
		return c, err
	}
	var blk block
	if err := blk.parse(content); err != nil {
		return c, v.damaged("frame %d: %v", i, err)
	}
	c.index, c.slot = index, blk.slots[index%tree.Width]
	c.value = bytes.Clone(c.value)
	row := make([]tree.Hash, tree.Width)
	s := scan{b: bundle}
	for j := range row {
		leaf := s.leaf()
		if s.bad {
			return c, x.damaged("frame %d is no bundle", i)
		}
		if int64(j) == index%tree.Width {
			c.leaf = bytes.Clone(leaf)
		}
		row[j] = tree.LeafHash(leaf)
	}
	at := int(index % tree.Width)
	for level := range c.path {
		c.path[level] = row[at^1]
		for j := range row[:len(row)/2] {
			row[j] = tree.NodeHash(&row[2*j], &row[2*j+1])
		}
		row, at = row[:len(row)/2], at/2
	}
	return c, nil
}

// copyOf returns the copy of an entry that a segment between it and before
// has. If there is none, the error matches fs.ErrNotExist.
func (r *Reader) copyOf(index, before int64) (c copied, err error) {
	segs := r.segments()
	for i := len(segs) - 1; i >= 0 && segs[i] > index; i-- {
		if segs[i] >= before {
			continue
		}
		list, err := r.copiesOf(segs[i])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return c, err
		}
		if j, found := slices.BinarySearchFunc(list, index, func(c copied, index int64) int { return cmp.Compare(c.index, index) }); found {
			return list[j], nil
		}
	}
	return c, fmt.Errorf("entry %d: %w", index, fs.ErrNotExist)
}

// copiesOf returns the copies in a segment's value file.
func (r *Reader) copiesOf(first int64) ([]copied, error) {
	v, err := openFile(r.fs, ValueFile(r.dir, first), valueMagic)
	if err != nil {
		return nil, err
	}
	defer v.close()
	content, err := v.content(len(v.frames)-1, nil)
	if err != nil {
		return nil, err
	}
	list, err := parseCopies(content, first)
	if err != nil {
		return nil, v.damaged("copies: %v", err)
	}
	return list, nil
}

// Copy returns the entry at index from the copies that segments keep for
// entries that go back to it, from the newest of them: for when the entry
// itself, or its value, is no longer there. Without one, the error matches fs.ErrNotExist.
func (r *Reader) Copy(index int64) (journal.Entry, error) {
	c, err := r.copyOf(index, math.MaxInt64)
	return c.entry(), err
}
