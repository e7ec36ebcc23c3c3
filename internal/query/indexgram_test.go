package query

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
	"github.com/pgnotary/pgnotary/internal/sqlinfo"
	"github.com/pgnotary/pgnotary/internal/tree"
)

// TestIndexText looks for parts of texts of all sorts: what an index cannot know must
// be found all the same, and what it knows without reading the rest.
func TestIndexText(t *testing.T) {
	l := &fakeLog{blobs: make(map[[16]byte][]byte), copies: make(map[int64]journal.Entry)}
	done := event.Leaf{Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}
	fill := func() {
		for range 3 * tree.Width / 2 {
			l.end(l.admit(event.KindQuery, queryMsg(fmt.Sprint("SELECT other FROM t WHERE id = ", len(l.entries)))), done, nil)
		}
	}
	var at []int64 // of what is looked for, in bundles far from each other
	add := func(i int64) int64 {
		l.end(i, done, nil)
		at = append(at, i)
		fill()
		return i
	}
	add(l.admit(event.KindQuery, queryMsg("DROP TABLE Needle; -- größer")))
	prepared := add(l.admit(event.KindParse, parseFrame("s", "SELECT prepared_text")))
	add(l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: event.Ref(prepared)}, join(bindFrame("", "s", nil), executeFrame("", 0))))
	add(l.admit(event.KindExecute, join(parseFrame("", "SELECT at_once"), bindFrame("", "", nil), executeFrame("", 0))))
	add(l.admit(event.KindQuery, queryMsg("SELECT 'long', '"+strings.Repeat("x", maxGramText)+"end'")))
	add(l.add(event.Leaf{Session: 1, Kind: event.KindQuery, Who: alice, Facts: []event.Fact{{Key: encodingFact, Val: "LATIN1"}}}, queryMsg("SELECT 'Stra\xdfe'")))
	add(l.admit(event.KindQuery, queryMsg("SELECT 'wrong\xffbyte'")))
	large := l.admit(event.KindQuery, nil)
	l.entries[large].HasValue, l.entries[large].Blob = true, &journal.BlobRef{ID: [16]byte{1}}
	add(large)
	expired := l.admit(event.KindParse, parseFrame("e", "SELECT kept_elsewhere"))
	fill()
	l.copies[expired] = l.entries[expired]
	l.entries[expired].Value, l.entries[expired].Gone = nil, journal.Expired
	add(l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: event.Ref(expired)}, join(bindFrame("", "e", nil), executeFrame("", 0))))
	add(l.add(event.Leaf{Session: 1, Kind: event.KindExecute, Who: alice, Parse: event.Ref(prepared)}, join(bindFrame("", "s", nil), executeFrame("", 0))))

	full := int64(len(l.entries)) / 256 * 256
	b := newIndexBuilder(l, 0)
	for i := range l.entries[:full] {
		if err := b.entry(&l.entries[i]); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 { // as that of a journal file, which grows
			if _, err := b.encode(stamp{count: full}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.blobs[[16]byte{1}] = queryMsg("SELECT was_not_at_hand") // only now
	file, err := b.encode(stamp{count: full}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text, regexp string
		at           []int64
		few          bool // it is found without reading all
	}{
		{text: "Needle", at: at[:1], few: true},
		{text: "needle", few: true},
		{text: "DROP TABLE Needle; -- größer", at: at[:1], few: true},
		{text: "röß", at: at[:1], few: true},
		{text: "\xc3\xb6\xc3", at: at[:1], few: true}, // half a character
		{text: "prepared_text", at: []int64{at[1], at[2], at[9]}, few: true},
		{text: "kept_elsewhere", at: at[8:9], few: true},
		{text: "at_once", at: at[3:4], few: true},
		{text: "xend", at: at[4:5], few: true},
		{text: "Straße", at: at[5:6], few: true},
		{text: "wrong\uFFFDbyte", at: at[6:7], few: true},
		{text: "_hand", at: at[7:8], few: true},
		{text: "nowhere", few: true},
		{text: "ö", at: at[:1]},
		{text: "--", at: at[:1]},
		{regexp: "^DROP .*Nee+dle", at: at[:1], few: true},
		{regexp: "prepared_(text|statement)$", at: []int64{at[1], at[2], at[9]}, few: true},
		{regexp: "(at_once)+", at: at[3:4], few: true},
		{regexp: "(?i)NEEDLE", at: at[:1]},
		{regexp: "Needle|at_once", at: []int64{at[0], at[3]}},
		{regexp: "(never)*at_.nce", at: at[3:4], few: true},
		{regexp: "(never){0,3}at..nce", at: at[3:4], few: true},
		{regexp: "Needle", text: "at_once", few: true},
	} {
		f := Filter{Text: tt.text}
		if tt.regexp != "" {
			f.Regexp = regexp.MustCompile(tt.regexp)
		}
		found := l.searchBy(t, f, file, full)
		if !slices.Equal(found, tt.at) {
			t.Errorf("%q, %q is found in %d, want %d", tt.text, tt.regexp, found, tt.at)
		}
		// Two bundles are read for whatever is asked: one with a long text, one with a large one.
		if few := l.reads.Load() <= 256*8; few != tt.few {
			t.Errorf("%q, %q takes %d entries of %d, want few: %v", tt.text, tt.regexp, l.reads.Load(), full, tt.few)
		}
	}
}

// TestIndexGrams looks up rows of all densities, in indexes of few bundles and many.
func TestIndexGrams(t *testing.T) {
	for _, bundles := range []int64{1, 7, 8, 64, 65, 300, 1055} {
		r := rand.New(rand.NewPCG(1, uint64(bundles)))
		b := newIndexBuilder(&fakeLog{}, 0)
		want := make(map[string]map[int64]bool)
		for _, share := range []float64{0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 1} {
			part := fmt.Sprintf("<%g>", share)
			want[part] = make(map[int64]bool)
			for n := range bundles {
				if r.Float64() < share {
					want[part][n] = true
					b.text(n*tree.Width, []byte(part))
				}
			}
		}
		file, err := b.encode(stamp{count: bundles * tree.Width}, nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := newIndex(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		if limit := 20 * (rowLen(bundles) + 1); x.grams > limit {
			t.Errorf("%d bundles: the trigrams take %d bytes, want at most %d", bundles, x.grams, limit)
		}
		for part, in := range want {
			set := newPlaces(bundles)
			if err := x.part(part, set); err != nil {
				t.Fatalf("%d bundles: %s: %v", bundles, part, err)
			}
			vain := 0
			for n := range bundles {
				if set.has(n) && !in[n] {
					vain++
				} else if !set.has(n) && in[n] {
					t.Fatalf("%d bundles: %s is in bundle %d, and not found", bundles, part, n)
				}
			}
			if int64(vain) > bundles/20 { // they share a few trigrams
				t.Errorf("%d bundles: %s is found in %d bundles in vain", bundles, part, vain)
			}
		}
	}
}

// A countedLog counts how often a value that is not inline is read.
type countedLog struct {
	*fakeLog
	read int
}

func (l *countedLog) Blob(ref *journal.BlobRef) ([]byte, error) {
	l.read++
	return l.fakeLog.Blob(ref)
}

// TestIndexLarge holds that an index is made without reading large values, and that whatever is
// searched for may be in them, and in what goes back to them.
func TestIndexLarge(t *testing.T) {
	l := &fakeLog{blobs: make(map[[16]byte][]byte)}
	done := event.Leaf{Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}
	fill := func() {
		for range 3 * tree.Width / 2 {
			l.end(l.admit(event.KindQuery, queryMsg(fmt.Sprint("SELECT other FROM t WHERE id = ", len(l.entries)))), done, nil)
		}
	}
	large := func(i int64) int64 {
		e := &l.entries[i]
		e.Blob = &journal.BlobRef{ID: [16]byte{byte(len(l.blobs))}, Size: maxIndexedBlob + 1}
		l.blobs[e.Blob.ID], e.Value = e.Value, nil
		return i
	}
	var at []int64
	add := func(i int64) {
		l.end(i, done, nil)
		at = append(at, i)
		fill()
	}
	const text = "DELETE FROM big WHERE id = $1"
	execute := func(leaf event.Leaf, value []byte) int64 {
		leaf.Session, leaf.Kind, leaf.Who = 1, event.KindExecute, alice
		return l.add(leaf, value)
	}
	add(large(l.admit(event.KindQuery, queryMsg("DELETE FROM big WHERE id = 7"))))
	add(large(execute(event.Leaf{}, join(parseFrame("", text, 25), bindFrame("", "", nil, []byte("seven")), executeFrame("", 0)))))
	parse := large(l.admit(event.KindParse, parseFrame("s", text, 25)))
	add(parse)
	add(execute(event.Leaf{Parse: event.Ref(parse)}, join(bindFrame("", "s", nil, []byte("seven")), executeFrame("", 0))))
	bind := large(l.add(event.Leaf{Session: 1, Kind: event.KindBind, Who: alice, Parse: event.Ref(parse)}, bindFrame("p", "s", nil, []byte("seven"))))
	fill()
	add(execute(event.Leaf{Parse: event.Ref(parse), Bind: event.Ref(bind)}, executeFrame("p", 0)))

	full := int64(len(l.entries)) / 256 * 256
	counted := &countedLog{fakeLog: l}
	b := newIndexBuilder(counted, 0)
	for i := range l.entries[:full] {
		if err := b.entry(&l.entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	if counted.read > 0 {
		t.Errorf("large values were read %d times to make the index", counted.read)
	}
	file, err := b.encode(stamp{count: full}, nil)
	if err != nil {
		t.Fatal(err)
	}
	seven := "seven"
	for _, f := range []Filter{
		{Text: "FROM big"}, {Classes: []string{"WRITE"}}, {Relation: "big"}, {Fingerprint: sqlinfo.Analyze(text).Fingerprint}, {Param: &seven},
	} {
		want := l.searchBy(t, f, nil, full)
		if len(want) < 3 {
			t.Fatalf("%+v is in %d", f, want)
		}
		if found := l.searchBy(t, f, file, full); !slices.Equal(found, want) {
			t.Errorf("%+v is found in %d, want %d", f, found, want)
		}
		if l.reads.Load() > 256*14 {
			t.Errorf("%+v takes %d entries of %d", f, l.reads.Load(), full)
		}
	}
}
