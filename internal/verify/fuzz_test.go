package verify

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/event"
)

// goodFile is the journal file of goodEntries.
func goodFile(f *testing.F) []byte {
	dir := (&forged{entries: goodEntries(f), batch: 1}).write(f)
	b, err := os.ReadFile(filepath.Join(dir, journalFile))
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// FuzzBatch wants no panic from any batch, and from those that are accepted
// the same bytes when they are put together again.
func FuzzBatch(f *testing.F) {
	b := goodFile(f)
	at := batches(f, b)
	f.Add(b[at[1]:at[2]]) // an entry with a value
	f.Add(b[at[8]:at[9]]) // one without
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < batchFixed {
			return
		}
		// Make the CRCs right, or next to nothing would get past them.
		le := binary.LittleEndian
		b = bytes.Clone(b)
		if n := int64(le.Uint32(b[12:])); n <= int64(len(b)-batchFixed) {
			le.PutUint32(b[44:], crc32.Checksum(b[batchFixed:batchFixed+n], castagnoli))
		}
		le.PutUint32(b[84:], crc32.Checksum(b[:84], castagnoli))
		r := reader{seq: le.Uint64(b[16:]), index: int64(le.Uint64(b[24:]) % maxIndex), crc: le.Uint32(b[40:])}
		seed := r.seed
		var c chunk
		size, bad := r.batch(&c, b)
		if bad != nil || size > len(b) {
			if len(c.batches)+len(c.entries) > 0 || r.seed != seed {
				t.Fatal("a batch that is not accepted left something behind")
			}
			return
		}
		if got := again(&c, b, &r); !bytes.Equal(got, b[batchFixed:size]) {
			t.Errorf("accepted and put together again: %x, want %x", got, b[batchFixed:size])
		}
		w := worker{blobs: "/nonexistent"}
		w.chunk(&c)
	})
}

// again encodes the entries of a chunk.
func again(c *chunk, b []byte, r *reader) (body []byte) {
	seedAt := func(i int64) []byte { return b[batchFixed+len(body):][:32] } // the bytes themselves; their place is what counts
	for _, e := range c.entries {
		if e.index%tileWidth == 0 {
			body = append(body, seedAt(e.index)...)
		}
		body = append(binary.AppendUvarint(body, uint64(len(e.leaf))), e.leaf...)
		body = append(body, e.form)
		switch e.form {
		case valueInline:
			body = append(binary.AppendUvarint(body, uint64(len(e.value))), e.value...)
		case valueBlob:
			body = append(body, e.salt[:]...)
			body = append(binary.AppendUvarint(body, uint64(e.length)), e.blob[:]...)
		}
	}
	return body
}

// FuzzHeader does the same for file headers.
func FuzzHeader(f *testing.F) {
	b := goodFile(f)
	f.Add(b[:int(b[8])])
	f.Fuzz(func(t *testing.T, b []byte) {
		le := binary.LittleEndian
		if len(b) < fileFixed+4 {
			return
		}
		b = bytes.Clone(b)
		if n := int64(le.Uint32(b[8:])); n >= 4 && n <= int64(len(b)) {
			le.PutUint32(b[n-4:], crc32.Checksum(b[:n-4], castagnoli))
		}
		r := reader{index: int64(le.Uint64(b[12:]) % maxIndex), seq: le.Uint64(b[28:]), last: le.Uint32(b[36:]), logID: hash(b[72:104])}
		h, size, why := r.header(b)
		if why != "" {
			return
		}
		got := append([]byte{}, b[:40]...)
		got = append(append(append(append(got, h.root[:]...), r.logID[:]...), h.mark[:]...), byte(len(h.rows)))
		for _, row := range h.rows {
			got = le.AppendUint16(got, uint16(len(row)))
			for _, x := range row {
				got = append(got, x[:]...)
			}
		}
		if got = le.AppendUint32(got, h.crc); !bytes.Equal(got, b[:size]) {
			t.Errorf("accepted and put together again: %x, want %x", got, b[:size])
		}
	})
}

// FuzzDir puts anything behind a sound journal and wants no panic, and never
// the verdict that all is in order with other entries.
func FuzzDir(f *testing.F) {
	good := goodFile(f)
	f.Add(good[batches(f, good)[9]:], 0)
	f.Add([]byte(testMark), 300)
	dir := (&forged{entries: goodEntries(f), batch: 1}).write(f)
	f.Fuzz(func(t *testing.T, tail []byte, keep int) {
		keep = min(max(keep, 0), len(good))
		if err := os.WriteFile(filepath.Join(dir, journalFile), append(good[:keep:keep], tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Dir(t.Context(), dir, Options{Workers: 1})
		if err == nil && r.OK && (r.Entries != 10 || !bytes.HasPrefix(append(good[:keep:keep], tail...), good)) {
			t.Errorf("in order with %d entries", r.Entries)
		}
	})
}

// FuzzOpenNote compares the two readers of checkpoints: this package's and the
// one everybody else uses. Both must be of one opinion.
func FuzzOpenNote(f *testing.F) {
	s, vkey := forgedKey(f)
	f.Add(checkpoint.Checkpoint{Origin: forgedOrigin, Size: 7}.Text(), "")
	f.Add(checkpoint.Checkpoint{Origin: forgedOrigin, Size: 7}.Text(), "— witness.example AAAAAAAA\n")
	f.Add(forgedOrigin+"\n007\nAAAA\n", "\n")
	f.Fuzz(func(t *testing.T, text, behind string) {
		signed, err := note.Sign(&note.Note{Text: text}, s)
		if err != nil {
			return
		}
		signed = append(signed, behind...)
		a, errA := openNote(signed, vkey)
		b, errB := checkpoint.Open(signed, vkey)
		if (errA == nil) != (errB == nil) {
			t.Fatalf("%q: verify says %v, checkpoint says %v", signed, errA, errB)
		}
		if errA == nil && (a.size != b.Size || a.root != b.Root) {
			t.Errorf("%q: verify reads %+v, checkpoint reads %+v", signed, a, b)
		}
	})
}

// FuzzLogFile wants accepted files to be in the one spelling there is.
func FuzzLogFile(f *testing.F) {
	good := logJSON(f)
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLogFile(b)
		if err == nil && (!bytes.HasPrefix(b, []byte(`{"format":1,"origin":"`)) || l.origin == "" || l.vkey == "") {
			t.Errorf("%q is accepted as %+v", b, l)
		}
	})
}

// FuzzBundle wants accepted bundles to be what their entries give again.
func FuzzBundle(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x00"), 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		leaves, ok := splitBundle(b, min(n, tileWidth))
		if !ok {
			return
		}
		var again []byte
		for _, leaf := range leaves {
			again = append(binary.BigEndian.AppendUint16(again, uint16(len(leaf))), leaf...)
			var l event.Leaf
			_ = event.Skim(leaf, &l) // only must not panic
		}
		if !bytes.Equal(again, b) {
			t.Errorf("split and joined: %x, want %x", again, b)
		}
	})
}

// FuzzTermList wants the bundles of a term to be in their order and within the
// index, and a cursor that skips some to find in the others what is listed.
func FuzzTermList(f *testing.F) {
	dense := []byte{100}
	for i := range byte(100) {
		dense = append(dense, 1+i%3)
	}
	f.Add(dense, uint16(500), uint8(4))
	f.Add([]byte("\x03\x00\x05\x09\x02\x00\xff\x90\x01\x07\x07"), uint16(500), uint8(1))
	f.Fuzz(func(t *testing.T, p []byte, limit uint16, stride uint8) {
		l := decodeTerm(p, uint64(limit))
		listed := map[uint32]span{}
		for i, n := range l.bundles {
			if n >= uint32(limit) || i > 0 && n <= l.bundles[i-1] {
				t.Fatalf("bundles %d of %d", l.bundles, limit)
			}
			listed[n] = span{0, tileWidth}
			if l.parts != nil {
				listed[n] = span{int64(l.parts[2*i]), int64(l.parts[2*i+1]) + 1}
			}
		}
		c := cursor{termList: l, pos: -1}
		for n := uint32(0); n < uint32(limit)+10; n += uint32(stride) + 1 {
			for _, slot := range []int64{0, int64(n) % tileWidth, tileWidth - 1} {
				s := listed[n]
				if got, want := c.has(int64(n)*tileWidth+slot), s.has(slot); got != want {
					t.Fatalf("entry %d of bundle %d: %t, want %t", slot, n, got, want)
				}
			}
		}
	})
}
