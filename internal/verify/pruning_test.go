package verify

import (
	"testing"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// TestWhilePruned verifies a log in use again and again while its files are
// sealed, erased from and pruned: what goes in the middle of a run is neither
// an error nor a finding.
func TestWhilePruned(t *testing.T) {
	b := newBuilder(t, ledger.Config{CheckpointEvery: 1e6, SegmentSize: 1 << 30})
	b.session(1)
	const rounds = 8
	done := make(chan error, 1)
	do := func(o *ledger.Order) error {
		_, err := b.l.Do(t.Context(), o)
		return err
	}
	go func() {
		done <- func() error {
			var bounds []int64
			id := uint64(2)
			for range rounds {
				for range 20 {
					b.session(id)
					id++
				}
				secret := b.blob(1<<32+id, ledger.MaxInline+1)
				if err := b.l.Rotate(); err != nil {
					return err
				}
				b.commit(b.add(event.Leaf{Kind: event.KindHeartbeat}, nil))
				if err := b.l.SealNow(t.Context()); err != nil {
					return err
				}
				if err := do(&ledger.Order{Kind: "erase", Entries: []int64{secret}}); err != nil {
					return err
				}
				if bounds = append(bounds, b.l.Durable()); len(bounds) > 3 {
					if err := do(&ledger.Order{Kind: "prune", What: "leaves", Until: bounds[0]}); err != nil {
						return err
					}
					if err := do(&ledger.Order{Kind: "prune", What: "values", Until: bounds[1]}); err != nil {
						return err
					}
					bounds = bounds[1:]
				}
			}
			return nil
		}()
	}()
	runs := 0
	for len(done) == 0 {
		runs++
		r, err := Dir(t.Context(), b.dir, Options{})
		if err != nil {
			t.Errorf("run %d: %v", runs, err)
		} else if !r.OK {
			t.Errorf("run %d: findings %+v", runs, r.Findings)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.close()
	if r := run(t, b.dir, Options{}); !r.OK {
		t.Errorf("at rest: %+v", r.Findings)
	}
	t.Logf("%d runs while it was pruned %d times", runs, rounds-3)
}
