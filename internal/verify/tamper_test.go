package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// flips says which bits of a file to flip: all, or so many chosen at random.
type flips struct {
	name string
	all  bool
	some int
}

// flipBits flips one bit after another and wants a finding each time. Each
// worker has a copy of the directory to itself.
func flipBits(t *testing.T, dir string, list []flips) {
	t.Helper()
	type job struct {
		name string
		bit  int64
	}
	jobs := make(chan job, 64)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		own := copyDir(t, dir)
		wg.Go(func() {
			for j := range jobs {
				if err := flip(filepath.Join(own, j.name), j.bit); err != nil {
					t.Error(err)
					continue
				}
				// An error is a refusal, which is as good.
				if r, err := Dir(context.Background(), own, Options{Workers: 1}); err == nil && r.OK {
					t.Errorf("%s: bit %d of byte %d flipped, and the log is found in order", j.name, j.bit%8, j.bit/8)
				}
				if err := flip(filepath.Join(own, j.name), j.bit); err != nil {
					t.Error(err)
				}
			}
			if r, err := Dir(context.Background(), own, Options{}); err != nil || !r.OK {
				t.Errorf("with all bits as they were: %+v, %v", r, err)
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	n := 0
	for _, b := range list {
		st, err := os.Stat(filepath.Join(dir, b.name))
		if err != nil {
			t.Fatal(err)
		}
		size := st.Size() * 8
		if b.all && !testing.Short() {
			for bit := range size {
				jobs <- job{b.name, bit}
				n++
			}
			continue
		}
		some := b.some
		if b.all {
			some = 300
		}
		for range some {
			jobs <- job{b.name, rng.Int64N(size)}
			n++
		}
	}
	close(jobs)
	wg.Wait()
	t.Logf("%d bits flipped", n)
}

func flip(name string, bit int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], bit/8); err != nil {
		return err
	}
	b[0] ^= 1 << (bit % 8)
	_, err = f.WriteAt(b[:], bit/8)
	return err
}

// relative returns names below dir, without the files verify leaves alone.
func relative(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	for _, name := range files(t, dir) {
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		if rel != "key" && rel != "LOCK" {
			out = append(out, rel)
		}
	}
	return out
}

// TestFlipEveryBit is row 1 of the tamper matrix: every bit of every file of a
// log of one session.
func TestFlipEveryBit(t *testing.T) {
	b := newBuilder(t, ledger.Config{})
	b.session(1)
	b.close()
	var list []flips
	for _, name := range relative(t, b.dir) {
		list = append(list, flips{name: name, all: true})
	}
	if len(list) != 3 {
		t.Fatalf("files %v, want log.json, checkpoint and a journal file", list)
	}
	flipBits(t, b.dir, list)
}

// TestFlipSomeBits flips some bits of a log with a blob and a restart.
func TestFlipSomeBits(t *testing.T) {
	dir := smallLog(t)
	var list []flips
	for _, name := range relative(t, dir) {
		list = append(list, flips{name: name, some: 200})
	}
	flipBits(t, dir, list)
}

// largeLog is a log with a tile and several journal files.
func largeLog(t testing.TB) string {
	b := newBuilder(t, ledger.Config{SegmentSize: 1 << 20})
	b.session(1)
	for range 25 {
		b.manyEntries(3000)
	}
	b.session(2)
	b.close()
	return b.dir
}

// TestFlipTile flips some bits of a log that has a tile and several journal
// files; each takes a full run over 75,000 entries.
func TestFlipTile(t *testing.T) {
	dir := largeLog(t)
	var list []flips
	for _, name := range relative(t, dir) {
		list = append(list, flips{name: name, some: 8})
	}
	if testing.Short() {
		list = list[:2]
	}
	flipBits(t, dir, list)
}

// journalFile is the name of the first journal file.
const journalFile = "journal/00000000000000000000.journal"

// batches returns where each batch of a journal file begins, and the end.
func batches(t testing.TB, file []byte) []int {
	t.Helper()
	at := int(file[8]) | int(file[9])<<8
	var out []int
	for at < len(file) {
		out = append(out, at)
		at += batchFixed + int(uint32(file[at+12])|uint32(file[at+13])<<8|uint32(file[at+14])<<16)
	}
	if at != len(file) {
		t.Fatalf("the journal file ends at %d, its last batch at %d", len(file), at)
	}
	return append(out, at)
}

// TestDeleteSwapDuplicate is row 2 of the tamper matrix, and row 15: batches of
// the journal are removed, doubled and exchanged.
func TestDeleteSwapDuplicate(t *testing.T) {
	dir := smallLog(t)
	for _, tt := range []struct {
		name   string
		change func(b []byte, at []int) []byte
		want   string
	}{
		{"delete the first", func(b []byte, at []int) []byte { return append(b[:at[0]], b[at[1]:]...) }, "damaged"},
		{"delete one in the middle", func(b []byte, at []int) []byte { return append(b[:at[2]], b[at[3]:]...) }, "damaged"},
		{"delete the last", func(b []byte, at []int) []byte { return b[:at[len(at)-2]] }, "entries are there or could be read"},
		{"delete all", func(b []byte, at []int) []byte { return b[:at[0]] }, "but only 0 entries"},
		{"duplicate one", func(b []byte, at []int) []byte { return append(b[:at[3]:at[3]], b[at[2]:]...) }, "damaged"},
		{"duplicate the last", func(b []byte, at []int) []byte { return append(b, b[at[len(at)-2]:]...) }, "damaged"},
		{"exchange two", func(b []byte, at []int) []byte {
			out := append([]byte{}, b[:at[1]]...)
			out = append(append(out, b[at[2]:at[3]]...), b[at[1]:at[2]]...)
			return append(out, b[at[3]:]...)
		}, "damaged"},
		{"zero a sector in the middle", func(b []byte, at []int) []byte { clear(b[512:1024]); return b }, "but a later batch follows"},
		{"zero all but the first", func(b []byte, at []int) []byte { clear(b[at[1]:]); return b }, "but only 1 entries"},
		{"bytes behind the end", func(b []byte, at []int) []byte { return append(b, strings.Repeat("x", 100)...) }, "damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own := copyDir(t, dir)
			edit(t, filepath.Join(own, journalFile), func(b []byte) []byte { return tt.change(b, batches(t, b)) })
			wantFinding(t, run(t, own, Options{}), tt.want)
		})
	}
}

// TestSwapFiles is the rest of row 2, and row 20: whole files are removed,
// renamed and exchanged.
func TestSwapFiles(t *testing.T) {
	dir := largeLog(t)
	var journals []string
	tile := ""
	for _, name := range relative(t, dir) {
		if strings.HasPrefix(name, "journal/") {
			journals = append(journals, name)
		} else if strings.HasPrefix(name, "tile/") {
			tile = name
		}
	}
	if len(journals) < 3 || tile == "" {
		t.Fatalf("%d journal files and the tile %q, want at least 3 and one", len(journals), tile)
	}
	remove := func(name string) func(string) error {
		return func(own string) error { return os.Remove(filepath.Join(own, name)) }
	}
	rename := func(from, to string) func(string) error {
		return func(own string) error { return os.Rename(filepath.Join(own, from), filepath.Join(own, to)) }
	}
	put := func(name string) func(string) error {
		return func(own string) error { return os.WriteFile(filepath.Join(own, name), []byte("x"), 0o600) }
	}
	for _, tt := range []struct {
		name   string
		change func(own string) error
		want   string
	}{
		{"remove the first journal file", remove(journals[0]), "are not there, and no prune entry"},
		{"remove one in the middle", remove(journals[1]), "are missing, and no entry explains it"},
		{"remove the last", remove(journals[len(journals)-1]), "entries are there or could be read"},
		{"rename one", rename(journals[1], "journal/00000000000000000256.journal"), "are missing"},
		{"exchange two", func(own string) error {
			a, b, tmp := filepath.Join(own, journals[1]), filepath.Join(own, journals[2]), filepath.Join(own, "tmp")
			return firstError(os.Rename(a, tmp), os.Rename(b, a), os.Rename(tmp, b))
		}, "its header says entry"},
		{"remove a tile", remove(tile), "tile/1/000: is missing"},
		{"rename a tile", rename(tile, "tile/1/001"), "tile/1/001: no tile of a log"},
		{"longer tile", func(own string) error { return appendTo(filepath.Join(own, tile), "x") }, "does not agree with the entries"},
		{"another tile", put("tile/2x"), "no tile of a log"},
		{"remove the checkpoint", remove("checkpoint"), "checkpoint: is missing"},
		{"remove log.json", remove("log.json"), "log.json: is missing"},
		{"a file with another name", put("notes.txt"), "notes.txt: no file of a log"},
		{"a file among the journal", put("journal/1.journal"), "no file of a log"},
		{"a file among the blobs", put("blob/x"), "no file of a log"},
		{"a link", func(own string) error { return os.Symlink("/dev/null", filepath.Join(own, "blob/link")) }, "not a plain file"},
		{"a directory in the place of the checkpoint", inPlace("checkpoint"), "checkpoint: it is not a plain file"},
		{"a directory in the place of a journal file", inPlace("journal/" + filepath.Base(journals[0])), "it is not a plain file"},
		{"a directory among the indexes", func(own string) error { return os.MkdirAll(filepath.Join(own, "index/x"), 0o700) }, "index/x: it is not a plain file"},
		{"bytes behind a journal file", func(own string) error { return appendTo(filepath.Join(own, journals[0]), "\x00") }, "damaged"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own := copyDir(t, dir)
			if err := tt.change(own); err != nil {
				t.Fatal(err)
			}
			wantFinding(t, run(t, own, Options{}), tt.want)
		})
	}
}

// inPlace puts a directory where a file was.
func inPlace(name string) func(own string) error {
	return func(own string) error {
		name := filepath.Join(own, name)
		return firstError(os.Remove(name), os.Mkdir(name, 0o700))
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func appendTo(name, s string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(s)
	return err
}

// TestTruncate is row 3 of the tamper matrix: the log ends before its
// checkpoint, wherever it is cut.
func TestTruncate(t *testing.T) {
	dir := smallLog(t)
	own := copyDir(t, dir)
	name := filepath.Join(own, journalFile)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	step := 7 // prime to all lengths there are
	if testing.Short() {
		step = 97
	}
	for n := len(b) - 1; n >= 0; n -= step {
		if err := os.Truncate(name, int64(n)); err != nil {
			t.Fatal(err)
		}
		if r := run(t, own, Options{Workers: 1}); r.OK {
			t.Fatalf("cut to %d bytes, and the log is found in order", n)
		}
	}
}

// TestRolledBack is row 4 as far as one checkpoint from earlier shows it: log
// and checkpoint are both put back, and somebody kept a later checkpoint.
func TestRolledBack(t *testing.T) {
	b := newBuilder(t, ledger.Config{})
	b.session(1)
	b.close()
	older := copyDir(t, b.dir)
	b.open(ledger.Config{})
	b.session(2)
	b.close()
	kept, err := os.ReadFile(filepath.Join(b.dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	earlier, err := os.ReadFile(filepath.Join(older, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	if r := run(t, b.dir, Options{Checkpoints: []File{{"earlier", earlier}, {"kept", kept}}}); !r.OK {
		t.Errorf("with earlier checkpoints of the same log: %+v", r.Findings)
	}
	wantFinding(t, run(t, older, Options{Checkpoints: []File{{"kept", kept}}}), "kept: is of size", "rolled back")
	wantFinding(t, run(t, older, Options{Checkpoints: []File{{"kept", []byte("nonsense")}}}), "kept: is not signed")
}

// TestRewritten is row 5: all is written again with the real key and another
// history, and only a checkpoint from earlier tells.
func TestRewritten(t *testing.T) {
	f := forged{entries: goodEntries(t)}
	kept, err := os.ReadFile(filepath.Join(f.write(t), "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	f.entries[2].value = []byte("quite another")
	f.entries[2].Size = int64(len(f.entries[2].value))
	f.entries = append(f.entries, forgedEntry{Leaf: f.entries[0].Leaf})
	dir := f.write(t)
	if r := run(t, dir, Options{}); !r.OK {
		t.Fatalf("the rewritten log by itself: %+v", r.Findings)
	}
	wantFinding(t, run(t, dir, Options{Checkpoints: []File{{"kept", kept}}}), "kept: its root at size 10", "not the one that was signed")
}

// TestForeign is row 9 and 10: checkpoint, journal or key are those of another log.
func TestForeign(t *testing.T) {
	mine := smallLog(t)
	f := forged{entries: goodEntries(t)}
	theirs := f.write(t)
	take := func(name string) string {
		own := copyDir(t, mine)
		b, err := os.ReadFile(filepath.Join(theirs, name))
		if err != nil {
			t.Fatal(err)
		}
		edit(t, filepath.Join(own, name), func([]byte) []byte { return b })
		return own
	}
	wantFinding(t, run(t, take("checkpoint"), Options{}), "checkpoint: is not signed with the log's key")
	wantFinding(t, run(t, take(journalFile), Options{}), "belongs to another log")
	wantFinding(t, run(t, take("log.json"), Options{}), "belongs to another log")

	// The same origin under another key: entry 0 knows log.json.
	s, vkey := forgedKey(t)
	other := copyDir(t, theirs)
	skey2, vkey2, err := checkpoint.GenerateKey(rand.NewChaCha8([32]byte{8}), forgedOrigin)
	if err != nil {
		t.Fatal(err)
	}
	s2, err := checkpoint.NewSigner(skey2)
	if err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Open(readFile(t, other, "checkpoint"), vkey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := checkpoint.Sign(s2, s.Name(), c.Size, c.Root)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(other, "checkpoint"), func([]byte) []byte { return signed })
	wantFinding(t, run(t, other, Options{}), "checkpoint: is not signed")
	edit(t, filepath.Join(other, "log.json"), func(b []byte) []byte { return []byte(strings.Replace(string(b), vkey, vkey2, 1)) })
	wantFinding(t, run(t, other, Options{}), "log.json: is not the file that entry 0 was written with")

	policy, err := checkpoint.ParsePolicy([]byte(checkpoint.FormatPolicy(vkey2, "")))
	if err != nil {
		t.Fatal(err)
	}
	trust := func(b []byte) (time.Time, error) { _, err := policy.Verify(b); return time.Time{}, err }
	wantFinding(t, run(t, theirs, Options{Trust: trust}), "checkpoint: does not satisfy the policy")
}

func readFile(t testing.TB, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestValues is row 23 and 24: values are altered and exchanged between
// entries, with all CRCs of the journal made right again.
func TestValues(t *testing.T) {
	good := goodEntries(t)
	sum := func(i int) (c hash) {
		seed := [32]byte{1, 2, 3}
		salt := saltOf(&seed, int64(i))
		return commitment(&salt, good[i].value)
	}
	for _, tt := range []struct {
		name   string
		change func(e []forgedEntry)
		index  int
	}{
		{"another value", func(e []forgedEntry) { e[2].raw = keepCommitment(sum(2)); e[2].value = []byte("Value of query") }, 2},
		{"value of another entry", func(e []forgedEntry) { e[2].raw = keepCommitment(sum(4)) }, 2},
		{"empty value", func(e []forgedEntry) { e[2].raw = keepCommitment(sum(2)); e[2].value = []byte{} }, 2},
	} {
		f := forged{entries: goodEntries(t)}
		tt.change(f.entries)
		wantFinding(t, run(t, f.write(t), Options{}), fmt.Sprintf("entry %d: value: it is not the one the leaf commits to", tt.index))
	}
	// Another seed is another salt for all values of its bundle.
	f := forged{entries: goodEntries(t), body: func(seq int, b []byte) []byte {
		if seq == 0 {
			b[0] ^= 1
		}
		return b
	}}
	wantFinding(t, run(t, f.write(t), Options{}), "entry 1: value: it is not the one the leaf commits to")
}

// keepCommitment puts a commitment into a leaf whatever its value is.
func keepCommitment(c hash) func([]byte) []byte {
	return func(leaf []byte) []byte {
		putCommitment(leaf, c)
		return leaf
	}
}

// TestBlob is row 21 and 23 for values in files of their own.
func TestBlob(t *testing.T) {
	dir := smallLog(t)
	blob := ""
	for _, name := range relative(t, dir) {
		if strings.HasPrefix(name, "blob/") {
			blob = name
		}
	}
	own := copyDir(t, dir)
	edit(t, filepath.Join(own, blob), func(b []byte) []byte { return b[:len(b)-1] })
	wantFinding(t, run(t, own, Options{}), blob, "does not have the 262145 bytes")
	edit(t, filepath.Join(own, blob), func(b []byte) []byte { return append(b, "xx"...) })
	wantFinding(t, run(t, own, Options{}), blob, "does not have the 262145 bytes")
	edit(t, filepath.Join(own, blob), func(b []byte) []byte { b = b[:len(b)-1]; b[100]++; return b })
	wantFinding(t, run(t, own, Options{}), "value: it is not the one the leaf commits to")
	if err := os.Remove(filepath.Join(own, blob)); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, run(t, own, Options{}), blob, "is missing")
}

// TestBlobBegunLater: an entry whose blob was begun behind it, by the blob's id. A start would not see that it is recorded.
func TestBlobBegunLater(t *testing.T) {
	for begun, want := range map[uint64]int{4: 0, 5: 0, 6: 1, 1 << 63: 1} {
		id := [16]byte{15: 1}
		binary.BigEndian.PutUint64(id[:], begun)
		c := &check{files: &listing{blobs: map[[16]byte]bool{id: false}}, gap: newGaps()}
		if c.refers(&entry{index: 5, blob: id}); len(c.Findings) != want || !c.files.blobs[id] {
			t.Errorf("begun at %d, entry 5: %+v, want %d findings", begun, c.Findings, want)
		}
	}
}
