package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

const (
	leafName = "segment/00000000000000000000.zst"
	valName  = "segment/00000000000000000000.val"
)

// seal ends the current journal file and seals it.
func (b *builder) seal() {
	b.t.Helper()
	if err := b.l.Rotate(); err != nil {
		b.t.Fatal(err)
	}
	b.commit(b.add(event.Leaf{Kind: event.KindHeartbeat}, nil))
	if err := b.l.SealNow(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// sealedLog is a log of three segments, of one bundle each, and a journal. The
// second and third go back to a statement of the first.
func sealedLog(t testing.TB) string {
	b := newBuilder(t, ledger.Config{SegmentAge: 1 << 60})
	b.session(1)
	ref := event.Ref
	b.add(event.Leaf{Session: 9, Kind: event.KindConnect, Who: alice}, nil)
	p := b.add(event.Leaf{Session: 9, Kind: event.KindParse, Who: alice}, frame('P', "s\x00SELECT 1\x00\x00\x00"))
	b.add(event.Leaf{Session: 9, Kind: event.KindOutcome, Of: ref(p)}, nil)
	b.blob(2, ledger.MaxInline+1)
	b.seal()
	for i := range 2 {
		b.session(uint64(3 + i))
		x := b.add(event.Leaf{Session: 9, Kind: event.KindExecute, Who: alice, Parse: ref(p)}, frame('E', "\x00"))
		b.add(event.Leaf{Session: 9, Kind: event.KindOutcome, Of: ref(x), Since: ref(p)}, nil)
		b.seal()
	}
	b.session(7)
	b.close()
	return b.dir
}

func TestSealed(t *testing.T) {
	dir := sealedLog(t)
	r := run(t, dir, Options{})
	if !r.OK || r.Entries < 3*256 || r.Entries != r.Size || r.Values < 40 {
		t.Errorf("%+v", r)
	}
	if n := len(relative(t, dir)); n != 2+3*2+1+1 {
		t.Errorf("files %q, want log.json, checkpoint, three segments, a journal file and a blob", relative(t, dir))
	}
}

// TestFlipEverySealedBit is row 1 of the tamper matrix for what is sealed:
// every bit of the two files of a segment.
func TestFlipEverySealedBit(t *testing.T) {
	flipBits(t, sealedLog(t), []flips{
		{name: leafName, all: true},
		{name: valName, all: true},
		{name: "segment/00000000000000000256.val", all: true}, // has a copy
		{name: "segment/00000000000000000512.zst", some: 100},
	})
}

// TestSealedTamper is rows 2, 3, 5, 9, 20, 24 and 27 of the tamper matrix,
// where files of segments are what is altered.
func TestSealedTamper(t *testing.T) {
	dir := sealedLog(t)
	other := sealedLog(t)
	name := func(first string, suffix string) string { return "segment/00000000000000000" + first + suffix }
	remove := func(t *testing.T, dir, name string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	replace := func(t *testing.T, dir, name string, b []byte) {
		remove(t, dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, dir string)
		want string
	}{
		{"first segment removed", func(t *testing.T, dir string) { remove(t, dir, leafName); remove(t, dir, valName) }, "those before 256 are not there"},
		{"all segments removed", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "segment")); err != nil {
				t.Fatal(err)
			}
		}, "those before 768 are not there"},
		{"one in the middle removed", func(t *testing.T, dir string) {
			remove(t, dir, name("256", ".zst"))
			remove(t, dir, name("256", ".val"))
		}, "its header says entry 512, want 256"},
		{"last segment removed", func(t *testing.T, dir string) {
			remove(t, dir, name("512", ".zst"))
			remove(t, dir, name("512", ".val"))
		}, "entries from 512 on are missing"},
		{"leaf file removed", func(t *testing.T, dir string) { remove(t, dir, name("256", ".zst")) }, "want 256"},
		{"values removed", func(t *testing.T, dir string) { remove(t, dir, valName) }, "the values of entries 0 to 255 are not there"},
		{"journal removed", func(t *testing.T, dir string) { remove(t, dir, "journal/00000000000000000768.journal") }, "no journal files"},
		{"segments exchanged", func(t *testing.T, dir string) {
			a, b := readFile(t, dir, name("256", ".zst")), readFile(t, dir, name("512", ".zst"))
			replace(t, dir, name("256", ".zst"), b)
			replace(t, dir, name("512", ".zst"), a)
		}, "its header says entry 512, want 256"},
		{"a segment renamed", func(t *testing.T, dir string) {
			for _, suffix := range []string{".zst", ".val"} {
				b := readFile(t, dir, name("256", suffix))
				remove(t, dir, name("256", suffix))
				if err := os.WriteFile(filepath.Join(dir, name("257", suffix)), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}, "its header says entry 256, its name another"},
		{"values exchanged", func(t *testing.T, dir string) {
			a, b := readFile(t, dir, name("256", ".val")), readFile(t, dir, name("512", ".val"))
			replace(t, dir, name("256", ".val"), b)
			replace(t, dir, name("512", ".val"), a)
		}, "its header is not that of"},
		{"a second log's segment", func(t *testing.T, dir string) {
			b := readFile(t, other, name("256", ".zst"))
			b[8+128] ^= 1
			le := binary.LittleEndian
			le.PutUint32(b[le.Uint32(b[4:])+4:], crcOf(b[8:le.Uint32(b[4:])+4]))
			replace(t, dir, name("256", ".zst"), b)
		}, "belongs to another log"},
		{"an entry altered, CRCs and checksums made right", func(t *testing.T, dir string) {
			replace(t, dir, name("256", ".zst"), reseal(t, readFile(t, dir, name("256", ".zst")), 1, func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"alice"`), []byte(`"malic"`), 1)
			}))
		}, "the root that its header gives for its end is not that of the entries"},
		{"a value altered, CRCs and checksums made right", func(t *testing.T, dir string) {
			replace(t, dir, valName, reseal(t, readFile(t, dir, valName), 1, func(b []byte) []byte {
				return bytes.Replace(b, []byte("SELECT 1"), []byte("SELECT 2"), 1)
			}))
		}, "it is not the one the leaf commits to"},
		{"a copy altered", func(t *testing.T, dir string) {
			replace(t, dir, name("256", ".val"), reseal(t, readFile(t, dir, name("256", ".val")), 2, func(b []byte) []byte {
				return bytes.Replace(b, []byte("SELECT 1"), []byte("SELECT 2"), 1)
			}))
		}, "in the copy: it is not the one"},
		{"the path of a copy altered", func(t *testing.T, dir string) {
			replace(t, dir, name("256", ".val"), reseal(t, readFile(t, dir, name("256", ".val")), 2, func(b []byte) []byte {
				b[20] ^= 1
				return b
			}))
		}, "the path does not lead to its bundle"},
		{"a value erased without an entry", func(t *testing.T, dir string) {
			replace(t, dir, valName, reseal(t, readFile(t, dir, valName), 1, eraseFirst))
		}, "no erase entry that a checkpoint covers explains it"},
		{"a bomb", func(t *testing.T, dir string) {
			replace(t, dir, leafName, reseal(t, readFile(t, dir, leafName), 1, func([]byte) []byte { return make([]byte, 80<<20) }))
		}, "impossible"},
		{"another file", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "segment", "notes"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "no file of a log has this name"},
		{"cut", func(t *testing.T, dir string) {
			b := readFile(t, dir, leafName)
			replace(t, dir, leafName, b[:len(b)-1])
		}, "does not end in a seek table"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own := copyDir(t, dir)
			tt.do(t, own)
			wantFinding(t, run(t, own, Options{}), tt.want)
		})
	}
}

// TestSealedLeftovers: of a sealing that a crash ended, the journal file counts.
func TestSealedLeftovers(t *testing.T) {
	b := newBuilder(t, ledger.Config{SegmentAge: 1 << 60})
	b.session(1)
	if err := b.l.Rotate(); err != nil {
		t.Fatal(err)
	}
	b.session(2)
	before := copyDir(t, b.dir)
	if err := b.l.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.close()
	for _, name := range []string{leafName, valName} {
		if err := os.WriteFile(filepath.Join(before, name), readFile(t, b.dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
		r := run(t, before, Options{})
		if !r.OK || !strings.Contains(strings.Join(r.Notes, "\n"), "left over") {
			t.Errorf("findings %+v, notes %q", r.Findings, r.Notes)
		}
	}
}

// TestTrusted verifies from checkpoints of every kind of place: only what came
// since is read, and what came since is checked.
func TestTrusted(t *testing.T) {
	b := newBuilder(t, ledger.Config{SegmentAge: 1 << 60})
	var kept []File
	keep := func() {
		b.commit(b.add(event.Leaf{Kind: event.KindHeartbeat}, nil))
		if err := b.l.SealNow(t.Context()); err != nil { // signs
			t.Fatal(err)
		}
		kept = append(kept, File{"kept", readFile(t, b.dir, "checkpoint")})
	}
	b.add(event.Leaf{Session: 99, Kind: event.KindConnect, Who: alice}, nil)
	p := b.add(event.Leaf{Session: 99, Kind: event.KindParse, Who: alice}, frame('P', "s\x00SELECT 1\x00\x00\x00"))
	b.add(event.Leaf{Session: 99, Kind: event.KindOutcome, Of: event.Ref(p)}, nil)
	for i := range 6 {
		b.session(uint64(i + 1))
		keep()
		x := b.add(event.Leaf{Session: 99, Kind: event.KindExecute, Who: alice, Parse: event.Ref(p)}, frame('E', "\x00"))
		b.add(event.Leaf{Session: 99, Kind: event.KindOutcome, Of: event.Ref(x)}, nil)
		b.seal()
		keep()
	}
	b.close()
	all := run(t, b.dir, Options{})
	for i, k := range kept {
		r := run(t, b.dir, Options{Trusted: &k})
		if !r.OK || r.Size != all.Size || i > 2 && r.Entries >= all.Entries {
			t.Errorf("from checkpoint %d: %+v", i, r)
		}
	}
	// A log that is another one before the trusted checkpoint is found out.
	other := sealedLog(t)
	r := run(t, other, Options{Trusted: &kept[4]})
	if r.OK {
		t.Errorf("another log continues a trusted checkpoint: %+v", r)
	}
	// What is old is not read, and what belongs to it not said to mean nothing.
	if err := os.MkdirAll(filepath.Join(b.dir, "index"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "index", "00000000000000000000.idx"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(b.dir, valName)); err != nil {
		t.Fatal(err)
	}
	if r := run(t, b.dir, Options{Trusted: &kept[9]}); !r.OK || len(r.Notes) > 1 { // of the key
		t.Errorf("from a checkpoint behind the damage: %+v", r)
	}
}

// reseal changes the content of one frame of a sealed file, 0 being the
// header, and makes seek table and CRCs right again, as an attacker would.
func reseal(t *testing.T, file []byte, at int, change func([]byte) []byte) []byte {
	t.Helper()
	le := binary.LittleEndian
	n := int(le.Uint32(file[len(file)-9:]))
	table := file[len(file)-9-8*n : len(file)-9]
	var out, index []byte
	pos := 0
	for i := range n {
		size, real := int(le.Uint32(table[8*i:])), le.Uint32(table[8*i+4:])
		frame := file[pos : pos+size]
		pos += size
		switch {
		case i == at:
			dec, err := zstd.NewReader(nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := dec.DecodeAll(frame, nil)
			if err != nil {
				t.Fatal(err)
			}
			dec.Close()
			enc, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			b = change(b)
			frame, real = enc.EncodeAll(b, nil), uint32(len(b))
		case i == n-1:
			frame = le.AppendUint32(append([]byte{}, frame[:12]...), crcOf(out))
		}
		out = append(out, frame...)
		index = le.AppendUint32(le.AppendUint32(index, uint32(len(frame))), real)
	}
	out = le.AppendUint32(le.AppendUint32(out, seekFrame), uint32(len(index)+9))
	out = append(append(out, index...), file[len(file)-9:]...)
	return out
}

// TestDroppedCopies takes copies of older values away, as who wants a text to be unreadable
// once its own segment has been pruned.
func TestDroppedCopies(t *testing.T) {
	build := func() (b *builder, p int64) {
		b = newBuilder(t, ledger.Config{SegmentAge: 1 << 60})
		ref := event.Ref
		b.add(event.Leaf{Session: 9, Kind: event.KindConnect, Who: alice}, nil)
		p = b.add(event.Leaf{Session: 9, Kind: event.KindParse, Who: alice}, frame('P', "s\x00SELECT 1\x00\x00\x00"))
		b.add(event.Leaf{Session: 9, Kind: event.KindOutcome, Of: ref(p)}, nil)
		b.seal()
		for range 3 {
			x := b.add(event.Leaf{Session: 9, Kind: event.KindExecute, Who: alice, Parse: ref(p)}, frame('E', "\x00"))
			b.add(event.Leaf{Session: 9, Kind: event.KindOutcome, Of: ref(x)}, nil)
			b.seal()
		}
		x := b.add(event.Leaf{Session: 9, Kind: event.KindExecute, Who: alice, Parse: ref(p)}, frame('E', "\x00"))
		b.add(event.Leaf{Session: 9, Kind: event.KindOutcome, Of: ref(x)}, nil)
		b.commit(x + 1)
		return b, p
	}
	do := func(b *builder, o ledger.Order) {
		t.Helper()
		if a, err := b.l.Do(t.Context(), &o); err != nil || !a.OK {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	drop := func(dir string, segments ...int) {
		for _, first := range segments {
			name := filepath.Join("segment", fmt.Sprintf("%020d.val", first))
			b := reseal(t, readFile(t, dir, name), 2, func([]byte) []byte { return nil })
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	prune := ledger.Order{Kind: "prune", What: "leaves", Until: 256}
	values := ledger.Order{Kind: "prune", What: "values", Until: 256}
	for _, tt := range []struct {
		name     string
		orders   []ledger.Order
		drop     []int
		findings int
		lost     int
	}{
		{"nothing", nil, nil, 0, 0},
		{"nothing, pruned", []ledger.Order{prune}, nil, 0, 0},
		{"nothing, values pruned", []ledger.Order{values}, nil, 0, 0},
		{"nothing, copies pruned", []ledger.Order{{Kind: "prune", What: "values", Until: 768}}, nil, 0, 0},
		{"while the original is there", nil, []int{256, 768}, 2, 0},
		{"while another copy is there", []ledger.Order{prune}, []int{256, 768}, 2, 0},
		{"while a copy is there and the values are gone", []ledger.Order{values}, []int{512}, 1, 0},
		{"all, when the original was pruned", []ledger.Order{prune}, []int{256, 512, 768}, 0, 4},
		{"erased", []ledger.Order{{Kind: "erase", Entries: []int64{2}}}, nil, 0, 0},
		{"erased, then pruned", []ledger.Order{{Kind: "erase", Entries: []int64{2}}, prune}, nil, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, p := build()
			for _, o := range tt.orders {
				if o.Entries != nil && o.Entries[0] != p {
					t.Fatalf("the statement is entry %d", p)
				}
				do(b, o)
			}
			b.close()
			drop(b.dir, tt.drop...)
			r := run(t, b.dir, Options{})
			found := 0
			for _, f := range r.Findings {
				if strings.Contains(f.Why, fmt.Sprintf("has no copy of entry %d", p)) {
					found++
				}
			}
			if found != tt.findings || found != len(r.Findings) {
				t.Errorf("findings %+v, want %d", r.Findings, tt.findings)
			}
			lost := fmt.Sprintf("(%d such cases)", tt.lost)
			if notes := strings.Join(r.Notes, "\n"); strings.Contains(notes, "no copy") != (tt.lost > 0) || tt.lost > 0 && !strings.Contains(notes, lost) {
				t.Errorf("notes %q, want %s", r.Notes, lost)
			}
		})
	}
}

// eraseFirst takes the first inline value out of a block.
func eraseFirst(b []byte) []byte {
	entries := make([]entry, tileWidth)
	if !parseBlock(b, entries) {
		panic("not a block")
	}
	erased := false
	out, meta, values := []byte{1}, []byte(nil), []byte(nil)
	for i := range entries {
		e := &entries[i]
		e.index = int64(i)
		form := e.form
		if form == valueInline && !erased {
			form, erased = valueErased, true
		}
		out = append(out, form)
		switch form {
		case valueInline:
			salt := saltOf(e.salt, e.index)
			meta = binary.AppendUvarint(append(meta, salt[:]...), uint64(len(e.value)))
			values = append(values, e.value...)
		case valueBlob:
			meta = append(meta, e.salt[:]...)
			meta = append(binary.AppendUvarint(meta, uint64(e.length)), e.blob[:]...)
		}
	}
	return append(append(out, meta...), values...)
}

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// FuzzSealed verifies logs with any bytes as a value or leaf file.
func FuzzSealed(f *testing.F) {
	dir := sealedLog(f)
	f.Add(readFile(f, dir, leafName), true)
	f.Add(readFile(f, dir, valName), false)
	f.Fuzz(func(t *testing.T, b []byte, leaf bool) {
		name := leafName
		if !leaf {
			name = valName
		}
		own := t.TempDir()
		if err := os.Mkdir(filepath.Join(own, "segment"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(own, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		magic := valueMagic
		if leaf {
			magic = leafMagic
		}
		s, err := openSealed(own, name, magic)
		if err != nil {
			if _, bad := errors.AsType[*errSealed](err); !bad && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			return
		}
		defer s.f.Close()
		var w worker
		for i := range s.frames {
			c := chunk{values: false}
			if c.frame(s, i) != nil {
				return
			}
			c.done = nil
			if leaf {
				w.sealed(&c)
			} else if p, err := w.decode(c.buf, c.frames[0].real, nil); err == nil {
				parseBlock(p, make([]entry, tileWidth))
				parseCopies(p, 256)
			}
		}
	})
}
