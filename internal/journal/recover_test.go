package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/tree"
)

const file0 = "/d/journal/00000000000000000000.journal"

// threeBatches returns a journal file of three batches as it is while it is
// written, and where they begin. The last one has no part of a sector that is zero.
func threeBatches(t *testing.T) (file []byte, starts []int64) {
	s := faultfs.New()
	l := newTestLog(t, s, testOptions(s))
	l.mustAdd(3, 10, 21)
	file = append(readAll(t, s, file0), make([]byte, 2<<10)...) // some more room
	for _, p := range append(l.starts, l.w.at) {
		starts = append(starts, p.off)
	}
	if naiveZeroPart(file, starts[2], starts[3]) {
		t.Fatal("the last batch has a zero part of a sector: the tables below would not hold")
	}
	return file, starts
}

// naiveZeroPart is the rule for torn batches, written down once more.
func naiveZeroPart(file []byte, from, to int64) bool {
	sectors := map[int64]bool{}
	for at := from; at < to; at++ {
		zero, seen := sectors[at/512]
		sectors[at/512] = (zero || !seen) && file[at] == 0
	}
	for _, zero := range sectors {
		if zero {
			return true
		}
	}
	return false
}

func TestRecoverDecides(t *testing.T) {
	file, starts := threeBatches(t)
	third, mark := starts[2], Mark(file[104:112])
	sector := (third/512 + 1) * 512 // the first that is the last batch's alone
	cut := func(b []byte, n int64) []byte { return bytes.Clone(b[:n]) }
	edit := func(f func(b []byte)) []byte {
		b := bytes.Clone(file)
		f(b)
		return b
	}
	for _, tt := range []struct {
		name string
		file []byte
		size int64
		how  string
	}{
		{"as it is while written", file, 34, "open"},
		{"trimmed", cut(file, starts[3]), 34, "clean"},
		{"one zero behind the end", cut(file, starts[3]+1), 34, "open"},
		{"without the last batch, zeros in its place", edit(func(b []byte) { clear(b[third:]) }), 13, "open"},
		{"trimmed to the batch before", cut(file, third), 13, "clean"},
		{"only a header", cut(file, starts[0]), 0, "clean"},
		{"a sector zeroed", edit(func(b []byte) { clear(b[sector : sector+512]) }), 13, "torn"},
		{"the first part zeroed", edit(func(b []byte) { clear(b[third:sector]) }), 13, "torn"},
		{"one byte on the disk, which no disk does", edit(func(b []byte) { clear(b[third+1:]) }), 13, "damaged"},
		{"ends within the last batch", cut(file, sector+600), 13, "torn"},
		{"ends within its header, which no writer leaves", cut(file, third+20), 13, "damaged"},
		{"a bit flipped in the last body", edit(func(b []byte) { b[starts[3]-1] ^= 4 }), 13, "damaged"},
		{"a bit flipped in the last header", edit(func(b []byte) { b[third+9] ^= 1 }), 13, "damaged"},
		{"a bit flipped in its mark", edit(func(b []byte) { b[third+3] ^= 1 }), 13, "damaged"},
		{"a bit flipped in the batch before", edit(func(b []byte) { b[starts[1]+100] ^= 1 }), 3, "damaged"},
		{"the batch before zeroed", edit(func(b []byte) { clear(b[starts[1]:third]) }), 3, "damaged"},
		{"the first two batches zeroed", edit(func(b []byte) { clear(b[starts[0]:third]) }), 0, "damaged"},
		{"a batch repeated", edit(func(b []byte) { copy(b[starts[3]:], b[starts[1]:third]) }), 34, "damaged"},
		{"a bit flipped in the file header", edit(func(b []byte) { b[30] ^= 1 }), 0, "damaged"},
		{"file header cut", cut(file, starts[0]-1), 0, "damaged"},
		{"empty file", nil, 0, "damaged"},
		{"a byte behind the end", edit(func(b []byte) { b[len(b)-1] = 1 }), 34, "torn"},
		{"half a sector of the last header lost with the rest", edit(func(b []byte) { clear(b[sector:starts[3]]) }), 13, "torn"},
		{
			// A client can put what looks like a later batch into a value, but for
			// the mark: that must not make a torn batch look like damage.
			"torn batch with a forged header in its body", edit(func(b []byte) {
				h := BatchHeader{Mark: Mark{1}, Count: 1, BodyLen: 10, Seq: 99, First: 99}
				h.put(b[sector+600:])
				clear(b[sector : sector+512])
			}), 13, "torn",
		},
		{
			"the same, with the real header torn", edit(func(b []byte) {
				h := BatchHeader{Mark: Mark{1}, Count: 1, BodyLen: 10, Seq: 99, First: 99}
				h.put(b[sector+600:])
				clear(b[third:sector])
			}), 13, "torn",
		},
		{
			"a later header behind a torn batch", edit(func(b []byte) {
				h := BatchHeader{Mark: mark, Count: 1, BodyLen: 10, Seq: 99, First: 99}
				h.put(b[starts[3]+5000:])
				clear(b[sector : sector+512])
			}), 13, "damaged",
		},
		{
			"an earlier header behind a torn batch", edit(func(b []byte) {
				h := BatchHeader{Mark: mark, Count: 1, BodyLen: 10, Seq: 1, First: 99}
				h.put(b[starts[3]+5000:])
				clear(b[sector : sector+512])
			}), 13, "torn",
		},
		{
			"a batch rewritten with right CRCs and another leaf", edit(func(b []byte) {
				h, _ := parseBatchHeader(b[third:], mark)
				body := b[third+BatchHeaderLen:][:h.BodyLen]
				body[bytes.Index(body, []byte("leaf"))] = 'L'
				h.BodyCRC = checksum(body)
				h.put(b[third:])
			}), 13, "damaged",
		},
		{
			"a batch that claims more entries", edit(func(b []byte) {
				h, _ := parseBatchHeader(b[third:], mark)
				h.Count++
				h.put(b[third:])
			}), 13, "damaged",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := withFiles(t, map[int64][]byte{0: tt.file})
			size, how := recovered(t, s)
			if size != tt.size || how != tt.how {
				t.Fatalf("Recover = %d, %s, want %d, %s", size, how, tt.size, tt.how)
			}
			if how == "damaged" {
				if !bytes.Equal(readAll(t, s, file0), tt.file) {
					t.Error("a damaged file was changed")
				}
				return
			}
			// It goes on, ends in order, and reads back.
			l := reopen(t, s, testOptions(s))
			l.mustAdd(5)
			if err := l.w.Close(); err != nil {
				t.Fatal(err)
			}
			if size, how := recovered(t, s); size != tt.size+5 || how != "clean" {
				t.Errorf("after 5 more entries Recover = %d, %s, want %d, clean", size, how, tt.size+5)
			}
			r, err := OpenReaderFS(s, "/d")
			if err != nil {
				t.Fatal(err)
			}
			checkEntries(t, r, 0, tt.size+5)
		})
	}
}

// TestRecoverTornAnywhere loses every set of sectors of the last batch, and
// everything behind each of its bytes.
func TestRecoverTornAnywhere(t *testing.T) {
	file, starts := threeBatches(t)
	third, end := starts[2], starts[3]
	check := func(b []byte, what string, n int64) {
		t.Helper()
		want, size := "damaged", int64(13)
		switch {
		case bytes.Equal(b[third:end], file[third:end]):
			want, size = "open", 34
		case bytes.Count(b[third:end], []byte{0}) == int(end-third):
			want = "open"
		case !bytes.Equal(b[third:][:BatchHeaderLen], file[third:][:BatchHeaderLen]):
			if naiveZeroPart(b, third, third+BatchHeaderLen) {
				want = "torn"
			}
		case naiveZeroPart(b, third, end):
			want = "torn"
		}
		if got, how := recovered(t, withFiles(t, map[int64][]byte{0: b})); got != size || how != want {
			t.Errorf("%s %d: Recover = %d, %s, want %d, %s", what, n, got, how, size, want)
		}
	}
	b := bytes.Clone(file)
	for at := end - 1; at >= third; at-- {
		b[at] = 0
		check(b, "lost from byte", at-third)
	}
	first, last := third/512, (end-1)/512
	for set := int64(1); set < 1<<(last-first+1); set++ {
		b := bytes.Clone(file)
		for sec := first; sec <= last; sec++ {
			if set>>(sec-first)&1 == 1 {
				clear(b[max(third, sec*512):min(end, (sec+1)*512)])
			}
		}
		check(b, "lost sectors", set)
	}
}

// TestRecoverFindsBitFlips flips bits in each byte of a whole small file.
func TestRecoverFindsBitFlips(t *testing.T) {
	file, starts := threeBatches(t)
	file = file[:starts[3]+600]
	s := withFiles(t, map[int64][]byte{0: file})
	f, err := s.OpenRW(file0)
	if err != nil {
		t.Fatal(err)
	}
	for at := range int64(len(file)) {
		for _, bit := range []int64{at % 8, (3*at + 4) % 8} {
			if _, err := f.WriteAt([]byte{file[at] ^ 1<<bit}, at); err != nil {
				t.Fatal(err)
			}
			// Behind the last batch there is nothing to lose.
			if _, how := recovered(t, s); how != "damaged" && (at < starts[3] || how != "torn") {
				t.Fatalf("bit %d of byte %d flipped: %s, want damaged", bit, at, how)
			}
		}
		if _, err := f.WriteAt(file[at:at+1], at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecoverFiles(t *testing.T) {
	s := faultfs.New()
	opt := testOptions(s)
	opt.SegmentSize = 1 // each file ends at its first multiple of 256
	l := newTestLog(t, s, opt)
	l.mustAdd(256, 256, 256, 10)
	if err := l.w.Close(); err != nil {
		t.Fatal(err)
	}
	files := map[int64][]byte{}
	for _, first := range []int64{0, 256, 512, 768} {
		files[first] = readAll(t, s, "/d/journal/"+FileName(first))
	}
	for _, tt := range []struct {
		name string
		edit func(files map[int64][]byte)
		size int64
		how  string
	}{
		{"whole", func(map[int64][]byte) {}, 778, "clean"},
		{"the last is missing", func(f map[int64][]byte) { delete(f, 768) }, 768, "clean"},
		{"the one before the last is missing", func(f map[int64][]byte) { delete(f, 512) }, 512, "damaged"},
		{"the first is missing", func(f map[int64][]byte) { delete(f, 0) }, 778, "clean"}, // it may be sealed: not this package's business
		{"the one before the last is not trimmed", func(f map[int64][]byte) { f[512] = append(f[512], 0) }, 768, "damaged"},
		{"the one before the last is short", func(f map[int64][]byte) { f[512] = f[512][:len(f[512])-1] }, 768, "damaged"},
		{"the one before the last is another's", func(f map[int64][]byte) { f[512] = bytes.Clone(f[256]) }, 512, "damaged"},
		{"a file under another's name", func(f map[int64][]byte) { f[1024] = bytes.Clone(f[768]) }, 1024, "damaged"},
		{"a file of another log", func(f map[int64][]byte) {
			h, err := ParseFileHeader(f[768])
			if err != nil {
				panic(err)
			}
			h.LogID = sha256.Sum256([]byte("another"))
			f[768] = h.Append(nil)
		}, 768, "damaged"},
		{"the last is empty of batches", func(f map[int64][]byte) {
			h, err := ParseFileHeader(f[768])
			if err != nil {
				panic(err)
			}
			f[768] = f[768][:h.Len]
		}, 768, "clean"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			edited := map[int64][]byte{}
			for first, b := range files {
				edited[first] = bytes.Clone(b)
			}
			tt.edit(edited)
			size, how := recovered(t, withFiles(t, edited))
			if how == "damaged" && tt.how == "damaged" {
				return
			}
			if size != tt.size || how != tt.how {
				t.Errorf("Recover = %d, %s, want %d, %s", size, how, tt.size, tt.how)
			}
		})
	}
}

func TestRecoverEmpty(t *testing.T) {
	s := withFiles(t, nil)
	if _, err := Recover(testOptions(s), 0); !errors.Is(err, ErrEmpty) {
		t.Errorf("Recover of nothing = %v, want ErrEmpty", err)
	}
}

// TestRootAt asks for the root, and for the leaves behind it, at every size of a log of several files.
func TestRootAt(t *testing.T) {
	s := faultfs.New()
	opt := testOptions(s)
	opt.SegmentSize = 1
	l := newTestLog(t, s, opt)
	l.mustAdd(100, 156, 255, 1, 256, 7)
	naive := tree.New()
	for at := int64(0); at <= 775; at++ {
		if at%25 == 0 || at%256 < 2 || at > 770 {
			behind := map[int64]int{}
			opt.OnLeaf = func(index int64, leaf []byte) {
				if index < at || !bytes.Equal(leaf, testLeaf(index)) {
					t.Fatalf("OnLeaf for %d: entry %d, %q", at, index, leaf)
				}
				behind[index]++
			}
			st, err := Recover(opt, at)
			if err != nil {
				t.Fatal(err)
			}
			if !st.HasRootAt || st.RootAt != naive.Root() {
				t.Fatalf("root at %d = %v, %x, want %x", at, st.HasRootAt, st.RootAt, naive.Root())
			}
			for i := at; i < 775; i++ {
				if behind[i] != 1 {
					t.Fatalf("OnLeaf for %d: entry %d was there %d times", at, i, behind[i])
				}
			}
		}
		naive.Append(tree.LeafHash(testLeaf(at)))
	}
	if st, err := Recover(opt, 776); err != nil || st.HasRootAt {
		t.Errorf("root beyond the end = %v, %v, want none", st.HasRootAt, err)
	}
}

// TestResumeCopies makes sure that a file whose writer died is not appended
// to: what only the page cache has would be taken for durable.
func TestResumeCopies(t *testing.T) {
	s := faultfs.New()
	s.SetDirect(false)
	l := newTestLog(t, s, testOptions(s))
	l.mustAdd(3)
	s.Inject(func(op faultfs.Op, _ string) faultfs.Fault {
		if op == faultfs.Datasync {
			return faultfs.Fault{Err: errors.New("bad disk")}
		}
		return faultfs.Fault{}
	})
	if err := l.add(4); err == nil {
		t.Fatal("a batch that was not synced was accepted")
	}
	s.Inject(nil)
	if err := l.add(1); err == nil {
		t.Fatal("the writer went on after a failed sync")
	}
	if err := l.w.Close(); err != nil {
		t.Fatal(err)
	}
	l = reopen(t, s, testOptions(s)) // same machine: the page cache shows 7 entries
	if n := l.w.Next(); n != 7 {
		t.Fatalf("the next entry is %d, want 7", n)
	}
	l.mustAdd(2)
	for seed := range uint64(20) {
		if size, how := recovered(t, s.Crash(rnd(seed))); size != 9 || how != "open" {
			t.Fatalf("after a crash Recover = %d, %s, want 9, open", size, how)
		}
	}
}

// TestFileHeaderBytes checks offsets against docs/format/journal.md.
func TestHeaderBytes(t *testing.T) {
	s := faultfs.New()
	opt := testOptions(s)
	opt.SegmentSize = 1
	l := newTestLog(t, s, opt)
	l.mustAdd(256, 1)
	first, b := readAll(t, s, file0), readAll(t, s, "/d/journal/00000000000000000256.journal")
	le := binary.LittleEndian
	leaves := tree.New()
	for i := range int64(256) {
		leaves.Append(tree.LeafHash(testLeaf(i)))
	}
	root := leaves.Root()
	h := int(le.Uint32(b[8:]))
	batch := b[h:]
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"magic", string(b[:8]), "pgnjrnl1"},
		{"length", h, 113 + 2 + 32 + 4},
		{"first index", le.Uint64(b[12:]), uint64(256)},
		{"created", le.Uint64(b[20:]), uint64(3)},
		{"sequence", le.Uint64(b[28:]), uint64(1)},
		{"CRC of the batch before", le.Uint32(b[36:]), le.Uint32(first[117+84:])},
		{"root", [32]byte(b[40:]), root},
		{"log id", [32]byte(b[72:]), sha256.Sum256([]byte("test"))},
		{"levels", b[112], byte(1)},
		{"count of level 1", le.Uint16(b[113:]), uint16(1)},
		{"hash of level 1", [32]byte(b[115:]), root},
		{"CRC", le.Uint32(b[h-4:]), checksum(b[:h-4])},
		{"mark", [8]byte(batch), [8]byte(b[104:])},
		{"count", le.Uint32(batch[8:]), uint32(1)},
		{"batch sequence", le.Uint64(batch[16:]), uint64(1)},
		{"index", le.Uint64(batch[24:]), uint64(256)},
		{"time", le.Uint64(batch[32:]), uint64(3)},
		{"chain", le.Uint32(batch[40:]), le.Uint32(b[h-4:])},
		{"body CRC", le.Uint32(batch[44:]), checksum(batch[88:][:le.Uint32(batch[12:])])},
		{"zero", le.Uint32(batch[80:]), uint32(0)},
		{"header CRC", le.Uint32(batch[84:]), checksum(batch[:84])},
		{"chain in a file", le.Uint32(first[117+40:]), le.Uint32(first[113:])},
		{"level lengths of an empty tree", int(le.Uint32(first[8:])), 117},
	} {
		if tt.got != tt.want {
			t.Errorf("%s = %v, want %v", tt.what, tt.got, tt.want)
		}
	}
}
