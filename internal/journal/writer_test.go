package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/tree"
)

func rnd(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// TestRotation checks the boundaries: a file that is due ends at a multiple
// of 256, and neither before nor behind.
func TestRotation(t *testing.T) {
	for _, tt := range []struct {
		batches []int
		files   []int64
	}{
		{[]int{255}, []int64{0}},
		{[]int{256}, []int64{0}},
		{[]int{256, 1}, []int64{0, 256}},
		{[]int{255, 1, 1}, []int64{0, 256}},
		{[]int{257, 100}, []int64{0}},
		{[]int{257, 255, 1}, []int64{0, 512}},
		{[]int{256, 256, 256, 255, 1, 3}, []int64{0, 256, 512, 768, 1024}},
	} {
		t.Run(fmt.Sprint(tt.batches), func(t *testing.T) {
			s := faultfs.New()
			opt := testOptions(s)
			opt.SegmentSize = 1
			l := newTestLog(t, s, opt)
			l.mustAdd(tt.batches...)
			names, err := listFiles(s, opt.Dir)
			if err != nil || fmt.Sprint(names) != fmt.Sprint(tt.files) {
				t.Fatalf("files %v, %v, want %v", names, err, tt.files)
			}
			size := l.w.Next()
			r, err := OpenReaderFS(s, "/d")
			if err != nil {
				t.Fatal(err)
			}
			checkEntries(t, r, 0, size)
			l = reopen(t, s.Crash(rnd(1)), opt)
			if l.tree.Size() != size {
				t.Errorf("after a crash there are %d entries, want %d", l.tree.Size(), size)
			}
			l.mustAdd(256, 256)
		})
	}
}

func TestRotationByAge(t *testing.T) {
	s := faultfs.New()
	opt := testOptions(s)
	opt.SegmentAge = 100 * time.Nanosecond
	l := newTestLog(t, s, opt)
	for want, now := range map[bool]int64{false: 100, true: 101} {
		l.mustAdd(1)
		if got := l.w.Due(now); got != want {
			t.Errorf("Due(%d) = %v, want %v", now, got, want)
		}
	}
	if l := newTestLog(t, faultfs.New(), opt); l.w.Due(1000) {
		t.Error("an empty file is due, want never")
	}
}

// TestRoom makes sure that zeros always follow the last batch, that small
// logs stay small and that a closed one has no zeros.
func TestRoom(t *testing.T) {
	s := faultfs.New()
	opt := testOptions(s)
	opt.SegmentSize, opt.Room = 3<<20, 0
	l := newTestLog(t, s, opt)
	if n := len(readAll(t, s, file0)); n > firstRoom+maxFileHeader {
		t.Errorf("a new file has %d bytes, want about %d", n, firstRoom)
	}
	var big []byte
	for l.w.Offset() < opt.SegmentSize+100<<10 {
		big = append(big[:0], make([]byte, BatchHeaderLen)...)
		first := l.w.Next()
		big = AppendEntry(big, first, testLeaf(first), []byte(strings.Repeat("x", 100<<10)))
		l.tree.Append(tree.LeafHash(testLeaf(first)))
		root := l.tree.Root()
		if err := l.w.Append(big, 1, &root, 1); err != nil {
			t.Fatal(err)
		}
		if size := int64(len(readAll(t, s, file0))); size <= l.w.Offset() {
			t.Fatalf("file of %d bytes with batches up to %d: want at least one zero behind them", size, l.w.Offset())
		}
	}
	if err := l.w.Close(); err != nil {
		t.Fatal(err)
	}
	if size := int64(len(readAll(t, s, file0))); size != l.w.Offset() {
		t.Errorf("closed file has %d bytes, want %d", size, l.w.Offset())
	}
	if err := l.add(1); err == nil {
		t.Error("a closed writer took a batch")
	}
}

// TestFullDisk: no room for zeros ahead is no error as long as batches fit.
func TestFullDisk(t *testing.T) {
	s := faultfs.New()
	opt := testOptions(s)
	opt.Room = 0
	l := newTestLog(t, s, opt)
	s.SetSpace(100 << 10)
	n := 0
	for ; ; n++ {
		if err := l.add(50); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("add = %v, want ENOSPC", err)
			}
			break
		}
	}
	if l.w.Offset() < 900<<10 {
		t.Errorf("the writer gave up at %d bytes, with room for more than %d", l.w.Offset(), 1<<20)
	}
	if err := l.add(1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("add after that = %v, want the same error", err)
	}
	s.SetSpace(-1)
	l = reopen(t, s, testOptions(s))
	if got := l.w.Next(); got != int64(n*50) {
		t.Errorf("%d entries after a full disk, want %d", got, n*50)
	}
}

// TestWriterFaults breaks each change to the disk that a life of a journal
// consists of, before and after it took effect, then takes the power away. No
// entry that was acknowledged may be gone, and the journal must go on.
func TestWriterFaults(t *testing.T) {
	t.Run("direct", func(t *testing.T) { testWriterFaults(t, true) })
	t.Run("page cache", func(t *testing.T) { testWriterFaults(t, false) })
}

func testWriterFaults(t *testing.T, direct bool) {
	type life struct{ acked int64 }
	run := func(t *testing.T, s *faultfs.FS, l *life) error {
		opt := testOptions(s)
		opt.SegmentSize = 1
		step := func(log *testLog, n int) error {
			err := log.add(n)
			if err == nil {
				l.acked = log.w.Next()
			}
			return err
		}
		w, err := Create(opt, 1)
		if err != nil {
			return err
		}
		log := &testLog{t: t, fs: s, opt: opt, w: w, tree: NewTree(opt), now: 1}
		for _, n := range []int{100, 156, 3} {
			if err := step(log, n); err != nil {
				_ = w.Close()
				return err
			}
		}
		if err := w.Close(); err != nil {
			return err
		}
		st, err := Recover(opt, -1)
		if err != nil {
			return err
		}
		if w, err = st.Resume(); err != nil {
			return err
		}
		log = &testLog{t: t, fs: s, opt: opt, w: w, tree: st.Tree, seed: st.Seed, now: 1}
		if err := step(log, 2); err != nil {
			_ = w.Close()
			return err
		}
		return w.Close()
	}
	fresh := func() *faultfs.FS {
		s := faultfs.New()
		s.SetDirect(direct)
		if err := durable.MkdirAll(s, "/d/journal", 0o700); err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := fresh()
	if err := run(t, s, &life{}); err != nil {
		t.Fatal(err)
	}
	made := fresh().Ops()
	for n := 1; n <= s.Ops()-made; n++ {
		for _, fault := range []faultfs.Fault{
			{Err: syscall.EIO}, {Err: syscall.EIO, After: true}, {Err: syscall.EIO, Short: 700},
		} {
			s := fresh()
			count := 0
			var hit string
			s.Inject(func(op faultfs.Op, name string) faultfs.Fault {
				if op != faultfs.Open && op != faultfs.Read && op != faultfs.List {
					if count++; count == n {
						hit = fmt.Sprintf("%s %s", op, name)
						return fault
					}
				}
				return faultfs.Fault{}
			})
			var l life
			err := run(t, s, &l)
			if hit != "" && err == nil && !strings.Contains(hit, string(faultfs.Remove)) {
				t.Errorf("fault at %s (%+v) was not reported", hit, fault)
			}
			s.Inject(nil)
			for seed := range uint64(3) {
				after := s.Crash(rnd(seed))
				opt := testOptions(after)
				opt.SegmentSize = 1
				st, err := Recover(opt, -1)
				if errors.Is(err, ErrEmpty) && l.acked == 0 {
					continue
				}
				if err != nil {
					t.Fatalf("fault at %s (%+v): Recover = %v", hit, fault, err)
				}
				if st.Tree.Size() < l.acked {
					t.Fatalf("fault at %s (%+v): %d entries left of %d acknowledged", hit, fault, st.Tree.Size(), l.acked)
				}
				log := reopen(t, after, opt)
				log.mustAdd(5)
				r, err := OpenReaderFS(after, "/d")
				if err != nil {
					t.Fatal(err)
				}
				checkEntries(t, r, 0, log.w.Next())
			}
		}
	}
}

// TestDirectAndNot writes the same log past the page cache and through it,
// with batches around the sizes where something changes.
func TestDirectAndNot(t *testing.T) {
	var files [2][]byte
	for i, direct := range []bool{true, false} {
		s := faultfs.New()
		s.SetDirect(direct)
		l := newTestLog(t, s, testOptions(s))
		for _, size := range []int{
			1, 100, 4000, 4096, 8192, 70000, maxDirect - 300, maxDirect - BatchHeaderLen - 80, maxDirect, maxDirect + 1,
			300, maxDirect + 5000, 4096 - BatchHeaderLen, 1, 1 << 20, 7,
		} {
			first := l.w.Next()
			buf := AppendEntry(make([]byte, BatchHeaderLen), first, testLeaf(first), []byte(strings.Repeat("v", size)))
			l.tree.Append(tree.LeafHash(testLeaf(first)))
			root := l.tree.Root()
			if err := l.w.Append(buf, 1, &root, 9); err != nil {
				t.Fatal(err)
			}
			st, err := Recover(testOptions(s.Crash(rnd(uint64(size)))), -1)
			if err != nil || st.Tree.Size() != first+1 {
				t.Fatalf("direct %v: after a batch of %d bytes and a crash: %v, %v", direct, size, st, err)
			}
			s = s.Crash(rnd(uint64(size)))
			l = reopen(t, s, testOptions(s))
		}
		if err := l.w.Close(); err != nil {
			t.Fatal(err)
		}
		files[i] = readAll(t, s, file0)
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("the files differ")
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	dir := t.TempDir()
	opt := testOptions(durable.OS)
	opt.Dir = dir
	l := newTestLog(t, durable.OS, opt)
	l.mustAdd(1)
	buf := make([]byte, BatchHeaderLen)
	buf = AppendEntry(buf, 1, testLeaf(1), testValue(1))
	root := l.tree.Root()
	if n := testing.AllocsPerRun(50, func() {
		if err := l.w.Append(buf, 1, &root, 1); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Append allocates %v times, want 0", n)
	}
}
