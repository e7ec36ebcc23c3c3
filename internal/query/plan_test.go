package query

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// pad has bundles begin at any place of a random log: it spreads its entries,
// with some of a session of its own between them, whose number of entries is drawn.
func (l *randomLog) pad(t *rapid.T) *randomLog {
	padded := &randomLog{}
	padded.now = l.now
	moved := make(map[int64]int64)
	for _, e := range l.entries {
		for range rapid.SampledFrom([]int{0, 0, 50, 120, 250}).Draw(t, "padding") {
			padded.add(event.Leaf{Session: 77, Kind: event.KindNotice, Time: fakeStart + 1}, nil)
		}
		leaf, err := event.Parse(e.Leaf)
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range []*int64{&leaf.Of, &leaf.Parse, &leaf.Bind, &leaf.Since} {
			if i, ok := event.Index(*ref); ok {
				*ref = event.Ref(moved[i])
			}
		}
		moved[e.Index] = padded.add(leaf, e.Value)
	}
	return padded
}

// indexed makes indexes of stretches of the log, some of them damaged, and
// returns a plan that goes by them.
func (l *randomLog) indexed(t *rapid.T, m *matcher) *plan {
	files := make(map[int64][]byte)
	p := &plan{at: -1, terms: m.terms(), param: m.param(), parts: m.parts(), stop: m.end, texts: make(map[int64]textPlaces)}
	if len(p.terms) == 0 && p.param == nil && len(p.parts) == 0 && m.f.End == 0 {
		return nil
	}
	full := int64(len(l.entries)) / tree.Width
	for n := int64(0); n < full; {
		many := rapid.Int64Range(1, full-n).Draw(t, "bundles")
		first, to := n*tree.Width, (n+many)*tree.Width
		n += many
		if rapid.IntRange(0, 5).Draw(t, "missing") == 0 {
			continue
		}
		b := newIndexBuilder(l, first)
		for _, e := range l.entries[first:to] {
			if err := b.entry(&e); err != nil {
				t.Fatal(err)
			}
		}
		if rapid.Bool().Draw(t, "concluded") { // as of a segment
			if err := b.conclude(l); err != nil {
				t.Fatal(err)
			}
		}
		file, err := b.encode(stamp{first: first, count: to - first}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.IntRange(0, 9).Draw(t, "damaged") == 0 {
			file[rapid.IntRange(0, len(file)-1).Draw(t, "at")] ^= 4
		}
		files[first] = file
		p.firsts = append(p.firsts, first)
	}
	p.open = func(first int64) (*index, io.Closer, error) {
		file, ok := files[first]
		if !ok {
			return nil, nil, fs.ErrNotExist
		}
		x, err := newIndex(bytes.NewReader(file), int64(len(file)))
		return x, io.NopCloser(nil), err
	}
	return p
}

// TestSearchWithAnyIndex holds that random searches of random logs find the
// same with indexes, also with some that are missing or damaged, as without.
func TestSearchWithAnyIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLog(t).pad(t)
		var f Filter
		for range rapid.SampledFrom([]int{1, 1, 2}).Draw(t, "conditions") { // with more hardly anything is found
			switch rapid.IntRange(0, 12).Draw(t, "condition") {
			case 0:
				f.User = rapid.SampledFrom([]string{"alice", `a"b`, "bob"}).Draw(t, "user")
			case 1:
				f.Application = "app1"
			case 2:
				f.Kinds = rapid.SampledFrom([][]string{{"query"}, {"execute", "bind"}, {"copy"}}).Draw(t, "kinds")
			case 3:
				f.SQLState = rapid.SampledFrom([]string{anyState, "2", "23", "42P", "23505", "42P01"}).Draw(t, "sqlstate")
			case 4:
				f.MinDuration = time.Duration(rapid.SampledFrom([]int64{1, 1023, 1024, 2000}).Draw(t, "min")) * time.Microsecond
			case 5:
				f.Classes = []string{rapid.SampledFrom([]string{"READ", "DDL", "WRITE", Unknown}).Draw(t, "class")}
			case 6:
				f.Relation = "t"
			case 7:
				f.Fingerprint = sqlinfo.Analyze("SELECT 2").Fingerprint
			case 8:
				f.Session = "2000000000000000"
			case 10:
				param := rapid.SampledFrom([]string{"1", "2", `\x00000001`, "none"}).Draw(t, "param")
				f.Param = &param
			case 11:
				f.Text = rapid.SampledFrom([]string{"SELECT", "TABLE t", "elect '", "t '", "1", "TABLE tt", "none"}).Draw(t, "text")
			case 12:
				f.Regexp = regexp.MustCompile(rapid.SampledFrom([]string{
					"^DROP", "SELECT [0-9]+", "(?i)select", "sel(ec)+t", "'x'|TABLE", "(DROP)* TABLE", "(ABL){1,2}E", "none",
				}).Draw(t, "regex"))
			case 9:
				f.End = rapid.Int64Range(1, int64(len(l.entries)+1)).Draw(t, "end")
			}
		}
		m, err := f.compile()
		if err != nil {
			t.Fatal(err)
		}
		run := func(p *plan) []string {
			out := []string{}
			j := newJoiner(l, m)
			if err := j.search(context.Background(), l, 0, int64(len(l.entries)), p, &taker{statement: func(s *Statement) error {
				out = append(out, string(s.AppendJSON(nil)))
				return nil
			}}); err != nil {
				t.Fatal(err)
			}
			return out
		}
		want := run(nil)
		if d := cmp.Diff(want, run(l.indexed(t, m))); d != "" {
			t.Errorf("with indexes search(%+v) differs (-without +with):\n%s", f, d)
		}
	})
}

// TestIndexWhileWritten searches a log while it is written, rotated, sealed and
// indexed: what was durable before must be found, once, and nothing that is not there.
func TestIndexWhileWritten(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{CheckpointEvery: 5 * time.Millisecond, Lazy: time.Millisecond, SegmentSize: 64 << 10})
	l, indexer := openLog(t, dir), openLog(t, dir)
	const users = 40
	of := make(map[int64]int) // statement to user
	var first int64
	for round := range 6 {
		for i := range 400 {
			u := (i*7 + round) % users
			q := w.emit(event.Leaf{Session: uint64(u + 1), Kind: event.KindQuery, Who: &event.Who{User: fmt.Sprint("u", u)}}, queryMsg(fmt.Sprint("SELECT ", i)))
			o := event.Leaf{Session: uint64(u + 1), Kind: event.KindOutcome, Of: event.Ref(q), Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}
			if u == 3 {
				o.Tags, o.SQLState = nil, "23505"
			}
			w.emit(o, nil)
			of[q] = u
			first = q + 1
		}
		for w.Want(first); w.Durable() <= first; {
			time.Sleep(time.Millisecond)
		}
		if err := indexer.Index(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.CatchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		size, err := l.Size()
		if err != nil {
			t.Fatal(err)
		}
		for u := range 10 {
			f := Filter{User: fmt.Sprint("u", u), End: size}
			if u == 3 {
				f = Filter{SQLState: "23", End: size}
			}
			var want, got, back []int64
			for q, by := range of {
				if by == u && q < size {
					want = append(want, q)
				}
			}
			slices.Sort(want)
			if err := l.Search(t.Context(), f, func(s *Statement) error {
				got = append(got, s.Index)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if u == 3 { // the end of the last may not be durable yet
				want = want[:min(len(want), max(len(got), len(want)-1))]
			}
			if !slices.Equal(got, want) {
				t.Fatalf("round %d: %+v finds %v, want %v", round, f, got, want)
			}
			if err := l.SearchBack(t.Context(), f, func(s *Statement) error {
				back = append(back, s.Index)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if slices.Reverse(back); !slices.Equal(back, got) {
				t.Fatalf("round %d: %+v finds %v backwards, want %v", round, f, back, got)
			}
		}
	}
	w.close()
}

// TestSearchBack compares searches in both directions, with indexes and without, in
// one go and page by page.
func TestSearchBack(t *testing.T) {
	l := openLog(t, sealedLog(t))
	for _, with := range []string{"no indexes", "indexes"} {
		for _, f := range []Filter{
			{},
			{User: "user1500"},
			{User: "user2"},
			{User: "nobody"},
			{Relation: "rare.thing"},
			{Kinds: []string{"violation", "start"}},
			{MinDuration: 4 * time.Millisecond},
			{Text: "rare"},
			{From: 700, End: 5000},
			{End: 1},
			{SQLState: "08"},
			{All: true, User: "user1500"},
			{Since: time.Unix(0, fakeStart+1e9), Until: time.Unix(0, fakeStart+4e9)},
			{Until: time.Unix(0, fakeStart-1e12)},
		} {
			find := func(search func(context.Context, Filter, func(*Statement) error) error, f Filter) (out []string) {
				if err := search(t.Context(), f, func(s *Statement) error {
					out = append(out, string(s.AppendJSON(nil)))
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				return out
			}
			want := find(l.Search, f)
			slices.Reverse(want)
			if got := find(l.SearchBack, f); !slices.Equal(got, want) {
				t.Errorf("%s: %+v finds %d statements backwards, want the %d of Search", with, f, len(got), len(want))
			}
			var pages []string
			for page := f; ; {
				page.Limit = max(1, len(want)/3)
				n := len(pages)
				if err := l.SearchBack(t.Context(), page, func(s *Statement) error {
					pages = append(pages, string(s.AppendJSON(nil)))
					page.End = s.Index
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if len(pages) == n || page.End == 0 {
					break
				}
			}
			if !slices.Equal(pages, want) {
				t.Errorf("%s: %+v finds %d statements page by page, want the %d of Search", with, f, len(pages), len(want))
			}
		}
		if err := l.Index(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
