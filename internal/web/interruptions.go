package web

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgnotary/pgnotary/internal/event"
	"github.com/pgnotary/pgnotary/internal/query"
)

const (
	interruptionsOf    = 24 * time.Hour
	interruptionsEvery = time.Minute // they are counted at most this often
)

// Interruptions are the entries of the last day that say that recording, or a
// client, was interrupted.
type Interruptions struct {
	Since      time.Time `json:"since"`
	Gaps       int64     `json:"gaps"`       // statements ran unrecorded
	Recoveries int64     `json:"recoveries"` // a start found the end of a crash
	Violations int64     `json:"violations"` // refusals and broken protocol
	Starts     int64     `json:"starts"`
	Stops      int64     `json:"stops"`
	// From these on entries, and values, were not pruned.
	FirstEntry int64 `json:"first_entry"`
	FirstValue int64 `json:"first_value"`
}

func (n *Interruptions) add(k event.Kind) {
	switch k {
	case event.KindGap:
		n.Gaps++
	case event.KindRecover:
		n.Recoveries++
	case event.KindViolation:
		n.Violations++
	case event.KindStart:
		n.Starts++
	case event.KindStop:
		n.Stops++
	}
}

// An interruptionCount keeps Interruptions for a while: the status is asked
// for every second, and counting reads what of the log has no index.
type interruptionCount struct {
	counting sync.Mutex // held by whoever counts; nobody waits for it
	last     atomic.Pointer[Interruptions]
	at       time.Time // when last was counted; with counting held
}

// get returns the latest count, nil if there is none. It may be called concurrently.
func (c *interruptionCount) get(ctx context.Context, log *query.Log) *Interruptions {
	if log != nil && c.counting.TryLock() {
		defer c.counting.Unlock()
		if now := time.Now(); now.Sub(c.at) >= interruptionsEvery {
			// What cannot be counted now, because the client went away or the log
			// cannot be read, which others say, is left as it was.
			if n, err := countInterruptions(ctx, log, now.Add(-interruptionsOf)); err == nil {
				c.last.Store(n)
				c.at = now
			}
		}
	}
	return c.last.Load()
}

func countInterruptions(ctx context.Context, log *query.Log, since time.Time) (*Interruptions, error) {
	n := &Interruptions{Since: since.UTC()}
	kinds := []string{string(event.KindGap), string(event.KindRecover), string(event.KindViolation), string(event.KindStart), string(event.KindStop)}
	err := log.Search(ctx, query.Filter{Since: since, Kinds: kinds}, func(s *query.Statement) error {
		n.add(s.Kind)
		return nil
	})
	n.FirstEntry, n.FirstValue = log.First(), log.FirstValue()
	return n, err
}
