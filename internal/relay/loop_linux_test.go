package relay

import (
	"runtime"
	"testing"

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
