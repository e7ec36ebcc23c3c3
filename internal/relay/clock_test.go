package relay

import (
	"testing"
	"time"

	"github.com/pgnotary/pgnotary/internal/clock"
	"github.com/pgnotary/pgnotary/internal/event"
)

// TestClockIsSet: entries have the time of day also after that was set, or the machine slept, and within a session it
// does not go back, whatever is done to the clock.
func TestClockIsSet(t *testing.T) {
	r := &Relay{clock: clock.New()}
	var ahead time.Duration
	r.clock.Ahead = func() time.Duration { return ahead }
	at := r.clock.Now()
	begin := func() *pair { return &pair{relay: r, shift: r.clock.Shift(at)} }
	old, young := begin(), (*pair)(nil)
	for _, step := range []struct {
		ahead, old, young time.Duration
	}{
		{},
		{ahead: 99 * time.Millisecond}, // no step, only imprecise
		{9000*time.Hour + 999, 9000 * time.Hour, 9000 * time.Hour},
		{-2 * time.Hour, 9000 * time.Hour, -2 * time.Hour}, // the session that was there is not to go back
		{9001 * time.Hour, 9001 * time.Hour, 9001 * time.Hour},
	} {
		ahead = step.ahead
		at += int64(time.Second)
		young = begin()
		for _, p := range []struct {
			name string
			*pair
			want time.Duration
		}{{"old", old, step.old}, {"young", young, step.young}} {
			l := event.Leaf{Time: at}
			p.encode(&l)
			if got := time.Duration(l.Time - at); got != p.want {
				t.Errorf("the clock is ahead by %s: the %s session's entry is by %s, want %s", step.ahead, p.name, got, p.want)
			}
		}
	}
}
