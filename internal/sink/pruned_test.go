package sink

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/ledger"
)

// A slow receiver takes nothing until it is let go.
type slow struct {
	begun, let chan struct{}
	once       sync.Once
	mu         sync.Mutex
	last       int64
}

func (s *slow) Send(_ context.Context, records []Record) error {
	s.once.Do(func() { close(s.begun) })
	<-s.let
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = records[len(records)-1].Index
	return nil
}
func (s *slow) Settle() time.Duration { return 0 }
func (s *slow) Close() error          { return nil }

// TestPrunedMeanwhile: a receiver that was away for longer than the log is kept
// gets what is there.
func TestPrunedMeanwhile(t *testing.T) {
	s := newSource(t)
	fill := func() {
		t.Helper()
		for range batchRecords + 10 {
			s.statement("SELECT 1")
		}
		last := s.statement("SELECT 2")
		s.l.Want(last)
		if err := s.l.Rotate(); err != nil {
			t.Fatal(err)
		}
		for s.l.Durable() <= last {
			time.Sleep(time.Millisecond)
		}
	}
	for range 3 {
		fill()
	}
	to := &slow{begun: make(chan struct{}), let: make(chan struct{})}
	k := s.sink(to)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	<-to.begun
	if err := s.l.SealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := s.l.Do(t.Context(), &ledger.Order{Kind: "prune", What: "leaves", Until: 1 << 40})
	if err != nil || a.Pruned == 0 {
		t.Fatalf("prune: %+v, %v", a, err)
	}
	close(to.let)
	want := s.statement("SELECT 3")
	s.l.Want(want)
	for {
		to.mu.Lock()
		last := to.last
		to.mu.Unlock()
		if last == want {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("Run = %v, want it to go on", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
}
