package relay

import (
	"errors"
	"testing"
	"time"
)

// TestFailureBeforeDrain: when recording fails while the loop is about to take its inbox, sessions end for that
// reason, not because the proxy stops, which it does then.
func TestFailureBeforeDrain(t *testing.T) {
	r := &Relay{now: func() int64 { return 0 }}
	l := &loop{relay: r}
	failing := make(chan bool, 1)
	l.mu.Lock()
	go l.takeInbox()
	time.Sleep(20 * time.Millisecond)
	err := errors.New("disk full")
	r.failed.Store(&err)
	l.inbox = append(l.inbox, func() { failing <- l.failing })
	l.mu.Unlock()
	if !<-failing {
		t.Error("the drain came before the failure that led to it")
	}
}
