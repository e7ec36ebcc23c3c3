package query

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/durable"
	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/segment"
	"github.com/pgnotary/pgnotary/internal/tree"
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
		if i%100 == 0 { // a file ends with a batch only
			for w.Want(q); w.Durable() <= q; {
				time.Sleep(100 * time.Microsecond)
			}
		}
	}
	if err := w.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if firsts, err := segment.List(durable.OS, dir); err != nil || len(firsts) < 3 {
		t.Fatalf("%d segments, %v, want 3 or more", len(firsts), err)
	}
	w.close()
	return dir
}

// openedIndex holds that an index is there and right.
func openedIndex(t *testing.T, l *Log, first int64) {
	t.Helper()
	_, f, err := l.openIndex(first)
	if err != nil {
		t.Errorf("index of %d: %v", first, err)
		return
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
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
		if err := newJoiner(l, m).search(context.Background(), l, f.From, size, p, &taker{statement: func(s *Statement) error {
			out = append(out, string(s.AppendJSON(nil)))
			return nil
		}}); err != nil {
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
		{Client: "10.9.9.9:1"},
		{Client: "10.9.9.9:2"},
		{Kinds: []string{"violation", "start"}},
		{User: "user4", MinDuration: 4 * time.Millisecond},
		{User: "user5", Limit: 7},
		{Relation: "rare.thing", From: 3000, End: 9000},
		{Kinds: []string{"query"}, Text: "rare"},
		{Text: "DROP TABLE rare"},
		{Text: "id = 4711"},
		{Regexp: regexp.MustCompile(`audit\.log .*id = 1?777$`)},
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
		openedIndex(t, l, first)
	}
	compare("with indexes")
	m, err := (&Filter{User: "nobody"}).compile()
	if err != nil {
		t.Fatal(err)
	}
	if next := l.plan(m).next(0, newJoiner(l, m)); next < firsts[len(firsts)-1] {
		t.Errorf("a search for nobody reads from entry %d on, want none of the segments", next)
	}
	// One damaged, one missing, one of before its values changed.
	b, err := os.ReadFile(l.indexFile(firsts[0]))
	if err != nil {
		t.Fatal(err)
	}
	b[50] ^= 1
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
		if _, _, err := l.openIndex(first); err == nil {
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
		openedIndex(t, l, first)
	}
	if _, err := os.Stat(l.indexFile(1 << 40)); err == nil {
		t.Error("the index of a segment that is gone stays")
	}
	compare("with new indexes")
}

// FuzzIndex holds that no bytes of an index panic, and that none lead outside
// of what it is of; and that what is in one that was written is found.
func FuzzIndex(f *testing.F) {
	good := builtIndex(f, 300, 7)
	f.Add(good[:len(good)-4], uint64(1), uint8(7))
	f.Add(good[:indexHeader], uint64(1<<63), uint8(0))
	f.Fuzz(func(t *testing.T, content []byte, term uint64, bundles uint8) {
		for _, b := range [][]byte{content, seal(content)} {
			x, err := newIndex(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				continue
			}
			if x.stamp.count > 1<<20 {
				continue // such an index is stale: there is no segment like it
			}
			set := newPlaces(x.stamp.count / 256)
			_ = x.bundles(term, set)
			_ = x.part(string(binary.BigEndian.AppendUint64(nil, term)), set)
			for i := range x.terms {
				if b, err := x.read(indexHeader+i*termLen, 8); err == nil {
					_ = x.bundles(binary.LittleEndian.Uint64(b), set)
				}
				if i > 1000 {
					break
				}
			}
		}
	})
}

// builtIndex returns the content of an index of many terms: term i, of the
// bundles that are multiples of i%bundles+1.
func builtIndex(t testing.TB, terms, bundles int) []byte {
	t.Helper()
	b := newIndexBuilder(&fakeLog{}, 0)
	for n := range bundles {
		b.text(int64(n*256), []byte(fmt.Sprint("SELECT ", n)))
		for i := range terms {
			if n%(i%bundles+1) == 0 {
				b.of("term", fmt.Sprint(i)).put(int64(n*256 + n))
			}
		}
	}
	file, err := b.encode(stamp{count: int64(bundles) * 256}, nil)
	if err != nil {
		t.Fatal(err)
	}
	x := &index{f: bytes.NewReader(file)}
	content, err := x.read(0, int64(len(file)-(len(file)+indexBlock-1)/indexBlock*4))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(content)
}

// TestIndexTerms looks up all terms of indexes of all sizes, and some they do not have.
func TestIndexTerms(t *testing.T) {
	for _, terms := range []int{0, 1, 2, 17, 300, 5000} {
		const bundles = 70
		file := seal(builtIndex(t, terms, bundles))
		x, err := newIndex(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		for i := range terms + 200 {
			set := newPlaces(bundles)
			if err := x.bundles(term("term", fmt.Sprint(i)), set); err != nil {
				t.Fatalf("%d terms: term %d: %v", terms, i, err)
			}
			for n := range bundles {
				if want := i < terms && n%(i%bundles+1) == 0; set.has(int64(n)) != want {
					t.Fatalf("%d terms: term %d is in bundle %d: %v, want %v", terms, i, n, !want, want)
				} else if p := set.part(int64(n)); want && (p.low > uint8(n) || p.high < uint8(n)) {
					t.Fatalf("%d terms: term %d is in part %v of bundle %d", terms, i, p, n)
				}
			}
		}
		// Any byte that changes is noticed by whoever reads its block.
		for at := 0; at < len(file); at += 1 + len(file)/500 {
			bad := bytes.Clone(file)
			bad[at] ^= 0x40
			x, err := newIndex(bytes.NewReader(bad), int64(len(bad)))
			for i := 0; err == nil && i < terms; i++ {
				set := newPlaces(bundles)
				if err = x.bundles(term("term", fmt.Sprint(i)), set); err == nil && !set.has(0) {
					t.Fatalf("%d terms: with byte %d changed, term %d is not found", terms, at, i)
				}
			}
			if err == nil {
				_, err = x.read(x.gramsAt(), gramBuckets*4+x.grams)
			}
			if err == nil && terms > 0 {
				t.Errorf("%d terms: byte %d changed, and nobody noticed", terms, at)
			}
		}
	}
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
	// signed has change alter the content.
	signed := func(change func(b []byte)) func([]byte) []byte {
		return func(file []byte) []byte {
			return resealed(t, file, func(b []byte) []byte { change(b); return b })
		}
	}
	for _, tt := range []struct {
		name   string
		change func(b []byte) []byte
		want   string
	}{
		{"good", func(b []byte) []byte { return b }, ""},
		{"damaged", func(b []byte) []byte { b[100] ^= 1; return b }, "it is damaged"},
		{"empty", func([]byte) []byte { return nil }, "it is damaged"},
		{"other segment", signed(func(b []byte) { b[9] ^= 1 }), "it is not what its name"},
		{"no user", signed(func(b []byte) {
			var h [8]byte
			binary.LittleEndian.PutUint64(h[:], term("user", "user2"))
			i := bytes.Index(b, h[:])
			b[i] ^= 1 // a term nobody asks for
		}), `which has the user "user2"`},
		{"terms in disorder", signed(func(b []byte) {
			t := b[indexHeader:][:2*termLen]
			copy(t, slices.Concat(t[termLen:], t[:termLen]))
		}), "not in order"},
		// So few bundles are listed with where the term is in them.
		{"not to the last of a session", signed(func(b []byte) { cutPart(b, "session", "0000000000000002") }), `which has the session "0000000000000002"`},
		{"not to the last of a user", signed(func(b []byte) { cutPart(b, "user", "user2") }), `which has the user "user2"`},
		{"no bundles", signed(func(b []byte) {
			terms := binary.LittleEndian.Uint32(b[80:])
			clear(b[indexHeader+int(terms)*termLen:])
		}), "it leaves out entry"},
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

// cutPart alters the content of an index so that of the first bundle with a
// term only the first entry with it is listed.
func cutPart(b []byte, kind, text string) {
	le := binary.LittleEndian
	i := bytes.Index(b, le.AppendUint64(nil, term(kind, text)))
	p := b[indexHeader+int(le.Uint32(b[80:]))*termLen+int(le.Uint32(b[i+8:])):]
	for range 2 { // number of bundles, first of them
		_, n := binary.Uvarint(p)
		p = p[n:]
	}
	p[1] = p[0]
}

// TestIndexOwners holds that verify goes by whose each entry is, also where those
// of a session are not all of the same.
func TestIndexOwners(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{})
	owners := []event.Who{{User: "alice"}, {User: "alice", Application: `a "b\`}, {User: "alice", Database: "d"}, {User: "bob", Client: "10.0.0.1:1"}, {}, {Database: "e"}}
	var last int64
	for i := range int64(1200) {
		who := &owners[i/200%int64(len(owners))] // not in all bundles
		if i%200 == 0 {
			who = &owners[0]
		}
		last = w.emit(event.Leaf{Session: 1, Seq: uint64(i + 1), Kind: event.KindParse, Who: who}, nil)
	}
	for w.Want(last); w.Durable() <= last; {
		time.Sleep(time.Millisecond)
	}
	if err := w.Rotate(); err != nil {
		t.Fatal(err)
	}
	last = w.emit(event.Leaf{Kind: event.KindHeartbeat}, nil)
	for w.Want(last); w.Durable() <= last; {
		time.Sleep(time.Millisecond)
	}
	if err := w.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.close()
	l := openLog(t, dir)
	if err := l.Index(t.Context()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(l.indexFile(0))
	if err != nil {
		t.Fatal(err)
	}
	for _, without := range [][2]string{{}, {"user", "alice"}, {"application", `a "b\`}, {"database", "d"}, {"user", "bob"}, {"database", "e"}, {"kind", "parse"}} {
		file := resealed(t, good, func(b []byte) []byte {
			if i := bytes.Index(b, binary.LittleEndian.AppendUint64(nil, term(without[0], without[1]))); i >= 0 {
				b[i] ^= 1
			}
			return b
		})
		if err := os.WriteFile(l.indexFile(0), file, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := verify.Dir(t.Context(), dir, verify.Options{})
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("which has the %s %q", without[0], without[1])
		if without[0] == "" {
			if !r.OK {
				t.Errorf("%+v, want no finding", r.Findings)
			}
		} else if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Why, want) {
			t.Errorf("%+v, want that it leaves out an entry %s", r.Findings, want)
		}
	}
}

// TestIndexForgets holds that what was read before values were erased, which
// removes the directory of indexes, is neither written nor kept.
func TestIndexForgets(t *testing.T) {
	dir := sealedLog(t)
	l := openLog(t, dir)
	if err := l.Index(t.Context()); err != nil {
		t.Fatal(err)
	}
	firsts, err := segment.List(durable.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.segmentStamp(firsts[0])
	if err != nil {
		t.Fatal(err)
	}
	b := newIndexBuilder(l, firsts[0])
	if err := b.read(t.Context(), l, firsts[0]+s.count); err != nil {
		t.Fatal(err)
	}
	l.growing = map[int64]*indexBuilder{1 << 40: b}
	if err := os.RemoveAll(l.indexDir()); err != nil {
		t.Fatal(err)
	}
	if err := l.writeIndex(b, s, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("writing an index whose directory went: %v, want fs.ErrNotExist", err)
	}
	if _, err := os.Stat(l.indexDir()); err == nil {
		t.Error("the directory is there again")
	}
	if err := l.Index(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.growing[1<<40] != nil {
		t.Error("what was read before is kept")
	}
	openedIndex(t, l, firsts[0])
	// One whose values changed while it was made is not written either.
	if err := os.Chtimes(segment.ValueFile(dir, firsts[0]), time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := l.removeIndex(firsts[0]); err != nil {
		t.Fatal(err)
	}
	if err := l.writeIndex(b, s, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.indexFile(firsts[0])); err == nil {
		t.Error("an index of values that changed is written")
	}
}

// resealed returns an index with its content changed, and the CRCs right.
func resealed(t testing.TB, file []byte, change func(content []byte) []byte) []byte {
	t.Helper()
	x := &index{f: bytes.NewReader(file)}
	content, err := x.read(0, int64(len(file)-(len(file)+indexBlock-1)/indexBlock*4))
	if err != nil {
		t.Fatal(err)
	}
	return seal(change(bytes.Clone(content)))
}

// TestIndexPlaces holds that a search finds the same whatever the index of the
// journal file in use says of the places of batches, and that it goes by what
// is right.
func TestIndexPlaces(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{})
	for i := range int64(growBy/2 + 500) {
		user := "alice"
		if i%1000 == 999 {
			user = "rare"
		}
		q := w.emit(event.Leaf{Session: 1, Seq: uint64(2*i + 1), Kind: event.KindQuery, Who: &event.Who{User: user}}, queryMsg(fmt.Sprint("SELECT ", i)))
		last := w.emit(event.Leaf{Session: 1, Seq: uint64(2*i + 2), Kind: event.KindOutcome, Of: event.Ref(q), Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}, nil)
		if i%40 == 0 { // many batches
			for w.Want(last); w.Durable() <= last; {
				time.Sleep(100 * time.Microsecond)
			}
		}
	}
	w.close()
	l := openLog(t, dir)
	if l.hints() != nil {
		t.Fatal("there are places without an index")
	}
	filters := []Filter{{User: "rare"}, {User: "alice", From: 9000}, {Text: "SELECT 77"}, {From: 400, End: 402}}
	var want [][]string
	for _, f := range filters {
		want = append(want, texts(t, l, f))
	}
	if err := l.Index(t.Context()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(l.indexFile(0))
	if err != nil {
		t.Fatal(err)
	}
	hints := l.hints()
	if len(hints) != 1 || int64(len(hints[0].Places)) < growBy/256*journal.PlaceLen {
		t.Fatalf("the index tells of %d files, want one", len(hints))
	}
	n := len(hints[0].Places)
	places := func(change func(p []byte)) []byte {
		return resealed(t, good, func(b []byte) []byte { change(b[len(b)-n:]); return b })
	}
	for name, file := range map[string][]byte{
		"good":     good,
		"none":     places(func(p []byte) { clear(p) }),
		"damaged":  append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1),
		"cut":      good[:len(good)-30],
		"shifted":  places(func(p []byte) { copy(p, p[journal.PlaceLen:]) }),
		"reversed": places(func(p []byte) { slices.Reverse(p) }),
		"one for all": places(func(p []byte) {
			for i := journal.PlaceLen; i < n; i += journal.PlaceLen {
				copy(p[i:], p[:journal.PlaceLen])
			}
		}),
		"fewer":      resealed(t, good, func(b []byte) []byte { b[17]--; return b[:len(b)-journal.PlaceLen] }), // 256 entries fewer
		"of another": resealed(t, good, func(b []byte) []byte { b[30] ^= 1; return b }),
	} {
		if err := os.WriteFile(l.indexFile(0), file, 0o600); err != nil {
			t.Fatal(err)
		}
		for i, f := range filters {
			if got := texts(t, openLog(t, dir), f); !slices.Equal(got, want[i]) {
				t.Errorf("%s: %+v finds %d statements, want %d", name, f, len(got), len(want[i]))
			}
		}
	}
}

// TestIndexJournal holds that the journal file in use has an index, that grows
// with it, that verify reads it, and that it is of this log and no other.
func TestIndexJournal(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{CheckpointEvery: 5 * time.Millisecond})
	seq := make(map[uint64]uint64)
	statement := func(session uint64, user, text string) (last int64) {
		seq[session] += 2
		q := w.emit(event.Leaf{Session: session, Seq: seq[session] - 1, Kind: event.KindQuery, Who: &event.Who{User: user}}, queryMsg(text))
		return w.emit(event.Leaf{Session: session, Seq: seq[session], Kind: event.KindOutcome, Of: event.Ref(q), Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}, nil)
	}
	durable := func(index int64) {
		for w.Want(index); w.Durable() <= index; {
			time.Sleep(100 * time.Microsecond)
		}
	}
	write := func(n int) {
		for i := range n {
			if last := statement(1, "alice", fmt.Sprint("SELECT ", i)); i%50 == 0 { // many batches
				durable(last)
			}
		}
		statement(9, "rare", "TABLE rare")
		durable(statement(1, "alice", "SELECT 0"))
	}
	l := openLog(t, dir)
	count := func(l *Log) int64 {
		t.Helper()
		if err := l.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.Index(t.Context()); err != nil {
			t.Fatal(err)
		}
		x, f, err := l.openIndex(0)
		if err != nil {
			return 0
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		return x.stamp.count
	}
	write(10)
	if n := count(l); n != 0 {
		t.Errorf("a short journal file has an index of %d entries", n)
	}
	write(growBy/2 + 200)
	one := count(l)
	if one < growBy {
		t.Errorf("the index has %d entries, want %d or more", one, int64(growBy))
	}
	write(growBy/2 + 200)
	if two := count(l); two < one+growBy {
		t.Errorf("the index has %d entries after it had %d, want %d more", two, one, int64(growBy))
	}
	if found := texts(t, l, Filter{User: "rare"}); len(found) != 3 {
		t.Errorf("a search finds %q, want 3", found)
	}
	// Most of the file need not be read.
	m, err := (&Filter{User: "nobody"}).compile()
	if err != nil {
		t.Fatal(err)
	}
	p := l.plan(m)
	defer p.close()
	if next := p.next(0, newJoiner(l, m)); next < 2*growBy {
		t.Errorf("a search for nobody reads from entry %d on, want those behind the index only", next)
	}
	if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || !r.OK {
		t.Errorf("verify: %+v, %v", r.Findings, err)
	}
	// Another log, whose entries differ.
	other := t.TempDir()
	w.close()
	w = openWriter(t, other, ledger.Config{})
	write(growBy + 600)
	w.close()
	if err := os.CopyFS(filepath.Join(other, "index"), os.DirFS(filepath.Join(dir, "index"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openLog(t, other).openIndex(0); !errors.Is(err, errIndex) {
		t.Errorf("the index of another log: %v, want that it is stale", err)
	}
	// Once it is sealed, the index is the segment's.
	w = openWriter(t, dir, ledger.Config{})
	if err := w.Rotate(); err != nil {
		t.Fatal(err)
	}
	durable(statement(1, "alice", "SELECT 0"))
	w.close()
	w = openWriter(t, dir, ledger.Config{})
	if err := w.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.close()
	indexed := func(l *Log) []byte {
		t.Helper()
		if err := l.Index(t.Context()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(l.indexFile(0))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	grown := indexed(l)
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, dir)
	if !bytes.Equal(grown, indexed(l)) {
		t.Error("the index that grew with the journal is another than that of its segment")
	}
	x, f, err := l.openIndex(0)
	if err != nil || x.stamp.size < 0 {
		t.Fatalf("the index of the segment: %+v, %v", x, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if found := texts(t, l, Filter{User: "rare"}); len(found) != 3 {
		t.Errorf("a search finds %q after the log was sealed, want 3", found)
	}
}

// searchBy searches the first entries, those before end, by an index of them, and returns
// where it found something; l.reads says then what it read.
func (l *fakeLog) searchBy(t *testing.T, f Filter, file []byte, end int64) (found []int64) {
	t.Helper()
	m, err := f.compile()
	if err != nil {
		t.Fatal(err)
	}
	for _, portion := range []int64{300, 0} { // by helpers, and alone
		p := &plan{
			at: -1, terms: m.terms(), param: m.param(), parts: m.parts(), texts: make(map[int64]textPlaces), firsts: []int64{0}, stop: m.end,
			open: func(int64) (*index, io.Closer, error) {
				x, err := newIndex(bytes.NewReader(file), int64(len(file)))
				return x, io.NopCloser(nil), err
			},
		}
		l.reads.Store(0)
		j := newJoiner(l, m)
		j.portion, j.after = portion, 0
		helped := found
		found = nil
		if err := j.search(t.Context(), l, 0, end, p, &taker{statement: func(s *Statement) error {
			found = append(found, s.Index)
			return nil
		}}); err != nil {
			t.Fatal(err)
		}
		if portion == 0 && !slices.Equal(helped, found) {
			t.Errorf("search(%+v) by helpers found %d, want %d", f, helped, found)
		}
	}
	return found
}

// TestIndexPlanted: verify finds an index that says that a batch is one of the log's which a client, who knew the mark of
// the file, put into a value. A reader takes it for one.
func TestIndexPlanted(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{CheckpointEvery: time.Hour})
	who := &event.Who{User: "alice"}
	emit := func(n uint64, value []byte) int64 {
		i := w.emit(event.Leaf{Session: 1, Seq: n, Kind: event.KindQuery, Who: who}, value)
		for w.Want(i); w.Durable() <= i; {
			time.Sleep(100 * time.Microsecond)
		}
		return i
	}
	for n := range uint64(300) {
		emit(n+1, queryMsg("SELECT 1"))
	}
	l := openLog(t, dir)
	places, err := l.reader.Places(0, 256)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "journal", fmt.Sprintf("%020d.journal", 0))
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	at := le.Uint64(places[journal.PlaceLen:])
	planted := bytes.Clone(file[at:][:journal.BatchHeaderLen+int(le.Uint32(file[at+12:]))])
	body := planted[journal.BatchHeaderLen:]
	copy(body, bytes.Replace(body, []byte("SELECT 1"), []byte("SELECT 2"), 1))
	le.PutUint32(planted[44:], crc32.Checksum(body, castagnoli))
	le.PutUint32(planted[84:], crc32.Checksum(planted[:84], castagnoli))
	emit(301, queryMsg(string(planted)))
	w.close()
	if file, err = os.ReadFile(name); err != nil {
		t.Fatal(err)
	}
	b := newIndexBuilder(l, 0)
	if err := errors.Join(b.read(t.Context(), l, 256), b.conclude(l)); err != nil {
		t.Fatal(err)
	}
	s := stamp{count: 256, size: -1, engine: engine()}
	if s.root, err = l.reader.BatchRoot(256); err != nil {
		t.Fatal(err)
	}
	for name, off := range map[string]int{"good": int(at), "planted": bytes.Index(file, planted)} {
		le.PutUint64(places[journal.PlaceLen:], uint64(off))
		content, err := b.encode(s, places)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll(l.indexDir(), 0o700), os.WriteFile(l.indexFile(0), content, 0o600)); err != nil {
			t.Fatal(err)
		}
		e, err := openLog(t, dir).Entry(256)
		if shown := bytes.Contains(e.Value, []byte("SELECT 2")); err != nil || shown != (name == "planted") {
			t.Errorf("%s: entry 256 is read as %q, %v", name, e.Value, err)
		}
		if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || r.OK != (name == "good") {
			t.Errorf("%s: verify: %+v, %v", name, r, err)
		}
	}
}

// TestIndexReaches: an index is believed of its own file only, since verify holds it against no other.
func TestIndexReaches(t *testing.T) {
	// What is left of an unfinished sealing says how far the index of a journal file reaches.
	leftover := t.TempDir()
	w := openWriter(t, leftover, ledger.Config{CheckpointEvery: time.Hour})
	for i := range 1000 {
		who := &event.Who{User: fmt.Sprint("user", i%5)}
		q := w.emit(event.Leaf{Session: 1, Seq: uint64(i + 1), Kind: event.KindQuery, Who: who}, queryMsg("SELECT 1"))
		if i == 500 {
			if err := w.Rotate(); err != nil {
				t.Fatal(err)
			}
			for w.Want(q); w.Durable() <= q; {
				time.Sleep(100 * time.Microsecond)
			}
		}
	}
	w.close()
	for name, dir := range map[string]string{"segment": sealedLog(t), "journal": leftover} {
		l := openLog(t, dir)
		f := Filter{User: "user2"}
		want := texts(t, l, f)
		size, err := l.Size()
		if err != nil {
			t.Fatal(err)
		}
		s := stamp{count: (size - 1) / tree.Width * tree.Width, engine: engine()}
		var places []byte
		if name == "segment" {
			if s.size, places = -1, make([]byte, (s.count/tree.Width+1)*journal.PlaceLen); err == nil {
				s.root, err = l.reader.BatchRoot(s.count)
			}
		} else {
			head := make([]byte, 256)
			copy(head[8:], "pgnsegm1")
			binary.LittleEndian.PutUint64(head[24:], uint64(s.count))
			err = errors.Join(os.MkdirAll(segment.Dir(dir), 0o700), os.WriteFile(segment.LeafFile(dir, 0), head, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		b := newIndexBuilder(l, 0)
		if err := errors.Join(b.read(t.Context(), l, 512), b.conclude(l)); err != nil {
			t.Fatal(err)
		}
		content, err := b.encode(s, places)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll(l.indexDir(), 0o700), os.WriteFile(l.indexFile(0), content, 0o600)); err != nil {
			t.Fatal(err)
		}
		if r, err := verify.Dir(t.Context(), dir, verify.Options{}); err != nil || !r.OK {
			t.Errorf("%s: verify: %+v, %v", name, r, err)
		}
		if got := texts(t, l, f); !slices.Equal(got, want) {
			t.Errorf("%s: a search finds %d statements, want %d", name, len(got), len(want))
		}
	}
}
