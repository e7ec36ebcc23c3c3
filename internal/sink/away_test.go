package sink

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A notebook keeps the messages of a logger.
type notebook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notebook) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(b)
}

func (n *notebook) count(message string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Count(n.b.String(), message)
}

// TestNeverDelivered holds that a sink whose receiver was never there says for how long entries wait
// for it, and once that it sends when the receiver comes.
func TestNeverDelivered(t *testing.T) {
	s := newSource(t)
	s.statement("SELECT 1")
	s.statement("SELECT 2")
	var there atomic.Bool
	r := &receiver{answer: func([]byte) int {
		if there.Load() {
			return 200
		}
		return 503
	}}
	srv := httptest.NewServer(r)
	defer srv.Close()
	notes := &notebook{}
	k := s.sink(NewWebhook(HTTPConfig{URL: srv.URL}), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(notes, nil)) })
	run(t, k, func() bool {
		n := k.Numbers()
		return n.Failures >= 2 && n.Lag > 0 && n.Behind > time.Second // it tries again after one
	})
	if n := notes.count("sink cannot send"); n != 1 {
		t.Errorf("%d messages that it cannot send, want 1", n)
	}
	there.Store(true)
	k = s.sink(NewWebhook(HTTPConfig{URL: srv.URL}))
	run(t, k, sent(k, 2))
	if n := k.Numbers(); n.Lag > 0 && n.Behind == 0 {
		t.Errorf("numbers %+v", n)
	}
}

// TestReminder holds what is said of a receiver that is away: when it goes, every few minutes, and once when
// it is known to have something again.
func TestReminder(t *testing.T) {
	s := newSource(t)
	s.statement("SELECT 1")
	notes := &notebook{}
	to := &flaky{settle: 20 * time.Millisecond}
	to.fails.Store(true)
	k := s.sink(to, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(notes, nil)) })
	for range 3 {
		k.failed(errors.New("away"))
	}
	k.told = k.told.Add(-remindEvery)
	for range 3 {
		k.failed(errors.New("away"))
	}
	if a, b := notes.count("sink cannot send"), notes.count("sink still cannot send"); a != 1 || b != 1 {
		t.Errorf("it said %d times that it cannot send and %d times that it still cannot, want once each", a, b)
	}
	run(t, k, func() bool { return k.Numbers().Failures >= 7 })
	if n := notes.count("sends again"); n != 0 {
		t.Errorf("it said %d times that it sends again before it did", n)
	}
	to.fails.Store(false)
	run(t, k, func() bool { return notes.count("sends again") > 0 })
	k.failed(errors.New("away"))
	if a, b := notes.count("sink cannot send"), notes.count("sends again"); a != 2 || b != 1 {
		t.Errorf("it said %d times that it cannot send and %d times that it sends again, want 2 and 1", a, b)
	}
}

// A flaky receiver takes everything once it does not fail any more.
type flaky struct {
	fails  atomic.Bool
	settle time.Duration
}

func (f *flaky) Send(context.Context, []Record) error {
	if f.fails.Load() {
		return errors.New("away")
	}
	return nil
}
func (f *flaky) Settle() time.Duration { return f.settle }
func (f *flaky) Close() error          { return nil }
