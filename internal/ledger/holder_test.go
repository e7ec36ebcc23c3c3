package ledger

import (
	"strings"
	"testing"

	"github.com/pgnotary/pgnotary/internal/durable/faultfs"
	"github.com/pgnotary/pgnotary/internal/event"
)

// TestHoldAcrossPruned: an entry that does not say whose it is, and whose
// statement was pruned, is held for whoever it may be of.
func TestHoldAcrossPruned(t *testing.T) {
	for _, tt := range []struct {
		user  string
		again bool // the session says again whose it is
		held  bool
	}{
		{"alice", false, true},
		{"alice", true, true},
		{"carol", false, true},
		{"carol", true, false},
	} {
		s := faultfs.New()
		l := mustOpen(t, steady(quiet(s, "/d")))
		seq := uint64(0)
		add := func(kind event.Kind, of int64, who *event.Who, value []byte) int64 {
			t.Helper()
			seq++
			i, err := l.Emit(&event.Leaf{Time: l.cfg.Now(), Session: 1, Seq: seq, Kind: kind, Of: of, Who: who}, value)
			if err != nil {
				t.Fatal(err)
			}
			return i
		}
		alice := &event.Who{User: "alice", Database: "app"}
		add(event.KindConnect, 0, alice, nil)
		asked := add(event.KindQuery, 0, alice, []byte("a question"))
		sealAll(t, l)
		told := add(event.KindOutcome, event.Ref(asked), nil, []byte("an answer"))
		if tt.again {
			add(event.KindQuery, 0, alice, nil)
		}
		sealAll(t, l)
		sealAll(t, l)
		if a := mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 256}); a.Pruned != 256 {
			t.Fatalf("%+v", a)
		}
		mustDo(t, l, Order{Kind: "hold", Case: "trial", Hold: &Hold{User: tt.user}})
		sealAll(t, l)
		_, err := l.Do(t.Context(), &Order{Kind: "erase", Entries: []int64{told}})
		if tt.held != (err != nil && strings.Contains(err.Error(), "trial")) {
			t.Errorf("%+v: erase = %v", tt, err)
		}
		if a := mustDo(t, l, Order{Kind: "prune", What: "leaves", Until: 512}); tt.held == (a.Pruned == 512) {
			t.Errorf("%+v: prune: %+v", tt, a)
		}
		mustClose(t, l)
		mustVerify(t, s, "/d")
	}
}
