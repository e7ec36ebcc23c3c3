package ledger

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/verify"
)

// TestLettingGoMeanwhile: what goes from a log in use while it is checked has
// its explanation behind the checkpoint that it is checked with.
func TestLettingGoMeanwhile(t *testing.T) {
	for _, o := range []Order{{Kind: "erase"}, {Kind: "prune", What: "values", Until: 256}} {
		dir := filepath.Join(t.TempDir(), "data")
		l := mustOpen(t, steady(quiet(nil, dir)))
		_, secret, large, err := rich(l)
		if err == nil {
			err = l.sign()
		}
		if err != nil {
			t.Fatal(err)
		}
		if o.Kind == "erase" {
			o.Entries = []int64{secret, large}
		}
		done := false
		r, err := verify.Dir(t.Context(), dir, verify.Options{Trust: func([]byte) (time.Time, error) {
			// Called when the checkpoint has been read, and nothing else.
			if !done {
				done = true
				mustDo(t, l, o)
			}
			return time.Time{}, nil
		}})
		if err != nil || !r.OK || !done {
			t.Errorf("%s %s: %+v, %v", o.Kind, o.What, r, err)
		}
		mustClose(t, l)
	}
}
