package segment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// Erase takes the values of the entries for which gone returns true out of
// the segment that begins with entry first, out of its copies of older entries
// as well, and returns how many frames that changed. Blobs that held them are removed.
// Leaves do not change. The steps:
//
//  1. remove the blobs. If we die here: their entries still name them; Erase is to be called again.
//  2. write the value file anew as .tmp, fsync, read it again: every value that
//     is left must be the one its leaf commits to. If we die here: the old one is there.
//  3. rename, fsync the directory. If we die here: the old one is there, or the new one.
func (s *Sealer) Erase(ctx context.Context, first int64, gone func(index int64) bool) (n int, err error) {
	var failed error
	n, err = s.rewrite(ctx, first, func(blk *block, from int64) (touched bool, blobs []journal.BlobRef) {
		for i := range int64(tree.Width) {
			if !gone(from + i) {
				continue
			}
			blob, was := blk.erase(from + i)
			touched = touched || was
			if blob != nil {
				blobs = append(blobs, *blob)
			}
		}
		return touched, blobs
	}, func(list []copied) (_ []copied, touched bool) {
		for i := range list {
			c := &list[i]
			if !gone(c.index) || c.kind == kindErased {
				continue
			}
			if c.kind == kindBlob { // the entry itself may be gone
				failed = errors.Join(failed, RemoveBlobs(s.FS, s.Dir, []journal.BlobRef{c.blob}))
			}
			c.slot, touched = slot{kind: kindErased}, true
		}
		return list, touched && failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		err = fmt.Errorf("erase values of the segment of entry %d: %w", first, err)
	}
	return n, err
}

// Keep adds copies of entries to the segment that begins with entry first, so
// that they stay readable when the segments before until go: these are where it looks for
// them, and for copies of them. indexes is ascending. Entries that it copies already, or that are not there, are left out.
func (s *Sealer) Keep(ctx context.Context, first, until int64, indexes []int64) error {
	r := &Reader{fs: s.FS, dir: s.Dir}
	if err := r.refresh(); err != nil {
		return err
	}
	_, err := s.rewrite(ctx, first, nil, func(list []copied) (_ []copied, touched bool) {
		there := make(map[int64]bool, len(list))
		for i := range list {
			there[list[i].index] = true
		}
		older := r.copiesBefore(until)
		for _, index := range indexes {
			if index >= until || there[index] {
				continue
			}
			c, err := r.original(index)
			if err != nil {
				c = older[index]
			}
			if c.kind != kindNone && c.kind != kindErased {
				list, touched = append(list, c), true
			}
		}
		slices.SortFunc(list, func(a, b copied) int { return cmp.Compare(a.index, b.index) })
		return list, touched
	})
	if err != nil {
		err = fmt.Errorf("keep copies in the segment of entry %d: %w", first, err)
	}
	return err
}

// copiesBefore returns the copies that segments before until have, by index; what cannot be read is left out.
func (r *Reader) copiesBefore(until int64) map[int64]copied {
	older := map[int64]copied{}
	for _, first := range r.segments() {
		if first >= until {
			break
		}
		list, err := r.copiesOf(first)
		for i := range list {
			if err == nil {
				older[list[i].index] = list[i]
			}
		}
	}
	return older
}

// rewrite writes a value file anew with its blocks, if block is not nil, and
// its copies changed by the functions, if they touch anything. It returns how
// many blocks and lists of copies were changed.
func (s *Sealer) rewrite(ctx context.Context, first int64, change func(b *block, from int64) (bool, []journal.BlobRef), copies func([]copied) ([]copied, bool)) (n int, err error) {
	name := ValueFile(s.Dir, first)
	v, err := openFile(s.FS, name, valueMagic)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // the values have gone altogether
	} else if err != nil {
		return 0, err
	}
	defer v.close()
	if s.enc == nil {
		if s.enc, err = newEncoder(); err != nil {
			return 0, err
		}
	}
	// What changes, by frame. In most segments nothing does.
	changed := map[int][]byte{}
	var blk block
	for i := 0; change != nil && i < len(v.frames)-1; i++ {
		content, err := v.content(i, nil)
		if err != nil {
			return 0, err
		}
		if err := blk.parse(content); err != nil {
			return 0, v.damaged("frame %d: %v", i, err)
		}
		touched, blobs := change(&blk, first+int64(i)*tree.Width)
		if touched {
			changed[i] = blk.append(nil)
		}
		if err := RemoveBlobs(s.FS, s.Dir, blobs); err != nil {
			return 0, err
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	last := len(v.frames) - 1
	content, err := v.content(last, nil)
	if err != nil {
		return 0, err
	}
	list, err := parseCopies(content, first)
	if err != nil {
		return 0, v.damaged("copies: %v", err)
	}
	if list, touched := copies(list); touched {
		changed[last] = appendCopies(nil, list)
	}
	if len(changed) == 0 {
		return 0, nil
	}
	if err := s.writeAnew(v, changed); err != nil {
		return 0, err
	}
	if err := s.checkAnew(first); err != nil {
		return 0, errors.Join(err, remove(s.FS, name+".tmp"))
	}
	if err := s.FS.Unprotect(name); err != nil {
		return 0, fmt.Errorf("replace %s: %w", name, err)
	}
	if err := s.FS.Rename(name+".tmp", name); err != nil {
		return 0, fmt.Errorf("replace %s: %w", name, err)
	}
	if err := syncDir(s.FS, s.Dir); err != nil {
		return 0, err
	}
	return len(changed), s.FS.Protect(name, s.Immutable)
}

// writeAnew writes the value file under a temporary name.
func (s *Sealer) writeAnew(v *file, changed map[int][]byte) error {
	name := v.name + ".tmp"
	if err := remove(s.FS, name); err != nil {
		return err
	}
	w, err := newWriter(s.FS, name, s.enc, v.append(nil, valueMagic))
	if err != nil {
		return err
	}
	for i := range v.frames {
		if content, ok := changed[i]; ok {
			err = w.content(content)
		} else {
			var raw []byte
			if raw, err = v.raw(i); err == nil {
				err = w.put(raw, int(v.frames[i].real))
			}
		}
		if err != nil {
			return errors.Join(err, w.f.Close())
		}
	}
	return w.finish()
}

// checkAnew reads what writeAnew wrote and holds it against the leaves.
func (s *Sealer) checkAnew(first int64) error {
	x, err := openFile(s.FS, LeafFile(s.Dir, first), leafMagic)
	if err != nil {
		return err
	}
	defer x.close()
	v, err := openFile(s.FS, ValueFile(s.Dir, first)+".tmp", valueMagic)
	if err != nil {
		return err
	}
	defer v.close()
	var blk block
	for i := range x.frames {
		bundle, err := x.content(i, nil)
		if err != nil {
			return err
		}
		content, err := v.content(i, nil)
		if err != nil {
			return err
		}
		if err := blk.parse(content); err != nil {
			return v.damaged("frame %d: %v", i, err)
		}
		leaves := scan{b: bundle}
		for j := range blk.slots {
			if leaf := leaves.leaf(); leaves.bad || !sound(leaf, &blk.slots[j]) {
				return fmt.Errorf("%w: the value of entry %d", errReadBack, first+int64(i*tree.Width+j))
			}
		}
	}
	content, err := v.content(len(v.frames)-1, nil)
	if err != nil {
		return err
	}
	list, err := parseCopies(content, first)
	for i := range list {
		if err == nil && !sound(list[i].leaf, &list[i].slot) {
			err = fmt.Errorf("%w: the copy of entry %d", errReadBack, list[i].index)
		}
	}
	return err
}

// Copies returns the older entries that the segment beginning with entry first
// has copies of, ascending, and the blobs these name.
func Copies(fsys durable.FS, dir string, first int64) (entries []journal.Entry, blobs []journal.BlobRef, err error) {
	r := &Reader{fs: fsys, dir: dir}
	list, err := r.copiesOf(first)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	for i := range list {
		entries = append(entries, list[i].entry())
		if list[i].kind == kindBlob {
			blobs = append(blobs, list[i].blob)
		}
	}
	return entries, blobs, err
}

// Blobs returns the blobs that the entries of a segment name, none if its
// values have gone.
func Blobs(fsys durable.FS, dir string, first int64) (blobs []journal.BlobRef, err error) {
	v, err := openFile(fsys, ValueFile(dir, first), valueMagic)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer v.close()
	var content []byte
	var blk block
	for i := range len(v.frames) - 1 {
		if content, err = v.content(i, content[:0]); err != nil {
			return nil, err
		}
		if err := blk.parse(content); err != nil {
			return nil, v.damaged("frame %d: %v", i, err)
		}
		for j := range blk.slots {
			if blk.slots[j].kind == kindBlob {
				blobs = append(blobs, blk.slots[j].blob)
			}
		}
	}
	return blobs, nil
}

// RemoveBlobs removes blobs, durably. Those that are not there are no error.
func RemoveBlobs(fsys durable.FS, dir string, blobs []journal.BlobRef) error {
	for _, b := range blobs {
		if err := remove(fsys, journal.BlobPath(dir, b.ID)); err != nil {
			return err
		}
	}
	if len(blobs) == 0 {
		return nil
	}
	if err := fsys.SyncDir(filepath.Join(dir, "blob")); err != nil {
		return fmt.Errorf("sync blob directory: %w", err)
	}
	return nil
}

// RemoveValues removes the values of a segment, and Remove the segment
// altogether, durably. The caller has recorded why, and has removed the blobs.
func RemoveValues(fsys durable.FS, dir string, first int64) error {
	if err := remove(fsys, ValueFile(dir, first)); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}

// Remove removes a segment; see RemoveValues.
func Remove(fsys durable.FS, dir string, first int64) error {
	// The leaf file last: without it the value file would be a stranger.
	if err := RemoveValues(fsys, dir, first); err != nil {
		return err
	}
	if err := remove(fsys, LeafFile(dir, first)); err != nil {
		return err
	}
	return syncDir(fsys, dir)
}

// Size returns the bytes of the two files of a segment.
func Size(fsys durable.FS, dir string, first int64) (leaves, values int64, err error) {
	for i, name := range []string{LeafFile(dir, first), ValueFile(dir, first)} {
		f, err := fsys.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return 0, 0, err
		}
		size, err := f.Size()
		if err = errors.Join(err, f.Close()); err != nil {
			return 0, 0, err
		}
		if i == 0 {
			leaves = size
		} else {
			values = size
		}
	}
	return leaves, values, nil
}
