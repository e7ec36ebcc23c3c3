package journal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/tree"
)

func FuzzFileHeader(f *testing.F) {
	b := tree.New()
	for i := range int64(3 * 256 * 256) {
		if i == 0 || i == 256 || i == 255*256 || i == 2*256*256+512 {
			h := FileHeader{First: i, Created: 5, Seq: 9, PrevCRC: 7, Root: b.Root(), LogID: [32]byte{1}, Tiles: b.Tiles()}
			f.Add(h.Append(nil))
		}
		b.Append([32]byte{byte(i)})
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseFileHeader(b)
		if err != nil {
			return
		}
		if got := h.Append(nil); !bytes.Equal(got, b[:h.Len]) {
			t.Errorf("ParseFileHeader then Append = %x, want %x", got, b[:h.Len])
		}
	})
}

func FuzzBatchHeader(f *testing.F) {
	var b [BatchHeaderLen]byte
	mark := Mark{1, 2, 3, 4, 5, 6, 7, 8}
	h := BatchHeader{Mark: mark, Count: 1, BodyLen: 10, Seq: 99, First: 99, Time: 5, PrevCRC: 1, BodyCRC: 2, Root: [32]byte{3}}
	h.put(b[:])
	f.Add(b[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseBatchHeader(b, mark)
		if !ok {
			return
		}
		var got [BatchHeaderLen]byte
		if h.put(got[:]); !bytes.Equal(got[:], b[:BatchHeaderLen]) {
			t.Errorf("parseBatchHeader then put = %x, want %x", got, b[:BatchHeaderLen])
		}
	})
}

// FuzzBatch walks arbitrary bodies. One that is walked to its end must be the
// one that its entries make.
func FuzzBatch(f *testing.F) {
	var b []byte
	b = AppendEntry(b, 255, []byte("leaf"), []byte("value"))
	b = AppendEntry(b, 256, []byte("leaf"), nil)
	b = AppendBlobEntry(b, 257, []byte("leaf"), &[32]byte{1}, BlobRef{ID: [16]byte{2}, Size: 300})
	f.Add(int64(255), b)
	f.Fuzz(func(t *testing.T, first int64, body []byte) {
		if first < 0 || first+int64(len(body)) < first {
			return
		}
		var c Cursor
		c.Reset(body, first)
		var again []byte
		for c.Next() {
			e := c.Entry()
			at := len(again)
			if e.Blob != nil {
				again = AppendBlobEntry(again, e.Index, e.Leaf, &e.Salt, *e.Blob)
			} else {
				again = AppendEntry(again, e.Index, e.Leaf, e.Value)
			}
			if c.SeedAt >= 0 {
				copy(again[at:], c.Seed[:])
			}
		}
		if !bytes.Equal(again, body[:len(again)]) || c.Err() == nil && len(again) != len(body) {
			t.Errorf("the entries of %x make %x", body, again)
		}
	})
}

// FuzzFile puts arbitrary bytes where a journal file is expected, and changes
// into a good one. Recovery and reader must not fail otherwise than by saying
// so, and what recovery accepts must go on.
func FuzzFile(f *testing.F) {
	s := faultfs.New()
	opt := testOptions(s)
	w, err := newFuzzLog(opt)
	if err != nil {
		f.Fatal(err)
	}
	file := w
	f.Add(file, -1, []byte{})
	f.Add(file, 150, bytes.Clone(file[104:112]))
	f.Add(file[:300], 117, make([]byte, 88))
	f.Fuzz(func(t *testing.T, b []byte, at int, patch []byte) {
		b = bytes.Clone(b)
		if at >= 0 && at < len(b) {
			copy(b[at:], patch)
		}
		s := withFiles(t, map[int64][]byte{0: b})
		if r, err := OpenReaderFS(s, "/d"); err == nil {
			for e, err := range r.Entries(0, 1<<40) {
				if err != nil {
					break
				}
				_ = e
			}
		}
		st, err := Recover(testOptions(s), -1)
		var damaged *DamagedError
		if err != nil {
			if !errors.As(err, &damaged) {
				t.Fatal(err)
			}
			return
		}
		size := st.Tree.Size()
		l := reopen(t, s, testOptions(s))
		l.mustAdd(1)
		if err := l.w.Close(); err != nil {
			t.Fatal(err)
		}
		if got, how := recovered(t, s); got != size+1 || how != "clean" {
			t.Errorf("after one more entry Recover = %d, %s, want %d, clean", got, how, size+1)
		}
	})
}

// newFuzzLog returns a small journal file.
func newFuzzLog(opt Options) ([]byte, error) {
	s := opt.FS.(*faultfs.FS)
	for _, dir := range []string{"/d", "/d/journal"} {
		if err := s.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	w, err := Create(opt, 1)
	if err != nil {
		return nil, err
	}
	l := &testLog{fs: s, opt: opt, w: w, tree: NewTree(opt)}
	if err := errors.Join(l.add(2), l.add(3), w.Close()); err != nil {
		return nil, err
	}
	f, err := s.Open("/d/journal/" + FileName(0))
	if err != nil {
		return nil, err
	}
	b := make([]byte, w.Offset())
	_, err = f.ReadAt(b, 0)
	return b, err
}
