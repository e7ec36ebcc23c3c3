package verify

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// TestInUse verifies a log again and again while it is written: a batch in
// flight, space prepared ahead, new files, tiles and checkpoints are no findings.
func TestInUse(t *testing.T) {
	b := newBuilder(t, ledger.Config{SegmentSize: 256 << 10, CheckpointEvery: 1e6})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for id := uint64(1); ; id++ {
			select {
			case <-stop:
				return
			default:
			}
			b.session(id)
			if id%50 == 0 {
				b.blob(1<<32+id, ledger.MaxInline+1)
			}
		}
	}()
	runs := 100
	if testing.Short() {
		runs = 10
	}
	var last int64
	for range runs {
		r := run(t, b.dir, Options{})
		if !r.OK {
			t.Fatalf("findings %+v", r.Findings)
		}
		if r.Entries < last || r.Entries < r.Size {
			t.Errorf("%d entries, a checkpoint over %d, and there were %d before", r.Entries, r.Size, last)
		}
		last = r.Entries
	}
	close(stop)
	<-done
	b.close()
	if r := run(t, b.dir, Options{}); !r.OK || r.Entries < last || r.Entries != r.Size {
		t.Errorf("at rest: %+v", r)
	}
	t.Logf("%d runs, %d entries", runs, last)
}

// TestAfterCrash takes copies of a log in use, without its lock, as a crash
// would leave it: what is not complete at its end is a note.
func TestAfterCrash(t *testing.T) {
	b := newBuilder(t, ledger.Config{})
	b.session(1)
	b.commit(b.add(event.Leaf{Kind: event.KindHeartbeat}, nil))
	crashed := copyDir(t, b.dir) // with zeros prepared ahead
	b.close()
	size := run(t, b.dir, Options{}).Entries - 1 // without the stop

	r := run(t, crashed, Options{})
	if !r.OK || r.Entries != size {
		t.Fatalf("with zeros behind the last batch: %+v, want %d entries", r, size)
	}
	if !strings.Contains(strings.Join(r.Notes, "\n"), "are not signed yet") {
		t.Errorf("notes %q, want one about entries behind the checkpoint", r.Notes)
	}

	b2 := readFile(t, b.dir, journalFile)
	at := batches(t, b2)
	lastBatch := at[len(at)-3] // the heartbeat; behind it is the stop
	end := at[len(at)-2]
	for _, tt := range []struct {
		name   string
		change func(file []byte) []byte
		torn   bool
	}{
		{"batch cut short", func(f []byte) []byte { return f[:end-3] }, true},
		{"header cut short", func(f []byte) []byte { return f[:lastBatch+80] }, true},
		{"first sector missing", func(f []byte) []byte {
			clear(f[lastBatch:min(end, lastBatch+sector-lastBatch%sector)])
			return f[:end+4096]
		}, true},
		{"last sector missing", func(f []byte) []byte { clear(f[max(lastBatch, end-end%sector):end]); return f[:end+4096] }, true},
		{"all there but one bit", func(f []byte) []byte { f[end-2] ^= 4; return f[:end+4096] }, false},
		{"header bit", func(f []byte) []byte { f[lastBatch+16] ^= 4; return f[:end+4096] }, false},
		{"stray byte in the prepared space", func(f []byte) []byte { f[end+3000] = 1; return f }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own := copyDir(t, crashed)
			edit(t, filepath.Join(own, journalFile), tt.change)
			r := run(t, own, Options{})
			notes := strings.Join(r.Notes, "\n")
			if tt.torn && (!r.OK || !strings.Contains(notes, "unfinished batch")) {
				t.Errorf("findings %+v, notes %q, want a note about an unfinished batch", r.Findings, notes)
			}
			if !tt.torn {
				wantFinding(t, r, "it was complete once")
			}
		})
	}
}

// TestTornLookalike: a client's value that looks like the header of a later
// batch, but for the mark it cannot know, does not make damage of what a crash
// leaves, not even where that is the batch's header.
func TestTornLookalike(t *testing.T) {
	value := bytes.Repeat([]byte("x"), 4096)
	h := value[1000 : 1000+batchFixed]
	clear(h)
	copy(h, testMark)
	h[8], h[12], h[21] = 1, 1, 1 // count, length, a high number
	binary.LittleEndian.PutUint32(h[84:], crc32.Checksum(h[:84], castagnoli))
	b := newBuilder(t, ledger.Config{})
	b.session(1)
	b.commit(b.add(event.Leaf{Kind: event.KindViolation}, value))
	crashed := copyDir(t, b.dir)
	b.close()
	whole := readFile(t, b.dir, journalFile)
	at := batches(t, whole)
	end := at[len(at)-2]
	if !bytes.Contains(whole[at[len(at)-3]:end], h) {
		t.Fatal("the last batch does not have the value")
	}
	for name, change := range map[string]func(f []byte) []byte{
		"cut short": func(f []byte) []byte { return f[:end-3] },
		"the header's sector missing": func(f []byte) []byte {
			last := at[len(at)-3]
			clear(f[last : last-last%sector+sector])
			return f[:end+4096]
		},
		"a sector missing": func(f []byte) []byte { clear(f[end-end%sector : end]); return f[:end+4096] },
	} {
		own := copyDir(t, crashed)
		edit(t, filepath.Join(own, journalFile), change)
		if r := run(t, own, Options{}); !r.OK || !strings.Contains(strings.Join(r.Notes, " "), "unfinished batch") {
			t.Errorf("%s: findings %+v, notes %q, want a note about an unfinished batch", name, r.Findings, r.Notes)
		}
	}
}

// TestLeftovers wants notes, not findings, for what a crash may leave behind.
func TestLeftovers(t *testing.T) {
	dir := smallLog(t)
	for _, name := range []string{
		"checkpoint.tmp", "journal/00000000000000000256.journal.tmp", "blob/00112233445566778899aabbccddeeff.tmp",
		"blob/00112233445566778899aabbccddeeff.blob",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := run(t, dir, Options{})
	if !r.OK || len(r.Notes) != 5 {
		t.Errorf("findings %+v, notes %q, want 5 notes", r.Findings, r.Notes)
	}
}

// TestNoLog wants an error, not a finding, where there is no log.
func TestNoLog(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		if r, err := Dir(t.Context(), dir, Options{}); err == nil {
			t.Errorf("Dir(%s) = %+v, want an error", dir, r)
		}
	}
}

// TestOldReference refers to entries so far back that they are read again.
func TestOldReference(t *testing.T) {
	ref := event.Ref
	b := newBuilder(t, ledger.Config{SegmentSize: 4 << 20})
	b.add(event.Leaf{Session: 1, Kind: event.KindConnect, Who: alice}, nil)
	p := b.add(event.Leaf{Session: 1, Kind: event.KindParse, Who: alice}, frame('P', "s\x00SELECT 1\x00\x00\x00"))
	b.add(event.Leaf{Session: 1, Kind: event.KindOutcome, Of: ref(p)}, nil)
	b.manyEntries(1000)
	b.manyEntries(recentEntries)
	for range 3 {
		x := b.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: ref(p)}, frame('E', "\x00"))
		b.add(event.Leaf{Session: 1, Kind: event.KindOutcome, Of: ref(x), Since: ref(p)}, nil)
	}
	good := copyDir(t, b.dir)
	if r := run(t, good, Options{}); !r.OK {
		t.Errorf("findings %+v", r.Findings)
	}
	b.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: ref(p + 500)}, frame('E', "\x00"))
	b.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Bind: ref(p)}, frame('E', "\x00"))
	b.close()
	r := run(t, b.dir, Options{})
	wantFinding(t, r, "parse: refers to entry 502, which is of another session")
	wantFinding(t, r, "bind: refers to entry 2, which is of kind parse")
}

// TestSizes is row 25 of the tamper matrix: logs around the widths of bundles.
func TestSizes(t *testing.T) {
	for _, n := range []int{1, 2, 254, 255, 256, 257, 511, 512, 513, 768} {
		for _, batch := range []int{1, 7, 256, 10000} {
			f := forged{batch: batch, entries: goodEntries(t)[:1]}
			for len(f.entries) < n {
				f.entries = append(f.entries, forgedEntry{Leaf: event.Leaf{Kind: event.KindHeartbeat}})
			}
			if r := run(t, f.write(t), Options{}); !r.OK || r.Entries != int64(n) {
				t.Errorf("%d entries in batches of %d: %+v", n, batch, r)
			}
		}
	}
}

// TestNoOutcome wants a note about a statement that nothing ended, and none
// about the end of COPY data that nobody asked for.
func TestNoOutcome(t *testing.T) {
	f := forged{entries: goodEntries(t)}
	f.entries[3].Kind = event.KindNotice
	f.entries[3].Of = 0
	r := run(t, f.write(t), Options{Trust: func([]byte) (time.Time, error) { return time.Time{}, nil }})
	if !r.OK || len(r.Notes) != 1 || r.Notes[0] != "entry 2: its session ended and it has no outcome" {
		t.Errorf("findings %+v, notes %q", r.Findings, r.Notes)
	}
	f = forged{entries: goodEntries(t)}
	f.entries[4].Kind, f.entries[4].Of = event.KindCopy, event.Ref(2)
	f.entries[5].End = event.EndDiscarded
	f.entries[6].Parse = 0
	if r := run(t, f.write(t), Options{Trust: func([]byte) (time.Time, error) { return time.Time{}, nil }}); !r.OK || len(r.Notes) != 0 {
		t.Errorf("findings %+v, notes %q", r.Findings, r.Notes)
	}
}
