package relay

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestShortTurns: each thread a loop comes to run on has short turns where the
// kernel knows such, and neither a higher priority nor another policy.
func TestShortTurns(t *testing.T) {
	l := loop{relay: &Relay{cfg: Config{Mode: BeforeReply}}}
	for range 2 {
		done := make(chan bool)
		go func() {
			defer close(done)
			runtime.LockOSThread() // which ends with the goroutine
			want, err := unix.SchedGetAttr(0, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if want.Runtime > 0 { // since 6.12 the kernel says how long a turn is
				want.Runtime = shortTurn
			}
			l.askForShortTurns()
			if got, err := unix.SchedGetAttr(0, 0); err != nil || *got != *want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}()
		<-done
	}
}

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
