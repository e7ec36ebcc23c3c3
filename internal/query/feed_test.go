package query

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/ledger"
)

// TestFeed holds that a feed gives on each statement with its end, one that
// takes long once before that, and misses none when it is broken off.
func TestFeed(t *testing.T) {
	dir := t.TempDir()
	w := openWriter(t, dir, ledger.Config{CheckpointEvery: 20 * time.Millisecond})
	slow := w.emit(event.Leaf{Session: 2, Kind: event.KindQuery, Who: alice}, queryMsg("slow"))
	w.statement("quick")
	other := w.emit(event.Leaf{Session: 3, Kind: event.KindQuery, Who: alice}, queryMsg("other"))
	for w.Want(other); w.Durable() <= other; { // all three at once for the feed: on a slow machine too quick has ended before its time is up
		time.Sleep(time.Millisecond)
	}
	l := openLog(t, dir)
	if err := l.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	next := int64(0)
	// read feeds until want statements came.
	read := func(hold time.Duration, want int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		err := l.Feed(ctx, next, hold, Filter{Kinds: []string{"query"}}, func(s *Statement, n int64) error {
			next = n
			if s != nil {
				got = append(got, fmt.Sprintf("%s %t", s.Text, s.Outcome != nil))
				if want--; want == 0 {
					cancel()
				}
			}
			return nil
		})
		if err != nil || want > 0 {
			t.Fatalf("%d statements are missing after %v: %v", want, got, err)
		}
	}
	read(50*time.Millisecond, 3)
	// Broken off and taken up again: the ends of what was given on before.
	end := func(of int64, session uint64) {
		w.emit(event.Leaf{Session: session, Kind: event.KindOutcome, Of: event.Ref(of), Tx: 'I', Committed: 1, Micros: 5}, nil)
	}
	end(slow, 2)
	w.statement("more")
	read(time.Hour, 2)
	end(other, 3)
	w.statement("last")
	read(time.Hour, 2)
	want := "slow false, quick true, other false, slow true, more true, other true, last true"
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
	w.close()
}
