package segment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// A Sealer makes segments of journal files. It belongs to one goroutine of
// the process that holds the log's lock.
type Sealer struct {
	FS        durable.FS
	Dir       string // the data directory
	Immutable bool   // ask for the immutable flag too

	enc   *zstd.Encoder
	older *Reader // where entries of earlier segments are looked up
}

// Seal makes a segment of the journal file that begins with entry first and
// removes that. There is a later one, and a signed checkpoint covers all of
// it. The steps, and what a crash in each leaves, are in
// docs/format/segment.md. After an error, or when ctx ends, the journal file is
// still there, and Seal can be called again, now or after a start.
func (s *Sealer) Seal(ctx context.Context, first int64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("seal the journal file of entry %d: %w", first, err)
		}
	}()
	if s.enc == nil {
		if s.enc, err = newEncoder(); err != nil {
			return err
		}
	}
	if done, err := s.done(first); done || err != nil {
		return err
	}
	head, next, err := s.headers(first)
	if err != nil {
		return err
	}
	if err := s.clear(first); err != nil {
		return err
	}
	b := &builder{Sealer: s, head: head, blobs: sha256.New()}
	err = b.build(ctx, next)
	if err == nil {
		err = b.check(ctx)
	}
	if err == nil {
		err = b.compare(ctx)
	}
	if err != nil {
		return errors.Join(err, s.clear(first)) // what is left means nothing
	}
	return s.publish(first)
}

// done finishes what failed behind the removal of the journal file, if an
// earlier try got that far, and reports whether there is nothing else to do.
func (s *Sealer) done(first int64) (bool, error) {
	dir := filepath.Join(s.Dir, "journal")
	files, err := journal.Files(s.FS, dir)
	if err != nil || slices.Contains(files, first) {
		return false, err
	}
	h, err := ReadHeader(s.FS, s.Dir, first)
	if err != nil {
		return false, err
	}
	next, err := journal.ReadFileHeader(s.FS, dir, h.End())
	if err != nil {
		return false, err
	}
	if next.Root != h.NextRoot || next.Seq != h.NextSeq || next.PrevCRC != h.LastCRC {
		return false, errors.New("its journal file is gone, and the segment in its place does not lead up to the next one")
	}
	return true, journal.SyncDir(s.FS, dir)
}

// headers returns what the segment's header says, and the header of the
// journal file that follows.
func (s *Sealer) headers(first int64) (*Header, *journal.FileHeader, error) {
	dir := filepath.Join(s.Dir, "journal")
	files, err := journal.Files(s.FS, dir)
	if err != nil {
		return nil, nil, err
	}
	i := slices.Index(files, first)
	if i < 0 || i == len(files)-1 {
		return nil, nil, errors.New("it is not complete, or not there")
	}
	this, err := journal.ReadFileHeader(s.FS, dir, first)
	if err != nil {
		return nil, nil, err
	}
	next, err := journal.ReadFileHeader(s.FS, dir, files[i+1])
	if err != nil {
		return nil, nil, err
	}
	return &Header{
		First: first, Count: next.First - first, Created: this.Created, Ended: next.Created,
		Seq: this.Seq, NextSeq: next.Seq, PrevCRC: this.PrevCRC, LastCRC: next.PrevCRC,
		Root: this.Root, NextRoot: next.Root, LogID: this.LogID, Tiles: this.Tiles,
	}, next, nil
}

// clear removes the temporary files that an earlier try left. One that got
// further left the segment, which goes only when there is another: somebody may have put the journal file back.
func (s *Sealer) clear(first int64) error {
	for _, name := range []string{LeafFile(s.Dir, first), ValueFile(s.Dir, first)} {
		if err := remove(s.FS, name+".tmp"); err != nil {
			return err
		}
	}
	return nil
}

// remove removes a file, protected or not, that may not be there.
func remove(fsys durable.FS, name string) error {
	err := fsys.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := fsys.Unprotect(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// publish gives both files their names and removes the journal file.
func (s *Sealer) publish(first int64) error {
	// If we die between the two: the journal file is there, and counts.
	for _, name := range []string{ValueFile(s.Dir, first), LeafFile(s.Dir, first)} {
		if f, err := s.FS.Open(name); err == nil { // of an earlier try
			if err := errors.Join(f.Close(), s.FS.Unprotect(name)); err != nil {
				return fmt.Errorf("replace %s: %w", name, err)
			}
		}
		if err := s.FS.Rename(name+".tmp", name); err != nil {
			return fmt.Errorf("name %s: %w", name, err)
		}
	}
	if err := syncDir(s.FS, s.Dir); err != nil {
		return err
	}
	for _, name := range []string{ValueFile(s.Dir, first), LeafFile(s.Dir, first)} {
		if err := s.FS.Protect(name, s.Immutable); err != nil {
			return fmt.Errorf("protect %s: %w", name, err)
		}
	}
	// From here on the segment is the only place of these entries.
	return journal.RemoveFile(s.FS, filepath.Join(s.Dir, "journal"), first)
}

// A builder makes the two files of one segment.
type builder struct {
	*Sealer
	head  *Header
	blobs hash.Hash // of each entry with a blob, and what it says
	refs  map[int64]struct{}
}

// build writes both files under temporary names.
func (b *builder) build(ctx context.Context, next *journal.FileHeader) (err error) {
	first := b.head.First
	leaves, err := newWriter(b.FS, LeafFile(b.Dir, first)+".tmp", b.enc, b.head.append(nil, leafMagic))
	if err != nil {
		return err
	}
	values, err := newWriter(b.FS, ValueFile(b.Dir, first)+".tmp", b.enc, b.head.append(nil, valueMagic))
	if err != nil {
		return errors.Join(err, leaves.f.Close())
	}
	var bundle, meta, inline, out []byte
	var kinds [tree.Width]byte
	b.refs = map[int64]struct{}{}
	end, err := journal.ReadFile(b.FS, filepath.Join(b.Dir, "journal"), first, func(e *journal.Entry, seed *[journal.SeedLen]byte) error {
		bundle = binary.BigEndian.AppendUint16(bundle, uint16(len(e.Leaf)))
		bundle = append(bundle, e.Leaf...)
		parse, bind := event.References(e.Leaf)
		b.refer(parse)
		b.refer(bind)
		v := slotOf(e)
		kinds[e.Index%tree.Width] = v.kind
		switch v.kind {
		case kindInline:
			meta = binary.AppendUvarint(meta, uint64(len(v.value)))
			inline = append(inline, v.value...)
		case kindBlob:
			meta = appendBlob(meta, &v)
			hashBlob(b.blobs, e.Index, &v)
		}
		if e.Index%tree.Width != tree.Width-1 {
			return nil
		}
		out = append(append(append(out[:0], 0), seed[:]...), kinds[:]...)
		out = append(append(out, meta...), inline...)
		if err := leaves.content(bundle); err != nil {
			return err
		}
		if err := values.content(out); err != nil {
			return err
		}
		bundle, meta, inline = bundle[:0], meta[:0], inline[:0]
		return ctx.Err()
	})
	if err == nil && (end.Next != next.First || end.NextSeq != next.Seq || end.LastCRC != next.PrevCRC) {
		err = errors.New("it does not lead up to the next file")
	}
	if err == nil {
		var list []copied
		if list, err = b.copies(); err == nil {
			err = values.content(appendCopies(nil, list))
		}
	}
	if err != nil {
		return errors.Join(err, leaves.f.Close(), values.f.Close())
	}
	return errors.Join(leaves.finish(), values.finish())
}

func (b *builder) refer(ref int64) {
	if index, ok := event.Index(ref); ok && index < b.head.First {
		b.refs[index] = struct{}{}
	}
}

// hashBlob adds to h what an entry says about its blob.
func hashBlob(h hash.Hash, index int64, s *slot) {
	h.Write(appendBlob(binary.BigEndian.AppendUint64(nil, uint64(index)), s))
}

// copies returns the older entries that those of this segment go back to, as
// far as they are there.
func (b *builder) copies() ([]copied, error) {
	if b.older == nil {
		b.older = &Reader{fs: b.FS, dir: b.Dir}
	}
	if err := b.older.refresh(); err != nil {
		return nil, err
	}
	var list []copied
	for _, index := range slices.Sorted(maps.Keys(b.refs)) {
		c, err := b.older.original(index)
		if errors.Is(err, fs.ErrNotExist) {
			c, err = b.older.copyOf(index, b.head.First)
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // pruned before anything went back to it
		}
		if err != nil {
			return nil, fmt.Errorf("copy entry %d: %w", index, err)
		}
		if c.kind != kindNone && c.kind != kindErased {
			list = append(list, c)
		}
	}
	return list, nil
}

// errReadBack is what a check of what was just written ends with.
var errReadBack = errors.New("what was written is not what is read back")

// check reads both files again and holds them against the tree and the
// commitments in the leaves.
func (b *builder) check(ctx context.Context) error {
	leaves, err := openFile(b.FS, LeafFile(b.Dir, b.head.First)+".tmp", leafMagic)
	if err != nil {
		return err
	}
	defer leaves.close()
	values, err := openFile(b.FS, ValueFile(b.Dir, b.head.First)+".tmp", valueMagic)
	if err != nil {
		return err
	}
	defer values.close()
	t, err := tree.Restore(b.head.First, b.head.Tiles)
	if err != nil {
		return err
	}
	h := sha256.New()
	var bundle, content []byte
	var blk block
	for i := range len(leaves.frames) {
		if bundle, err = leaves.content(i, bundle[:0]); err != nil {
			return err
		}
		if content, err = values.content(i, content[:0]); err != nil {
			return err
		}
		if err := blk.parse(content); err != nil {
			return values.damaged("frame %d: %v", i, err)
		}
		s := scan{b: bundle}
		for j := range blk.slots {
			index := b.head.First + int64(i*tree.Width+j)
			leaf := s.leaf()
			if s.bad {
				return leaves.damaged("frame %d is no bundle", i)
			}
			if !sound(leaf, &blk.slots[j]) {
				return fmt.Errorf("%w: the value of entry %d", errReadBack, index)
			}
			if blk.slots[j].kind == kindBlob {
				hashBlob(h, index, &blk.slots[j])
			}
			end := len(bundle) - len(s.b)
			t.Append(tree.LeafHashAt(bundle, end-len(leaf), end)) // over its length, which was read
		}
		if len(s.b) > 0 {
			return leaves.damaged("frame %d is no bundle", i)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if t.Root() != b.head.NextRoot {
		return fmt.Errorf("%w: the root of the tree", errReadBack)
	}
	if [32]byte(h.Sum(nil)) != [32]byte(b.blobs.Sum(nil)) {
		return fmt.Errorf("%w: the names of blobs", errReadBack)
	}
	if content, err = values.content(len(values.frames)-1, content[:0]); err != nil {
		return err
	}
	list, err := parseCopies(content, b.head.First)
	if err != nil {
		return values.damaged("copies: %v", err)
	}
	for i := range list {
		if !sound(list[i].leaf, &list[i].slot) {
			return fmt.Errorf("%w: the copy of entry %d", errReadBack, list[i].index)
		}
	}
	return nil
}

// compare holds the values against those of a segment that is there already, of an earlier try. What blobs are
// called is under no hash: whoever put another journal file into the place of a sealed one could have changed that.
func (b *builder) compare(ctx context.Context) error {
	was, err := openFile(b.FS, ValueFile(b.Dir, b.head.First), valueMagic)
	if err != nil {
		return nil // none, or none that could be read
	}
	defer was.close()
	now, err := openFile(b.FS, ValueFile(b.Dir, b.head.First)+".tmp", valueMagic)
	if err != nil {
		return err
	}
	defer now.close()
	var old, made []byte
	for i := range min(len(was.frames), len(now.frames)) - 1 { // the last has copies
		if old, err = was.content(i, old[:0]); err != nil {
			return nil
		}
		if made, err = now.content(i, made[:0]); err != nil {
			return err
		}
		if !bytes.Equal(old, made) {
			return fmt.Errorf("the segment that is there has other values from entry %d on: keep both, and find out who put the journal file there", b.head.First+int64(i)*tree.Width)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// leaf takes a leaf of a bundle.
func (s *scan) leaf() []byte {
	n := s.take(2)
	if s.bad {
		return nil
	}
	return s.take(int(binary.BigEndian.Uint16(n)))
}

func hasCommitment(leaf []byte) bool {
	_, has := event.CommitmentOf(leaf)
	return has
}

// sound reports whether a value is the one its leaf commits to. Of one in a
// blob or erased it only looks whether the leaf has a commitment.
func sound(leaf []byte, s *slot) bool {
	want, has := event.CommitmentOf(leaf)
	if s.kind != kindInline {
		return has == (s.kind != kindNone)
	}
	return has && commitment(&s.salt, s.value) == want
}

// commitment returns SHA-256(salt || value).
func commitment(salt *[32]byte, value []byte) [32]byte {
	var buf [1024]byte // one call for both is faster than a hash.Hash
	return sha256.Sum256(append(append(buf[:0], salt[:]...), value...))
}

// RemoveLeftovers removes temporary files that a crash left in the directory
// of the segments. It makes the directory if there is none.
func RemoveLeftovers(fsys durable.FS, dir string) error {
	names, err := fsys.List(Dir(dir))
	if err != nil {
		return fmt.Errorf("list segments: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".tmp") {
			if err := remove(fsys, filepath.Join(Dir(dir), name)); err != nil {
				return err
			}
		}
	}
	return nil
}
