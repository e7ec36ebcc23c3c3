package journal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// testLog writes a journal the way the ledger does, without its extras.
type testLog struct {
	t      *testing.T
	fs     durable.FS
	opt    Options
	w      *Writer
	tree   *tree.Builder
	seed   [SeedLen]byte
	starts []place // of each batch written
	now    int64
}

func testOptions(fsys durable.FS) Options {
	return Options{
		FS: fsys, Dir: "/d/journal", LogID: sha256.Sum256([]byte("test")), SegmentSize: 64 << 20, SegmentAge: time.Hour, Room: 8 << 10,
		Rand: mathrand.NewChaCha8([32]byte{}),
	}
}

func newTestLog(t *testing.T, fsys durable.FS, opt Options) *testLog {
	t.Helper()
	if err := durable.MkdirAll(fsys, opt.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := Create(opt, 1)
	if err != nil {
		t.Fatal(err)
	}
	return &testLog{t: t, fs: fsys, opt: opt, w: w, tree: NewTree(opt), now: 1}
}

// reopen recovers the journal and takes it on.
func reopen(t *testing.T, fsys durable.FS, opt Options) *testLog {
	t.Helper()
	opt.FS = fsys
	st, err := Recover(opt, -1)
	if err != nil {
		t.Fatal(err)
	}
	w, err := st.Resume()
	if err != nil {
		t.Fatal(err)
	}
	return &testLog{t: t, fs: fsys, opt: opt, w: w, tree: st.Tree, seed: st.Seed, now: 1}
}

func testLeaf(index int64) []byte { return fmt.Appendf(nil, "leaf %d", index) }
func testValue(index int64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "value %d;", index), int(index%40))
}

// add appends a batch of n entries and rotates before it when that is due.
func (l *testLog) add(n int) error {
	l.now++
	if l.w.Due(l.now) && l.w.Next()%tree.Width == 0 {
		if err := l.w.Rotate(l.tree, l.now); err != nil {
			return err
		}
	}
	first := l.w.Next()
	buf := make([]byte, BatchHeaderLen)
	for i := first; i < first+int64(n); i++ {
		at := len(buf)
		switch {
		case i%7 == 3:
			buf = AppendEntry(buf, i, testLeaf(i), nil)
		case i%7 == 5:
			buf = AppendBlobEntry(buf, i, testLeaf(i), &[32]byte{byte(i), 1}, BlobRef{ID: [16]byte{byte(i), 2}, Size: i})
		default:
			buf = AppendEntry(buf, i, testLeaf(i), testValue(i))
		}
		if i%tree.Width == 0 {
			l.seed = sha256.Sum256(fmt.Append(nil, "seed", i))
			copy(buf[at:], l.seed[:])
		}
		l.tree.Append(tree.LeafHash(testLeaf(i)))
	}
	root := l.tree.Root()
	l.starts = append(l.starts, l.w.at)
	return l.w.Append(buf, n, &root, l.now)
}

func (l *testLog) mustAdd(ns ...int) {
	l.t.Helper()
	for _, n := range ns {
		if err := l.add(n); err != nil {
			l.t.Fatal(err)
		}
	}
}

// checkEntry compares an entry with what add wrote.
func checkEntry(t *testing.T, e Entry) {
	t.Helper()
	i := e.Index
	want := Entry{Index: i, Leaf: testLeaf(i)}
	switch {
	case i%7 == 3:
	case i%7 == 5:
		want.HasValue, want.Salt, want.Blob = true, [32]byte{byte(i), 1}, &BlobRef{ID: [16]byte{byte(i), 2}, Size: i}
	default:
		want.HasValue, want.Value = true, testValue(i)
		seed := sha256.Sum256(fmt.Append(nil, "seed", i-i%tree.Width))
		want.Salt = sha256.Sum256(append(seed[:], byte(i)))
	}
	if !bytes.Equal(e.Leaf, want.Leaf) || !bytes.Equal(e.Value, want.Value) || (e.Value == nil) != (want.Value == nil) ||
		e.HasValue != want.HasValue || e.Salt != want.Salt || (e.Blob == nil) != (want.Blob == nil) || e.Blob != nil && *e.Blob != *want.Blob {
		t.Fatalf("entry %d = %+v, want %+v", i, e, want)
	}
}

// checkEntries reads [from, to) and checks each entry.
func checkEntries(t *testing.T, r *Reader, from, to int64) {
	t.Helper()
	next := from
	for e, err := range r.Entries(from, to) {
		if err != nil {
			t.Fatalf("Entries(%d, %d) at %d: %v", from, to, next, err)
		}
		if e.Index != next {
			t.Fatalf("Entries(%d, %d) gave %d, want %d", from, to, e.Index, next)
		}
		checkEntry(t, e)
		next++
	}
	if next != to {
		t.Fatalf("Entries(%d, %d) ended at %d", from, to, next)
	}
}

// file returns the content of a journal file.
func readAll(t *testing.T, fsys durable.FS, name string) []byte {
	t.Helper()
	b, err := durable.ReadFile(fsys, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withFile returns a file system whose journal has just these files.
func withFiles(t *testing.T, files map[int64][]byte) *faultfs.FS {
	t.Helper()
	s := faultfs.New()
	if err := durable.MkdirAll(s, "/d/journal", 0o700); err != nil {
		t.Fatal(err)
	}
	for first, b := range files {
		f, err := s.Create("/d/journal/"+FileName(first), 0o600)
		if err == nil {
			_, err = f.WriteAt(b, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// recovered is what Recover decides: a size, and clean, torn or damaged.
func recovered(t *testing.T, s *faultfs.FS) (size int64, how string) {
	t.Helper()
	st, err := Recover(testOptions(s), -1)
	var damaged *DamagedError
	switch {
	case errors.As(err, &damaged):
		return damaged.Index, "damaged"
	case err != nil:
		t.Fatal(err)
	case st.Clean:
		how = "clean"
	case st.Cut == 0:
		how = "open"
	default:
		how = "torn"
	}
	return st.Tree.Size(), how
}
