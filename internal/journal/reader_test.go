package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
)

func openReader(t *testing.T, s *faultfs.FS) *Reader {
	t.Helper()
	r, err := OpenReaderFS(s, "/d")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantSize(t *testing.T, r *Reader, want int64) {
	t.Helper()
	if got, err := r.Size(); err != nil || got != want {
		t.Fatalf("Size() = %d, %v, want %d", got, err, want)
	}
}

// manyFiles returns a log of files of 256 to 512 entries and its size.
func manyFiles(t *testing.T, batches ...int) (*faultfs.FS, int64) {
	s := faultfs.New()
	opt := testOptions(s)
	opt.SegmentSize = 1
	l := newTestLog(t, s, opt)
	l.mustAdd(batches...)
	return s, l.w.Next()
}

func TestReaderRanges(t *testing.T) {
	s, size := manyFiles(t, 1, 1, 1, 200, 53, 300, 1, 211, 1, 1, 254, 256, 10, 3)
	r := openReader(t, s)
	if r.First() != 0 {
		t.Errorf("First() = %d, want 0", r.First())
	}
	wantSize(t, r, size)
	edges := []int64{0, 1, 2, 3, 202, 203, 254, 255, 256, 257, 511, 512, 555, 556, 557, 767, 768, 769, 1023, 1024, size - 4, size - 3, size - 1, size}
	for _, from := range edges {
		for _, to := range edges {
			if from <= to {
				checkEntries(t, r, from, to)
			}
		}
	}
	for i := range size {
		e, err := r.Entry(i)
		if err != nil {
			t.Fatal(err)
		}
		checkEntry(t, e)
	}
	if _, err := r.Entry(size); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Entry behind the end = %v, want fs.ErrNotExist", err)
	}
	for range r.Entries(size+5, size+9) {
		t.Error("Entries behind the end gave something")
	}
	for e, err := range r.Entries(0, size) { // the caller may stop
		if err != nil || e.Index != 0 {
			t.Fatalf("first of Entries = %d, %v", e.Index, err)
		}
		break
	}
}

func TestReaderHeader(t *testing.T) {
	s, _ := manyFiles(t, 256, 256, 5)
	r := openReader(t, s)
	for _, tt := range []struct{ index, first int64 }{{0, 0}, {255, 0}, {256, 256}, {511, 256}, {512, 512}, {517, 512}} {
		if h, err := r.Header(tt.index); err != nil || h.First != tt.first {
			t.Errorf("Header(%d) = %+v, %v, want that of file %d", tt.index, h, err, tt.first)
		}
	}
	if h, err := openReader(t, faultfs.New()).Header(0); err != nil || h != nil {
		t.Errorf("Header of no journal = %v, %v, want nil", h, err)
	}
}

func TestReaderManyFiles(t *testing.T) {
	var batches []int
	for range 3 * maxIndexed {
		batches = append(batches, 256)
	}
	s, size := manyFiles(t, batches...)
	r := openReader(t, s)
	for i := int64(0); i < size; i += 97 {
		checkEntries(t, r, i, i+1)
	}
	n := 0
	for _, x := range r.files {
		if len(x.marks) > 0 {
			n++
		}
	}
	if n > maxIndexed+2 {
		t.Errorf("places of %d files are kept, want at most %d", n, maxIndexed+2)
	}
	checkEntries(t, r, 0, size)
}

// TestReaderLive checks the rule of what may be shown of a log in use.
func TestReaderLive(t *testing.T) {
	s := faultfs.New()
	r := openReader(t, s) // no directory yet
	wantSize(t, r, 0)
	l := newTestLog(t, s, testOptions(s))
	lock, err := s.Lock("/d/LOCK")
	if err != nil {
		t.Fatal(err)
	}
	wantSize(t, r, 0)
	for _, step := range []struct {
		name       string
		add        int
		checkpoint string
		want       int64
	}{
		{"first batch", 3, "", 0},
		{"second batch proves the first", 4, "", 3},
		{"checkpoint over all", 0, "origin\n7\nroot\n", 7},
		{"third batch", 5, "origin\n7\nroot\n", 7},
		{"checkpoint within it", 0, "origin\n9\nroot\n", 9},
		{"checkpoint beyond the journal", 0, "origin\n900\nroot\n", 12},
		{"it never shrinks", 0, "", 12},
		{"bad checkpoint", 1, "x", 12},
	} {
		if step.add > 0 {
			l.mustAdd(step.add)
		}
		if step.checkpoint != "" {
			if err := durable.WriteFile(s, "/d/checkpoint", []byte(step.checkpoint), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := r.Size(); err != nil || got != step.want {
			t.Fatalf("%s: Size() = %d, %v, want %d", step.name, got, err, step.want)
		}
		checkEntries(t, r, 0, step.want)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	wantSize(t, r, 13)
	checkEntries(t, r, 0, 13)
}

// TestReaderSeesBatchBeingWritten writes a batch in pieces, as a reader may
// see it, and lets a recovery put another one in its place.
func TestReaderSeesBatchBeingWritten(t *testing.T) {
	build := faultfs.New()
	l := newTestLog(t, build, testOptions(build))
	l.mustAdd(200, 30, 71) // the last batch begins the second bundle
	whole := readAll(t, build, file0)
	from, to := l.starts[2].off, l.w.at.off
	for _, cut := range []int64{1, 40, 88, 89, 500, 512, 2000, to - from - 1, to - from} {
		part := append(append(whole[:from:from], whole[from:from+cut]...), make([]byte, 9000)...)
		s := withFiles(t, map[int64][]byte{0: part})
		lock, err := s.Lock("/d/LOCK")
		if err != nil {
			t.Fatal(err)
		}
		r := openReader(t, s)
		want := int64(200)
		if cut >= 88 {
			want = 230 // the header proves the batch before it
		}
		wantSize(t, r, want)
		checkEntries(t, r, 0, want)
		if err := lock.Close(); err != nil {
			t.Fatal(err)
		}
		want = 230
		if cut == to-from {
			want = 301
		}
		wantSize(t, r, want)
		if want == 301 {
			continue
		}
		// The writer is gone. Cut the file where a start would, and go on.
		trimmed := withFiles(t, map[int64][]byte{0: part[:from]})
		log := reopen(t, trimmed, testOptions(trimmed))
		log.mustAdd(10, 20, 30)
		r.fs = trimmed
		wantSize(t, r, 290)
		checkEntries(t, r, 0, 290)
	}
}

func TestReaderReportsDamage(t *testing.T) {
	file, starts := threeBatches(t)
	for at := starts[1]; at < starts[2]; at += 11 {
		b := append([]byte(nil), file...)
		b[at] ^= 1
		s := withFiles(t, map[int64][]byte{0: b})
		r := openReader(t, s)
		n := int64(0)
		var damaged *DamagedError
		for _, err := range r.Entries(0, 34) {
			if err != nil {
				if !errors.As(err, &damaged) {
					t.Fatal(err)
				}
				break
			}
			n++
		}
		// A bad header looks like the end of the file: what is behind it is
		// for verify and for the next start to find.
		if n != 3 || damaged == nil && at >= starts[1]+BatchHeaderLen {
			t.Errorf("byte %d changed: %d entries and error %v, want 3 and damage", at-starts[1], n, damaged)
		}
	}
	s, _ := manyFiles(t, 256, 256, 256, 5)
	if err := s.Remove("/d/journal/" + FileName(256)); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	for _, err := range openReader(t, s).Entries(0, 700) {
		if err != nil && !errors.As(err, &damaged) {
			t.Fatal(err)
		}
	}
	if damaged == nil || damaged.Index != 256 {
		t.Errorf("with a file missing: %v, want damage at entry 256", damaged)
	}
}

// TestReadersBesideWriter reads all the time while a log grows and rotates.
func TestReadersBesideWriter(t *testing.T) {
	dir := t.TempDir()
	opt := testOptions(durable.OS)
	opt.Dir, opt.SegmentSize = dir+"/journal", 40<<10
	l := newTestLog(t, durable.OS, opt)
	lock, err := durable.OS.Lock(dir + "/LOCK")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	errs := make(chan error, 3)
	var wg sync.WaitGroup
	shared, err := OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		wg.Go(func() {
			for seen := int64(0); ; {
				size, err := shared.Size()
				if err == nil && size < seen {
					err = fmt.Errorf("the log shrank from %d to %d", seen, size)
				}
				next := max(0, seen-50)
				for e, ierr := range shared.Entries(next, size) {
					if err = ierr; err == nil && e.Index != next {
						err = fmt.Errorf("entry %d, want %d", e.Index, next)
					}
					if err != nil {
						break
					}
					next++
				}
				if err == nil && next < size {
					err = fmt.Errorf("entries end at %d, want %d", next, size)
				}
				if err != nil {
					errs <- err
					return
				}
				seen = size
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 400 {
		l.mustAdd(1 + i%23)
	}
	close(done)
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	if err := errors.Join(l.w.Close(), lock.Close()); err != nil {
		t.Fatal(err)
	}
	wantSize(t, shared, l.tree.Size())
	checkEntries(t, shared, 0, l.tree.Size())
}
