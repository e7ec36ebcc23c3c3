package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/checkpoint"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// forged is a log made by somebody who has the key and knows the formats: all
// is consistent but what a test wants otherwise.
type forged struct {
	entries []forgedEntry
	batch   int // entries in a batch; 0 means 5

	// What a test changes on the way to the disk; each may be nil.
	header func(h []byte) []byte           // file header without its CRC
	body   func(seq int, b []byte) []byte  // body of a batch
	frame  func(seq int, h []byte) []byte  // batch header without its CRC
	root   func(size int64, r hash) hash   // what batches claim
	signed func(size int64, r hash) []byte // checkpoint
}

type forgedEntry struct {
	event.Leaf
	value []byte
	raw   func(leaf []byte) []byte // changes the encoded leaf
}

const forgedOrigin = "pgnotary/forged/1"

func forgedKey(t testing.TB) (checkpoint.Signer, string) {
	t.Helper()
	skey, vkey, err := checkpoint.GenerateKey(rand.NewChaCha8([32]byte{7}), forgedOrigin)
	if err != nil {
		t.Fatal(err)
	}
	s, err := checkpoint.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

func sign(t testing.TB, size int64, root hash) []byte {
	t.Helper()
	s, _ := forgedKey(t)
	b, err := checkpoint.Sign(s, forgedOrigin, size, root)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func logJSON(t testing.TB) []byte {
	_, vkey := forgedKey(t)
	return fmt.Appendf(nil, `{"format":1,"origin":%q,"vkey":%q,"created":"2026-11-22T20:00:00.000000000Z"}`+"\n", forgedOrigin, vkey)
}

// goodEntries is a start, one session and a stop.
func goodEntries(t testing.TB) []forgedEntry {
	sum := sha256.Sum256(logJSON(t))
	e := func(seq uint64, k event.Kind, change func(l *event.Leaf)) forgedEntry {
		l := event.Leaf{Time: 1_780_000_000e9 + int64(seq), Kind: k, Seq: seq}
		if seq > 0 {
			l.Session, l.Who = 1, alice
		}
		if change != nil {
			change(&l)
		}
		f := forgedEntry{Leaf: l}
		if l.HasValue {
			f.value = []byte("value of " + k)
			f.Size = int64(len(f.value))
		}
		return f
	}
	value := func(l *event.Leaf) { l.HasValue = true }
	return []forgedEntry{
		e(0, event.KindStart, func(l *event.Leaf) { l.Facts = []event.Fact{{Key: "log_json", Val: hex.EncodeToString(sum[:])}} }),
		e(1, event.KindConnect, value),
		e(2, event.KindQuery, value),
		e(3, event.KindOutcome, func(l *event.Leaf) { l.Of = event.Ref(2) }),
		e(4, event.KindParse, value),
		e(5, event.KindOutcome, func(l *event.Leaf) { l.Of = event.Ref(4) }),
		e(6, event.KindExecute, func(l *event.Leaf) { l.HasValue, l.Parse = true, event.Ref(4) }),
		e(7, event.KindOutcome, func(l *event.Leaf) { l.Of, l.Since, l.Committed = event.Ref(6), event.Ref(2), 1 }),
		e(8, event.KindDisconnect, nil),
		e(0, event.KindStop, nil),
	}
}

// testMark is the mark of journal files that are forged.
const testMark = "\x01markof1"

// write makes the data directory.
func (f *forged) write(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, "journal"), 0o700); err != nil {
		t.Fatal(err)
	}
	per := max(f.batch, 1)
	if f.batch == 0 {
		per = 5
	}
	le := binary.LittleEndian
	crc := func(b []byte) []byte { return le.AppendUint32(b, crc32.Checksum(b, castagnoli)) }
	logID, empty := sha256.Sum256([]byte(forgedOrigin)), sha256.Sum256(nil)
	h := []byte(fileMagic)
	h = le.AppendUint32(h, fileFixed+4)
	h = append(h, make([]byte, 28)...) // first entry, time, first batch, CRC of the file before
	h = append(append(append(append(h, empty[:]...), logID[:]...), testMark...), 0)
	if f.header != nil {
		h = f.header(h)
	}
	out := crc(h)
	prev := le.Uint32(out[len(out)-4:])
	tr := tree.New()
	seed := [32]byte{1, 2, 3}
	for seq := 0; seq*per < len(f.entries); seq++ {
		var body []byte
		part := f.entries[seq*per : min((seq+1)*per, len(f.entries))]
		first := tr.Size()
		for i := range part {
			body = part[i].append(body, first+int64(i), &seed, tr)
		}
		if f.body != nil {
			body = f.body(seq, body)
		}
		root := tr.Root()
		if f.root != nil {
			root = f.root(tr.Size(), root)
		}
		b := append([]byte{}, testMark...)
		b = le.AppendUint32(b, uint32(len(part)))
		b = le.AppendUint32(b, uint32(len(body)))
		b = le.AppendUint64(b, uint64(seq))
		b = le.AppendUint64(b, uint64(first))
		b = le.AppendUint64(b, uint64(1_780_000_001e9+seq))
		b = le.AppendUint32(b, prev)
		b = le.AppendUint32(b, crc32.Checksum(body, castagnoli))
		b = le.AppendUint32(append(b, root[:]...), 0)
		if f.frame != nil {
			b = f.frame(seq, b)
		}
		b = crc(b)
		prev = le.Uint32(b[len(b)-4:])
		out = append(append(out, b...), body...)
	}
	signed := sign(t, tr.Size(), tr.Root())
	if f.signed != nil {
		signed = f.signed(tr.Size(), tr.Root())
	}
	for name, data := range map[string][]byte{
		"log.json": logJSON(t), "checkpoint": signed, "journal/00000000000000000000.journal": out,
	} {
		if data == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (e *forgedEntry) append(b []byte, index int64, seed *[32]byte, tr *tree.Builder) []byte {
	leaf := e.Leaf.Append(nil)
	if e.value != nil {
		salt := saltOf(seed, index)
		sum := commitment(&salt, e.value)
		event.PutCommitment(leaf, &sum)
	}
	if e.raw != nil {
		leaf = e.raw(leaf)
	}
	tr.Append(tree.LeafHash(leaf))
	if index%tileWidth == 0 {
		b = append(b, seed[:]...)
	}
	b = append(binary.AppendUvarint(b, uint64(len(leaf))), leaf...)
	if e.value == nil {
		return append(b, valueNone)
	}
	b = append(b, valueInline)
	return append(binary.AppendUvarint(b, uint64(len(e.value))), e.value...)
}

func TestForgedLogIsSound(t *testing.T) {
	for _, batch := range []int{1, 2, 5, 100} {
		f := forged{entries: goodEntries(t), batch: batch}
		if r := run(t, f.write(t), Options{}); !r.OK || r.Entries != 10 || r.Values != 4 {
			t.Errorf("batches of %d: %+v", batch, r)
		}
	}
}

// TestOrder changes one thing in a log that is otherwise signed and consistent.
func TestOrder(t *testing.T) {
	ref := event.Ref
	for _, tt := range []struct {
		name   string
		change func(e []forgedEntry) []forgedEntry
		want   string
	}{
		{"entry 0 is not a start", func(e []forgedEntry) []forgedEntry { e[0].Kind = event.KindHeartbeat; return e }, "entry 0: leaf: the first entry is not of kind start"},
		{"entry 0 without log.json", func(e []forgedEntry) []forgedEntry { e[0].Facts = nil; return e }, "does not vouch for log.json"},
		{"entry 0 for another log.json", func(e []forgedEntry) []forgedEntry { e[0].Facts[0].Val = strings.Repeat("0", 64); return e }, "is not the file that entry 0 was written with"},
		{"gap in a session", func(e []forgedEntry) []forgedEntry { e[4].Seq++; return e }, "entry 4: order: its number in the session is 5, want 4"},
		{"session does not begin with 1", func(e []forgedEntry) []forgedEntry { e[1].Seq = 2; return e }, "its number in the session is 2, want 1"},
		{"repeated number", func(e []forgedEntry) []forgedEntry { e[4].Seq--; return e }, "is 3, want 4"},
		{"number without session", func(e []forgedEntry) []forgedEntry { e[9].Seq = 1; return e }, "a number in a session and no session"},
		{"time goes back", func(e []forgedEntry) []forgedEntry { e[4].Time -= 100; return e }, "entry 4: order: its time is before"},
		{"entry after disconnect", func(e []forgedEntry) []forgedEntry { e[7], e[8] = e[8], e[7]; e[7].Seq, e[8].Seq = 7, 8; return e }, "entry 8: order: an entry of a session that has ended"},
		{"entry after stop", func(e []forgedEntry) []forgedEntry { e[8], e[9] = e[9], e[8]; return e }, "entry 9: order: an entry between a stop and the next start"},
		{"start without stop", func(e []forgedEntry) []forgedEntry {
			return append(e[:9], forgedEntry{Leaf: event.Leaf{Kind: event.KindStart}})
		}, "entry 9: order: a start that neither"},
		{"session goes on after a start", func(e []forgedEntry) []forgedEntry {
			e = append(e[:8], forgedEntry{Leaf: event.Leaf{Kind: event.KindRecover}}, forgedEntry{Leaf: event.Leaf{Kind: event.KindStart}}, e[8])
			return e
		}, "is 8, want 1"},
		{"outcome of a later entry", func(e []forgedEntry) []forgedEntry { e[3].Of = ref(6); return e }, "entry 3: of: refers to entry 6, which is not before it"},
		{"outcome of itself", func(e []forgedEntry) []forgedEntry { e[3].Of = ref(3); return e }, "not before it"},
		{"outcome of nothing", func(e []forgedEntry) []forgedEntry { e[3].Of = 0; return e }, "entry 3: of: an outcome of nothing"},
		{"outcome of another kind", func(e []forgedEntry) []forgedEntry { e[3].Of = ref(1); return e }, "of kind connect"},
		{"outcome of another session", func(e []forgedEntry) []forgedEntry { e[3].Session, e[3].Seq = 2, 1; return e }, "entry 3: of: refers to entry 2, which is of another session"},
		{"second outcome", func(e []forgedEntry) []forgedEntry { e[5].Of = ref(2); return e }, "entry 5: of: a second outcome of entry 2"},
		{"second outcome of a copy's end", func(e []forgedEntry) []forgedEntry {
			e[5].Kind, e[7].Kind, e[7].Of = event.KindCopy, event.KindCopy, ref(6)
			e[6].Kind = event.KindOutcome
			e[6].Of, e[6].Parse = ref(2), 0
			return e
		}, "entry 6: of: a second outcome of entry 2"},
		{"parse of another kind", func(e []forgedEntry) []forgedEntry { e[6].Parse = ref(3); return e }, "entry 6: parse: refers to entry 3, which is of kind outcome"},
		{"parse that is later", func(e []forgedEntry) []forgedEntry { e[6].Parse = ref(9); return e }, "not before it"},
		{"bind of another kind", func(e []forgedEntry) []forgedEntry { e[6].Bind = ref(4); return e }, "entry 6: bind: refers to entry 4, which is of kind parse"},
		{"since of another kind", func(e []forgedEntry) []forgedEntry { e[7].Since = ref(3); return e }, "entry 7: since: refers to entry 3, which is of kind outcome"},
		{"copy of another kind", func(e []forgedEntry) []forgedEntry { e[5].Kind, e[5].Of = event.KindCopy, ref(1); return e }, "entry 5: of: refers to entry 1, which is of kind connect"},
		{"settle of another kind", func(e []forgedEntry) []forgedEntry { e[5].Kind, e[5].Of = event.KindSettle, ref(1); return e }, "entry 5: of: refers to entry 1"},
		{"disconnect of a later entry", func(e []forgedEntry) []forgedEntry { e[8].Of = ref(9); return e }, "entry 8: of: refers to entry 9"},
		{"leaf that is not canonical", func(e []forgedEntry) []forgedEntry {
			e[4].raw = func(b []byte) []byte { return append([]byte(`{"v":1, `), b[7:]...) }
			return e
		}, "entry 4: leaf: leaf is not in canonical form"},
		{"empty leaf", func(e []forgedEntry) []forgedEntry { e[9].raw = func([]byte) []byte { return nil }; return e }, "entry 9: leaf:"},
		{"leaf over 16 KiB", func(e []forgedEntry) []forgedEntry {
			e[9].raw = func([]byte) []byte { return bytes.Repeat([]byte("x"), maxLeaf+1) }
			return e
		}, "its leaf has a malformed length"},
		{"leaf over 64 KiB", func(e []forgedEntry) []forgedEntry {
			e[9].raw = func([]byte) []byte { return bytes.Repeat([]byte("x"), 1<<16) }
			return e
		}, "its leaf has a malformed length"},
		{"commitment without value", func(e []forgedEntry) []forgedEntry { e[8].HasValue = true; return e }, "entry 8: value: the leaf commits to a value and there is none"},
		{"value without commitment", func(e []forgedEntry) []forgedEntry { e[8].value = []byte("x"); return e }, "entry 8: value: the leaf commits"},
		{"wrong size", func(e []forgedEntry) []forgedEntry { e[2].Size++; return e }, "entry 2: value: it has 14 bytes, the leaf says 15"},
		{"size without value", func(e []forgedEntry) []forgedEntry { e[8].Size = 3; return e }, "entry 8: value: the leaf says 3 bytes"},
		{"value over 256 KiB inline", func(e []forgedEntry) []forgedEntry {
			e[2].value = make([]byte, maxInline+1)
			e[2].Size = maxInline + 1
			return e
		}, "its value has a malformed length"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := forged{entries: tt.change(goodEntries(t)), batch: 1}
			wantFinding(t, run(t, f.write(t), Options{}), tt.want)
		})
	}
}

// TestFraming changes bytes of headers and bodies and makes all CRCs right again.
func TestFraming(t *testing.T) {
	at := func(seq, off int, b ...byte) func(int, []byte) []byte {
		return func(s int, h []byte) []byte {
			if s == seq {
				copy(h[off:], b)
			}
			return h
		}
	}
	head := func(off int, b ...byte) func([]byte) []byte {
		return func(h []byte) []byte { copy(h[off:], b); return h }
	}
	for _, tt := range []struct {
		name string
		f    forged
		want string
	}{
		{"another magic", forged{header: head(0, 'P')}, "is not a journal file"},
		{"impossible header length", forged{header: head(8, 0, 0, 1)}, "impossible length"},
		{"short header length", forged{header: head(8, 10)}, "impossible length 10"},
		{"another first entry", forged{header: head(12, 0, 1)}, "its header says entry 256"},
		{"another first batch", forged{header: head(28, 1)}, "its header says batch 1"},
		{"a file before", forged{header: head(36, 1)}, "does not continue the file before"},
		{"another root before", forged{header: head(40, 1)}, "the root in its header"},
		{"another log", forged{header: head(72, 1)}, "belongs to another log"},
		{"tiles cut short", forged{header: head(112, 1)}, "the tiles in its header are cut short"},
		{"another mark", forged{frame: at(1, 4, 'x')}, "there is no batch header"},
		{"reserved bytes 80", forged{frame: at(1, 83, 1)}, "bytes that must be zero are not"},
		{"no entries", forged{frame: at(1, 8, 0)}, "impossible count 0"},
		{"fewer entries", forged{frame: at(1, 8, 4)}, "bytes behind its last entry"},
		{"more entries", forged{frame: at(1, 8, 6)}, "malformed length"},
		{"count beyond the body", forged{frame: at(1, 8, 255, 255, 255, 255)}, "impossible count"},
		{"length over 8 MiB", forged{frame: at(1, 12, 255, 255, 255, 255)}, "impossible count"},
		{"another number", forged{frame: at(1, 16, 2)}, "it has the number 2"},
		{"repeated number", forged{frame: at(1, 16, 0)}, "it has the number 0"},
		{"another first entry", forged{frame: at(1, 24, 6)}, "its first entry is 6, want 5"},
		{"not chained", forged{frame: at(1, 40, 1, 2, 3, 4)}, "does not continue the batch before"},
		{"body CRC", forged{frame: at(1, 44, 1, 2, 3, 4)}, "the CRC of its body is wrong"},
		{"another root", forged{root: func(n int64, r hash) hash { r[0] ^= byte(n / 10); return r }}, "the root that batch 1 claims"},
		{"unknown form of a value", forged{body: func(seq int, b []byte) []byte { b[len(b)-1] = 3; return b }}, "unknown form 3"},
		{"long spelling of a length", forged{body: func(seq int, b []byte) []byte {
			if seq == 1 { // its first leaf has more than 127 bytes: two bytes of length become three
				b = append([]byte{b[0], b[1] | 0x80, 0}, b[2:]...)
			}
			return b
		}}, "its leaf has a malformed length"},
		{"nothing in the body", forged{body: func(seq int, b []byte) []byte { return nil }}, "impossible count"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.entries = goodEntries(t)
			wantFinding(t, run(t, tt.f.write(t), Options{}), tt.want)
		})
	}
}

// putCommitment writes c into a leaf that ends in a commitment.
func putCommitment(leaf []byte, c hash) { event.PutCommitment(leaf, &c) }
