package journal

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// countingFS counts reads.
type countingFS struct {
	durable.FS
	reads int
}

type countingFile struct {
	durable.File
	fs *countingFS
}

func (c *countingFS) Open(name string) (durable.File, error) {
	f, err := c.FS.Open(name)
	return countingFile{f, c}, err
}

func (f countingFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.reads++
	return f.File.ReadAt(b, off)
}

// hintedLog is a journal file of many small batches and some large ones, and the
// places of all its bundles.
func hintedLog(t testing.TB) (s *faultfs.FS, l *testLog, size int64, places []byte) {
	s = faultfs.New()
	opt := testOptions(s)
	l = &testLog{}
	if err := durable.MkdirAll(s, opt.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := Create(opt, 1)
	if err != nil {
		t.Fatal(err)
	}
	*l = testLog{fs: s, opt: opt, w: w, tree: NewTree(opt), now: 1}
	for i := range 3000 {
		n := 1 + i%3
		if i%500 == 250 {
			n = 700 // several bundles begin in it
		}
		if err := l.add(n); err != nil {
			t.Fatal(err)
		}
	}
	size = l.w.Next()
	r, err := OpenReaderFS(s, "/d")
	if err != nil {
		t.Fatal(err)
	}
	if places, err = r.Places(0, (size-1)/tree.Width*tree.Width); err != nil {
		t.Fatal(err)
	}
	return s, l, size, places
}

// readHinted checks that a reader with a hint reads all, in any order.
func readHinted(t *testing.T, s durable.FS, size int64, places []byte) {
	t.Helper()
	for _, from := range []int64{0, size - 1, size / 2, 700, 255, 256} {
		r, err := OpenReaderFS(s, "/d", Hint{0, places})
		if err != nil {
			t.Fatal(err)
		}
		wantSize(t, r, size)
		checkEntries(t, r, min(size, from), min(size, from+300))
		for index := int64(0); index < size; index += 1777 {
			checkEntries(t, r, index, index+1)
		}
		got, err := r.Places(0, (size-1)/tree.Width*tree.Width)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(got) / PlaceLen; int64(n) != (size-1)/tree.Width+1 {
			t.Fatalf("a reader with a hint tells %d places of %d entries", n, size)
		}
	}
}

// TestHint holds that a reader with a hint reads the same in fewer steps, also
// where the file went on since.
func TestHint(t *testing.T) {
	s, l, size, places := hintedLog(t)
	l.t = t
	readHinted(t, s, size, places)
	reads := func(hints ...Hint) int {
		c := &countingFS{FS: s}
		r, err := OpenReaderFS(c, "/d", hints...)
		if err != nil {
			t.Fatal(err)
		}
		checkEntries(t, r, 5000, 5001)
		wantSize(t, r, size)
		return c.reads
	}
	if with, without := reads(Hint{0, places}), reads(); with > 15 || without < 40 {
		t.Errorf("opening and reading one entry takes %d reads with a hint and %d without, want 15 and 40 or more", with, without)
	}
	l.mustAdd(1, 2, 900, 1, 5, 1, 300)
	readHinted(t, s, l.w.Next(), places)
	readHinted(t, s, l.w.Next(), places[:len(places)/PlaceLen/2*PlaceLen])
}

// TestHintWrong holds that no hint, whatever it says, makes a reader tell
// anything else than one without: of another file, of more than is there,
// shifted, in disorder, changed.
func TestHintWrong(t *testing.T) {
	s, _, size, places := hintedLog(t)
	change := func(f func(p []byte) []byte) []byte { return f(bytes.Clone(places)) }
	le := binary.LittleEndian
	each := func(p []byte, f func(p []byte)) []byte {
		for i := 0; i < len(p); i += PlaceLen {
			f(p[i:])
		}
		return p
	}
	rows := map[string][]byte{
		"empty":         {},
		"cut":           places[:PlaceLen+7],
		"shifted":       change(func(p []byte) []byte { return p[PlaceLen:] }),
		"the last only": places[len(places)-PlaceLen:],
		"reversed":      change(func(p []byte) []byte { slices.Reverse(p); return p }),
		"other offsets": change(func(p []byte) []byte {
			return each(p, func(p []byte) { le.PutUint64(p, le.Uint64(p)+1) })
		}),
		"beyond the end": change(func(p []byte) []byte {
			return each(p, func(p []byte) { le.PutUint64(p, le.Uint64(p)+1<<40) })
		}),
		"negative": change(func(p []byte) []byte {
			return each(p, func(p []byte) { le.PutUint64(p, 1<<63) })
		}),
		"huge":     change(func(p []byte) []byte { return each(p, func(p []byte) { le.PutUint64(p, 1<<63-1) }) }),
		"sequence": change(func(p []byte) []byte { return each(p, func(p []byte) { p[8]++ }) }),
		"one batch for all": change(func(p []byte) []byte {
			return each(p, func(q []byte) { copy(q[:20], p) })
		}),
		"all but the last": change(func(p []byte) []byte {
			return each(p[:len(p)-PlaceLen], func(q []byte) { copy(q[:20], places[PlaceLen:]) })[:len(p)]
		}),
		"too few before a place": change(func(p []byte) []byte { // a real batch, said to hold an earlier bundle
			copy(p[3*PlaceLen:], p[9*PlaceLen:10*PlaceLen])
			return p[:4*PlaceLen]
		}),
	}
	for name, p := range rows {
		t.Run(name, func(t *testing.T) { readHinted(t, s, size, p) })
	}
	t.Run("random", func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for range 40 {
			p := bytes.Clone(places)
			for range 1 + r.IntN(3) {
				switch at := r.IntN(len(p)); r.IntN(3) {
				case 0:
					p[at] ^= 1 << r.IntN(8)
				case 1: // another one's place
					to := r.IntN(len(p)/PlaceLen) * PlaceLen
					copy(p[to:to+PlaceLen], p[at/PlaceLen*PlaceLen:])
				case 2:
					p = p[:max(PlaceLen, at)]
				}
			}
			readHinted(t, s, size, p)
		}
	})
}

// TestHintOfAnotherFile holds that the places of a file that was there before
// lead nowhere in the one that took its place: each has a mark of its own.
func TestHintOfAnotherFile(t *testing.T) {
	_, _, _, places := hintedLog(t)
	s := faultfs.New()
	opt := testOptions(s)
	opt.Rand = rand.NewChaCha8([32]byte{1})
	l := newTestLog(t, s, opt)
	l.mustAdd(1, 2, 300, 1, 5)
	readHinted(t, s, l.w.Next(), places)
}
