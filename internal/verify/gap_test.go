package verify

import (
	"slices"
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
)

// TestSays: an entry explains only what comes before it, and only in the spelling that the writer has for it.
func TestSays(t *testing.T) {
	for _, tt := range []struct {
		list string
		want []int64 // nil if it is malformed
	}{
		{"5", []int64{5}},
		{"5,9-11", []int64{5, 9, 10, 11}},
		{"0-1,99", []int64{0, 1, 99}},
		{"100", nil},
		{"98-100", nil},
		{"5,5", nil},
		{"5-9,9", nil},
		{"9,5", nil},
		{"9-5", nil},
		{"-1", nil},
		{"", nil},
		{"5,", nil},
		{"x", nil},
	} {
		got, ok := parseRanges(tt.list, 100)
		if ok != (tt.want != nil) || ok && !slices.Equal(got, tt.want) {
			t.Errorf("%q: %d, %v, want %d", tt.list, got, ok, tt.want)
		}
	}
	for until, want := range map[string]bool{"100": true, "99": true, "101": false, "-1": false, "x": false} {
		c := &check{gap: newGaps()}
		l := event.Leaf{Kind: event.KindPrune, Facts: []event.Fact{{Key: "what", Val: "values"}, {Key: "until", Val: until}}}
		if c.says(&entry{index: 100, leaf: l.Append(nil)}); (len(c.Findings) == 0) != want || (c.gap.values > 0) != want {
			t.Errorf("a prune entry until %s: findings %+v, values %d", until, c.Findings, c.gap.values)
		}
	}
}
