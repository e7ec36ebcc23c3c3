package query

import (
	"slices"
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/journal"
)

// TestTooLarge holds that values above the limit are not read, and that what nobody
// looked at is shown, whatever is searched for in it, and says so.
func TestTooLarge(t *testing.T) {
	l := &countedLog{fakeLog: &fakeLog{blobs: make(map[[16]byte][]byte)}}
	large := func(i int64) int64 {
		e := &l.entries[i]
		e.Blob = &journal.BlobRef{ID: [16]byte{byte(len(l.blobs))}, Size: 1001}
		l.blobs[e.Blob.ID], e.Value = e.Value, nil
		return i
	}
	execute := func(leaf event.Leaf, value []byte) int64 {
		leaf.Session, leaf.Kind, leaf.Who = 1, event.KindExecute, alice
		return l.add(leaf, value)
	}
	done := event.Leaf{Tags: []string{"SELECT 1"}, Tx: 'I', Committed: 1}
	text := "SELECT $1 " + strings.Repeat(" ", maxEager)
	query := large(l.admit(event.KindQuery, queryMsg("SELECT 'needle'")))
	at := large(execute(event.Leaf{}, join(parseFrame("", text, 25), bindFrame("", "", nil, []byte("seven")), executeFrame("", 0))))
	parse := large(l.admit(event.KindParse, parseFrame("s", text, 25)))
	back := execute(event.Leaf{Parse: event.Ref(parse)}, join(bindFrame("", "s", nil, []byte("seven")), executeFrame("", 0)))
	small := l.admit(event.KindQuery, queryMsg("SELECT 'needle'"))
	for _, i := range []int64{query, at, parse, back, small} {
		l.end(i, done, nil)
	}
	nowhere, seven, eight := "nowhere", "seven", "eight"
	for _, tt := range []struct {
		max    int64
		filter Filter
		want   []int64
		lacks  []int64 // of those
	}{
		{0, Filter{}, []int64{query, at, parse, back, small}, nil},
		{1000, Filter{}, []int64{query, at, parse, back, small}, []int64{query, at, parse, back}},
		{1001, Filter{}, []int64{query, at, parse, back, small}, nil},
		{0, Filter{Text: nowhere}, nil, nil},
		{1000, Filter{Text: nowhere}, []int64{query, at, parse, back}, []int64{query, at, parse, back}},
		{1000, Filter{Text: "needle"}, []int64{query, at, parse, back, small}, []int64{query, at, parse, back}},
		{1000, Filter{Classes: []string{"DDL"}}, []int64{query, at, parse, back}, []int64{query, at, parse, back}},
		{0, Filter{Param: &seven}, []int64{at, back}, nil},
		{1000, Filter{Param: &seven}, []int64{at, parse, back}, []int64{at, parse, back}},
		{1000, Filter{Param: &eight}, []int64{at, parse}, []int64{at, parse}}, // of what goes back, the parameters are at hand
		{1000, Filter{User: "bob"}, nil, nil},
	} {
		l.max, l.read = tt.max, 0
		var got, lacks []int64
		if err := search(t.Context(), l, &tt.filter, 0, int64(len(l.entries)), func(s *Statement) error {
			got = append(got, s.Index)
			said := strings.Contains(string(s.AppendJSON(nil)), `"unavailable":true,"too_large":true`)
			if s.TooLarge {
				lacks = append(lacks, s.Index)
			}
			if said != s.TooLarge || s.FactsOnly().TooLarge != s.TooLarge {
				t.Errorf("statement %d: too large %t, said %t", s.Index, s.TooLarge, said)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, tt.want) || !slices.Equal(lacks, tt.lacks) {
			t.Errorf("with %d bytes at most, search(%+v) = %v without %v, want %v without %v", tt.max, tt.filter, got, lacks, tt.want, tt.lacks)
		}
		if tt.max == 1000 && l.read > 0 {
			t.Errorf("with %d bytes at most, search(%+v) read %d larger values", tt.max, tt.filter, l.read)
		}
	}
}
