package query

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/verify"
)

// sealedLog is a log of several segments and a journal behind them, with
// sessions whose statements end late, in other bundles and other segments.
func sealedLog(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	w := openWriter(t, dir, ledger.Config{CheckpointEvery: 20 * time.Millisecond, SegmentSize: 64 << 10})
	r := rand.New(rand.NewPCG(1, 2))
	type open struct{ session, of int64 }
	var late []open
	tables := []string{"users", "public.users", `"Order"`, "audit.log", "t"}
	seq := map[int64]uint64{} // of sessions
	end := func(o open) {
		seq[o.session]++
		w.emit(event.Leaf{Session: uint64(o.session), Seq: seq[o.session], Kind: event.KindOutcome, Of: event.Ref(o.of), Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1, Micros: o.of % 5000}, nil)
	}
	for i := range 6000 {
		session := int64(r.IntN(5) + 1)
		if i%1000 == 500 {
			session = int64(1000 + i) // a rare one
		}
		who := &event.Who{User: fmt.Sprint("user", session), Database: "db" + fmt.Sprint(session%3), Client: fmt.Sprintf("10.0.0.%d:%d", session%200, i)}
		text := fmt.Sprintf("SELECT * FROM %s WHERE id = %d", tables[r.IntN(len(tables))], i)
		if i%700 == 3 {
			text = "DROP TABLE rare.thing"
		}
		seq[session]++
		q := w.emit(event.Leaf{Session: uint64(session), Seq: seq[session], Kind: event.KindQuery, Who: who}, queryMsg(text))
		if r.IntN(100) == 0 {
			late = append(late, open{session, q})
			continue
		}
		end(open{session, q})
		if len(late) > 5 {
			end(late[0])
			late = late[1:]
		}
		if i%500 == 0 {
			w.emit(event.Leaf{Kind: event.KindViolation, Who: &event.Who{Client: "10.9.9.9:1"}, SQLState: "08P01"}, nil)
		}
		if i%100 == 0 {
			time.Sleep(time.Millisecond) // for the writer to rotate and seal
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if firsts, err := segment.List(durable.OS, dir); err != nil || len(firsts) >= 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was sealed")
		}
	}
	w.close()
	return dir
}

// TestIndex holds that a search finds the same with indexes as without, also
// with some that are damaged, stale or missing.
func TestIndex(t *testing.T) {
	l := openLog(t, sealedLog(t))
	found := func(f Filter, indexed bool) (out []string) {
		m, err := f.compile()
		if err != nil {
			t.Fatal(err)
		}
		size, err := l.Size()
		if err != nil {
			t.Fatal(err)
		}
		var p *plan
		if indexed {
			p = l.plan(m)
		}
		if err := newJoiner(l, m).search(context.Background(), l, f.From, size, p, func(s *Statement) error {
			out = append(out, string(s.AppendJSON(nil)))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	filters := []Filter{
		{User: "user1500"},
		{User: "user2"},
		{User: "nobody"},
		{Database: "db1", Kinds: []string{"violation"}},
		{Session: "00000000000005dc"},
		{Relation: "users"},
		{Relation: "public.users", User: "user3"},
		{Relation: `"Order"`},
		{Relation: "rare.thing"},
		{Relation: "thing"},
		{Classes: []string{"DDL"}},
		{Classes: []string{"WRITE", "DDL"}},
		{Classes: []string{"UNKNOWN"}},
		{Client: "10.9.9.9"},
		{Kinds: []string{"violation", "start"}},
		{User: "user4", MinDuration: 4 * time.Millisecond},
		{User: "user5", Limit: 7},
		{Relation: "rare.thing", From: 3000, End: 9000},
		{Kinds: []string{"query"}, Text: "rare"},
	}
	var want [][]string
	for _, f := range filters {
		want = append(want, found(f, false))
	}
	compare := func(what string) {
		t.Helper()
		for i, f := range filters {
			if got := found(f, true); !slices.Equal(got, want[i]) {
				t.Errorf("%s: %+v finds %d statements, want %d", what, f, len(got), len(want[i]))
			}
		}
	}
	compare("without an index")
	if err := l.Index(t.Context()); err != nil {
		t.Fatal(err)
	}
	firsts, err := segment.List(durable.OS, l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range firsts {
		if _, err := l.openIndex(first); err != nil {
			t.Errorf("index of %d: %v", first, err)
		}
	}
	compare("with indexes")
	m, err := (&Filter{User: "nobody"}).compile()
	if err != nil {
		t.Fatal(err)
	}
	if next := l.plan(m).next(0); next < firsts[len(firsts)-1] {
		t.Errorf("a search for nobody reads from entry %d on, want none of the segments", next)
	}
	// One damaged, one missing, one of before its values changed.
	b, err := os.ReadFile(l.indexFile(firsts[0]))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(l.indexFile(firsts[0]), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.indexFile(firsts[1])); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(segment.ValueFile(l.dir, firsts[2]), time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, first := range firsts[:3] {
		if _, err := l.openIndex(first); err == nil {
			t.Errorf("the index of %d is taken for good", first)
		}
	}
	compare("with bad indexes")
	if err := os.WriteFile(l.indexFile(1<<40), b, 0o600); err != nil { // of a segment that was pruned
		t.Fatal(err)
	}
	if err := l.Index(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, first := range firsts {
		if _, err := l.openIndex(first); err != nil {
			t.Errorf("index of %d: %v", first, err)
		}
	}
	if _, err := os.Stat(l.indexFile(1 << 40)); err == nil {
		t.Error("the index of a segment that is gone stays")
	}
	compare("with new indexes")
}

// FuzzIndex holds that no bytes of an index panic, and that none lead outside
// of the segment.
func FuzzIndex(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{2, 1, 5}, uint64(1), uint8(10))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, []byte{0xff, 0xff, 1}, uint64(1), uint8(1))
	f.Fuzz(func(t *testing.T, terms, postings []byte, term uint64, bundles uint8) {
		x := &index{count: int64(bundles) * 256, terms: terms[:len(terms)/termLen*termLen], postings: postings}
		x.bundles(term, newBitset(int64(bundles)))
		_, _, _, _ = parseIndex(append([]byte(indexMagic), terms...))
	})
}

// TestIndexVerified holds that verify reads indexes, and finds one that leaves
// out an entry, is damaged, or is of another segment.
func TestIndexVerified(t *testing.T) {
	l := openLog(t, sealedLog(t))
	if err := l.Index(t.Context()); err != nil {
		t.Fatal(err)
	}
	firsts, err := segment.List(durable.OS, l.dir)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(l.indexFile(firsts[0]))
	if err != nil {
		t.Fatal(err)
	}
	signed := func(b []byte) []byte {
		return binary.LittleEndian.AppendUint32(b[:len(b)-4:len(b)-4], crc32.Checksum(b[:len(b)-4], castagnoli))
	}
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"good", func(b []byte) []byte { return b }, ""},
		{"damaged", func(b []byte) []byte { b[100] ^= 1; return b }, "it is damaged"},
		{"empty", func([]byte) []byte { return nil }, "it is damaged"},
		{"other segment", func(b []byte) []byte { b[9] ^= 1; return signed(b) }, "it is not what its name"},
		{"no user", func(b []byte) []byte {
			var h [8]byte
			binary.LittleEndian.PutUint64(h[:], term("user", "user2"))
			i := bytes.Index(b, h[:])
			b[i] ^= 1 // a term nobody asks for
			return signed(b)
		}, `which has the user "user2"`},
		{"no bundles", func(b []byte) []byte {
			terms := binary.LittleEndian.Uint32(b[80:])
			for i := indexHeader + int(terms)*termLen; i < len(b)-4; i++ {
				b[i] = 0
			}
			return signed(b)
		}, "it leaves out entry"},
	} {
		if err := os.WriteFile(l.indexFile(firsts[0]), tt.change(bytes.Clone(good)), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := verify.Dir(t.Context(), l.dir, verify.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var why []string
		for _, f := range r.Findings {
			why = append(why, f.What+": "+f.Why)
		}
		if r.OK != (tt.want == "") || !r.OK && (len(why) != 1 || !strings.Contains(why[0], tt.want)) {
			t.Errorf("%s: %.300q, want %q", tt.name, why, tt.want)
		}
	}
}
