package relay

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestShortTurns: the thread of a loop has short turns where the kernel knows
// such, and neither a higher priority nor another policy.
func TestShortTurns(t *testing.T) {
	type pair struct{ before, after *unix.SchedAttr }
	c := make(chan pair)
	go func() { // the thread ends with the goroutine, which is bound to it
		var p pair
		p.before, _ = unix.SchedGetAttr(0, 0)
		askForShortTurns()
		p.after, _ = unix.SchedGetAttr(0, 0)
		c <- p
	}()
	p := <-c
	if p.before == nil || p.after == nil {
		t.Fatal("sched_getattr fails")
	}
	want := *p.before
	if want.Runtime > 0 { // since 6.12 the kernel says how long a turn is
		want.Runtime = shortTurn
	}
	if *p.after != want {
		t.Errorf("got %+v, want %+v", *p.after, want)
	}
}
