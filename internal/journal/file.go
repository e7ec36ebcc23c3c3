package journal

import (
	"fmt"
	"path/filepath"

	"github.com/pgnotary/pgnotary/internal/durable"
)

// A FileEnd is where a file ended: what the next one must begin with.
type FileEnd struct {
	Next    int64  // index behind the last entry
	NextSeq uint64 // sequence number behind the last batch
	LastCRC uint32 // header CRC of the last batch
}

// ReadFileHeader returns the header of the file in dir, the directory of the
// journal, that begins with entry first.
func ReadFileHeader(fsys durable.FS, dir string, first int64) (*FileHeader, error) {
	s, err := openScanner(fsys, dir, first)
	if err != nil {
		return nil, err
	}
	return s.head, s.f.Close()
}

// ReadFile calls each with every entry of the complete file in dir, the
// directory of the journal, that begins with entry first, and with the seed of
// the entry's bundle. It checks CRCs and the order of batches; anything behind
// the last batch is damage. The entry is valid until each returns, whose error
// ends the reading. Its salt is set only of a blob: that of an inline value
// follows from the seed.
func ReadFile(fsys durable.FS, dir string, first int64, each func(e *Entry, seed *[SeedLen]byte) error) (end FileEnd, err error) {
	s, err := openScanner(fsys, dir, first)
	if err != nil {
		return end, err
	}
	defer s.f.Close()
	s.durable = true
	var c Cursor
	var e Entry
	for s.at.off < s.size {
		h, ok, err := s.header()
		if err != nil {
			return end, err
		}
		if !ok {
			return end, s.damaged("a batch is bad, but there are later files")
		}
		body, whole, err := s.readBody(&h)
		if err != nil {
			return end, err
		}
		if !whole {
			return end, s.damaged("the batch has a wrong CRC")
		}
		c.Reset(body, h.First)
		for c.Next() {
			c.take(&e)
			if err := each(&e, &c.Seed); err != nil {
				return end, err
			}
		}
		if c.Err() != nil || c.Index != h.First+int64(h.Count) {
			return end, s.damaged("entries do not fill their batch")
		}
		s.at = s.at.after(&h)
	}
	end.Next, end.NextSeq, end.LastCRC = s.at.index, s.at.seq, s.at.prev
	return end, nil
}

// Files returns the first indexes of the journal files in dir, ascending.
func Files(fsys durable.FS, dir string) ([]int64, error) { return listFiles(fsys, dir) }

// RemoveFile removes the journal file in dir that begins with entry first, for
// good. The caller has seen to it that its entries are elsewhere.
func RemoveFile(fsys durable.FS, dir string, first int64) error {
	if err := fsys.Remove(filepath.Join(dir, FileName(first))); err != nil {
		return fmt.Errorf("remove journal file: %w", err)
	}
	return SyncDir(fsys, dir)
}

// SyncDir makes durable which files there are in dir, the directory of the journal.
func SyncDir(fsys durable.FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("sync journal directory: %w", err)
	}
	return nil
}
