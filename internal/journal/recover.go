package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// A State is what Recover found: where the log ends and how it got there.
type State struct {
	Files []int64       // first index of each file, ascending
	First *FileHeader   // of the first of them; whether it continues what was sealed is for the caller to see
	Tree  *tree.Builder // over all entries
	Seed  [SeedLen]byte // of the last bundle, if it is incomplete

	// LastLeaf is that of the last entry; nil if the last file has none.
	LastLeaf []byte

	// Clean is set if the last file ends at its last batch: its writer stopped
	// in order, or died between ending it and beginning the next. Otherwise Cut is the
	// number of bytes behind the last valid batch that will be cut off, and Why
	// says what they are.
	Clean bool
	Cut   int64
	Why   string

	// RootAt is the root of the tree at the size asked for.
	RootAt    tree.Hash
	HasRootAt bool // false if the log is shorter, or the size is before the first file

	opt  Options
	head *FileHeader // of the last file
	at   place       // behind the last valid batch
}

// Recover reads the last file of a journal and decides how it ended. Nothing
// is changed on the disk until State.Resume. at is a tree size, that of the
// signed checkpoint, at which the root is wanted; -1 for none. A journal that
// cannot have come from a crash is refused with a *DamagedError, one without
// files with ErrEmpty. The caller holds the log's lock.
//
// It reads the last file, steps over the headers of the one before, and reads
// all from the one that holds entry at, should that be an earlier one.
func Recover(opt Options, at int64) (*State, error) {
	files, err := listFiles(opt.FS, opt.Dir)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, ErrEmpty
	}
	last := len(files) - 1
	st := &State{opt: opt, Files: files}
	if st.First, err = ReadFileHeader(opt.FS, opt.Dir, files[0]); err != nil {
		return nil, err
	}
	s, err := openScanner(opt.FS, opt.Dir, files[last])
	if err != nil {
		return nil, err
	}
	defer s.f.Close()
	if s.head.LogID != opt.LogID {
		return nil, s.damaged("the file belongs to a log of another origin")
	}
	if last > 0 {
		if err := checkJoint(opt, files[last-1], s.head); err != nil {
			return nil, err
		}
	}
	if err := st.replay(s, at); err != nil {
		return nil, err
	}
	st.LastLeaf = s.last
	if st.Cut, st.Why, err = s.tail(); err != nil {
		return nil, err
	}
	// Space prepared ahead is there as long as a writer lives.
	st.Clean = s.at.off == s.size
	st.head, st.at = s.head, s.at
	if at >= files[0] && at < st.head.First {
		if err := st.rootBefore(files, at); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// NewTree returns the tree of a journal without entries.
func NewTree(opt Options) *tree.Builder {
	t := tree.New()
	t.OnFull = opt.OnFull
	return t
}

// replay grows the tree by the file's entries and notes the root at size at.
func (st *State) replay(s *scanner, at int64) error {
	t, err := tree.Restore(s.head.First, s.head.Tiles)
	if err != nil {
		return s.damaged(err.Error())
	}
	t.OnFull = st.opt.OnFull
	note := func(leaf []byte) {
		if t.Size() == at {
			st.RootAt, st.HasRootAt = t.Root(), true
		}
		if leaf != nil && at >= 0 && t.Size() > at && st.opt.OnLeaf != nil {
			st.opt.OnLeaf(t.Size()-1, leaf)
		}
	}
	note(nil)
	st.Tree = t
	return s.replay(t, &st.Seed, note)
}

// rootBefore finds the root at a size that lies before the last file, and reads
// what is between. This happens if a crash comes between a rotation and the next checkpoint.
func (st *State) rootBefore(files []int64, at int64) error {
	last := len(files) - 1
	i := last
	for i > 0 && files[i] > at {
		i--
	}
	for ; i < last; i++ {
		if err := st.replayEarlier(files[i], at); err != nil {
			return err
		}
	}
	return nil
}

// replayEarlier is replay for a file before the last.
func (st *State) replayEarlier(first, at int64) error {
	s, err := openScanner(st.opt.FS, st.opt.Dir, first)
	if err != nil {
		return err
	}
	defer s.f.Close()
	earlier := &State{opt: Options{OnLeaf: st.opt.OnLeaf}}
	if err := earlier.replay(s, at); err != nil {
		return err
	}
	if earlier.HasRootAt {
		st.RootAt, st.HasRootAt = earlier.RootAt, true
	}
	if !st.HasRootAt {
		return s.damaged("a batch is bad, but there are later files")
	}
	return nil
}

// checkJoint makes sure that a file ends exactly where the next one begins.
func checkJoint(opt Options, first int64, next *FileHeader) error {
	s, err := openScanner(opt.FS, opt.Dir, first)
	if err != nil {
		return err
	}
	defer s.f.Close()
	if s.head.LogID != next.LogID {
		return s.damaged("the file belongs to a log of another origin")
	}
	root := s.head.Root
	for {
		h, ok, err := s.header()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		s.at, root = s.at.after(&h), h.Root
	}
	if s.at.off != s.size || s.at.index != next.First || s.at.seq != next.Seq || s.at.prev != next.PrevCRC || root != next.Root {
		return s.damaged(fmt.Sprintf("the file does not lead up to the next one, which begins at entry %d", next.First))
	}
	return nil
}

// Resume makes the journal ready for appending and returns its writer. After
// an unclean end the last file is first copied: what the page cache shows of
// a file whose writer died may not be on the disk, and a later fdatasync of
// the same file would not say so.
func (st *State) Resume() (*Writer, error) {
	opt := st.opt
	if err := removeLeftovers(opt.FS, opt.Dir); err != nil {
		return nil, err
	}
	w := &Writer{opt: opt, head: st.head, at: st.at, name: filepath.Join(opt.Dir, FileName(st.head.First))}
	if !st.Clean {
		// If we die before the rename, the next start finds what this one did.
		// If we die behind it, it finds the same batches, without the tail.
		if err := w.place(st.copyTo); err != nil {
			return nil, err
		}
	} else if err := SyncDir(opt.FS, opt.Dir); err != nil { // a file that is gone stays gone, as place sees to it too
		return nil, err
	}
	// A clean file has no space prepared: from here on it looks unclean.
	if err := w.open(); err != nil {
		return nil, err
	}
	return w, nil
}

// copyTo copies the valid part of the last file.
func (st *State) copyTo(dst durable.File) (int64, error) {
	src, err := st.opt.FS.Open(filepath.Join(st.opt.Dir, FileName(st.head.First)))
	if err != nil {
		return 0, err
	}
	defer src.Close()
	buf := make([]byte, min(st.at.off, 1<<20))
	for off := int64(0); off < st.at.off; {
		b := buf[:min(int64(len(buf)), st.at.off-off)]
		if n, err := src.ReadAt(b, off); n != len(b) {
			return 0, err
		}
		if _, err := dst.WriteAt(b, off); err != nil {
			return 0, err
		}
		off += int64(len(b))
	}
	return st.at.off, nil
}

// removeLeftovers removes files that a crash left half-made.
func removeLeftovers(fsys durable.FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return fmt.Errorf("list journal: %w", err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, suffix+".tmp") {
			continue
		}
		if err := fsys.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove leftover of a crash: %w", err)
		}
	}
	return nil
}
